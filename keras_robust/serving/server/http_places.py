"""Places of the HTTP server: for connections, for requests, and for large bodies."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

from keras_robust.serving.server.deadline import Deadline
from keras_robust.serving.server.http_body import HttpError
from keras_robust.serving.server.http_stream import RequestStream

# Idle connections, in addition to those whose requests are running or queued.
IDLE_CONNECTIONS = 120
# A JSON body becomes lists of many times its size. At most LARGE_BODIES large ones are in memory at
# a time, and only one as lists.
LARGE_BODY = 4 * 2**20
LARGE_BODIES = 4
LARGE_SECONDS = 30.0
# A sender that is late by more than this loses its place when another client needs it.
LATE_SECONDS = 1.0


class Places:
    """Limits and counts the connections, requests and large bodies of the server.

    When no place is free, the connection that is waited for the longest loses its own: an idle one,
    or one whose request arrives too slowly.

    Args:
        threads: requests that run at the same time.
        queue: requests that wait for a thread.

    Attributes:
        draining: new requests are rejected, since the server stops.
    """

    def __init__(self, threads: int, queue: int) -> None:
        self.max_requests = threads + queue
        self.max_connections = self.max_requests + IDLE_CONNECTIONS
        self.draining = False
        self._large_held = threading.BoundedSemaphore(LARGE_BODIES)
        self._large_worked_on = threading.Lock()
        self._changed = threading.Condition()
        self._connections: set[socket.socket] = set()
        self._heads: dict[socket.socket, RequestStream] = {}
        self._bodies: dict[socket.socket, RequestStream] = {}
        self._busy = 0

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self._connections)

    @property
    def busy(self) -> int:
        """The number of requests that arrive, wait or run."""
        return self._busy

    def connect(self, connection: socket.socket) -> bool:
        """Takes a place for a connection; returns whether there was one."""
        with self._changed:
            if len(self._connections) >= self.max_connections:
                self._give_up_slowest({**self._heads, **self._bodies})
            if len(self._connections) >= self.max_connections:
                return False
            self._connections.add(connection)
            return True

    def disconnect(self, connection: socket.socket) -> None:
        """Gives the place of a connection back."""
        with self._changed:
            self._connections.discard(connection)
            self._changed.notify_all()

    @contextlib.contextmanager
    def reading_head(self, stream: RequestStream) -> Iterator[None]:
        """Marks a connection as waiting for a request; it may lose its place."""
        with self._reading(stream, self._heads):
            yield

    @contextlib.contextmanager
    def reading_body(self, stream: RequestStream) -> Iterator[None]:
        """Marks a connection as waiting for a body; it may lose its place if the body is slow."""
        with self._reading(stream, self._bodies):
            yield

    @contextlib.contextmanager
    def _reading(
        self, stream: RequestStream, streams: dict[socket.socket, RequestStream]
    ) -> Iterator[None]:
        stream.begin()
        with self._changed:
            streams[stream.connection] = stream
        try:
            yield
        finally:
            with self._changed:
                streams.pop(stream.connection, None)

    def _give_up_slowest(self, streams: dict[socket.socket, RequestStream]) -> bool:
        late = {connection: stream.late_by() for connection, stream in streams.items()}
        for connection in sorted(late, key=late.__getitem__, reverse=True):
            if late[connection] <= LATE_SECONDS:
                return False
            if not streams[connection].has_input():  # else the server is late itself
                streams[connection].give_up()
                for known in (self._heads, self._bodies):
                    known.pop(connection, None)
                self._connections.discard(connection)
                return True
        return False

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Counts a request that arrives, waits or runs, for which `drain` waits.

        Raises:
            HttpError: 503; too many, or the server stops.
        """
        with self._changed:
            if self._busy >= self.max_requests and self._give_up_slowest(self._bodies):
                self._changed.wait_for(lambda: self._busy < self.max_requests, LATE_SECONDS)
            if self.draining:
                raise HttpError(503, "The server is shutting down; try again later")
            if self._busy >= self.max_requests:
                raise HttpError(503, "Too many requests are waiting; try again later")
            self._busy += 1
        try:
            yield
        finally:
            self._end_request()

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Counts a request that runs on after its answer, DEADLINE_EXCEEDED."""
        with self._changed:
            self._busy += 1
        try:
            yield
        finally:
            self._end_request()

    def _end_request(self) -> None:
        with self._changed:
            self._busy -= 1
            self._changed.notify_all()

    @contextlib.contextmanager
    def holding(self, length: int) -> Iterator[None]:
        """Limits the number of large bodies in memory; waits for a free place."""
        if length <= LARGE_BODY:
            yield
            return
        if not self._large_held.acquire(timeout=LARGE_SECONDS):
            # The body was not read, so the connection cannot be used again.
            raise HttpError(503, "Too many large requests are waiting; try again later")
        try:
            yield
        finally:
            self._large_held.release()

    @contextlib.contextmanager
    def alone(self, length: int, deadline: Deadline) -> Iterator[None]:
        """Lets one large body at a time be parsed and answered; waits until the deadline."""
        if length <= LARGE_BODY:
            yield
            return
        if not self._large_worked_on.acquire(timeout=deadline.remaining()):
            raise deadline.exceeded()
        try:
            yield
        finally:
            self._large_worked_on.release()

    def drain(self, grace_seconds: float) -> bool:
        """Waits for the running requests, then closes the idle connections."""
        with self._changed:
            ended = self._changed.wait_for(lambda: not self._busy, grace_seconds)
            for connection in self._connections:
                # Only the reading side: an answer that is being sent still arrives.
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)
            self._changed.wait_for(lambda: not self._connections, 1.0)
        return ended
