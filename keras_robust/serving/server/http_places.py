"""Places of the HTTP server: for connections, for requests, and for large bodies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator

from keras_robust.serving.server.deadline import Deadline
from keras_robust.serving.server.http_connection import Connection, HttpError

# Idle connections, in addition to those whose requests are running or queued.
IDLE_CONNECTIONS = 120
# A JSON body becomes lists of many times its size. At most LARGE_BODIES large ones are in memory at
# a time, and only one as lists.
LARGE_BODY = 4 * 2**20
LARGE_BODIES = 4
LARGE_SECONDS = 30.0
# A sender that is late by more than this loses its place when another client needs it.
LATE_SECONDS = 1.0
# The time between two looks at what all connections wait for.
CHECK_SECONDS = 0.2


class Places:
    """Limits and counts the connections, requests and large bodies of the server.

    When no place is free, the connection that is waited for the longest loses its own: an idle one,
    or one whose request arrives too slowly. All methods run in the server's event loop.

    Args:
        threads: requests that run at the same time.
        queue: requests that wait for a thread.

    Attributes:
        draining: new requests are rejected, since the server stops.
        abandoned: requests that run on after their answer, DEADLINE_EXCEEDED.
    """

    def __init__(self, threads: int, queue: int) -> None:
        self.max_requests = threads + queue
        self.max_connections = self.max_requests + IDLE_CONNECTIONS
        self.draining = False
        self.abandoned = 0
        self._large_held = asyncio.Semaphore(LARGE_BODIES)
        self._large_worked_on = asyncio.Lock()
        self._connections: set[Connection] = set()
        self._busy: set[Connection] = set()

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self._connections)

    @property
    def busy(self) -> int:
        """The number of requests that arrive, wait or run."""
        return len(self._busy) + self.abandoned

    def connect(self, connection: Connection) -> HttpError | None:
        """Takes a place for a connection; returns why there is none."""
        full = len(self._connections) >= self.max_connections
        if full and not self._give_up_slowest(self._connections, ("idle", "head", "body")):
            return HttpError(503, "Too many connections; try again later")
        self._connections.add(connection)
        return None

    def disconnect(self, connection: Connection) -> None:
        """Gives the place of a connection back."""
        self._connections.discard(connection)

    def _give_up_slowest(self, connections: Iterable[Connection], parts: tuple[str, ...]) -> bool:
        late = [connection for connection in connections if connection.part in parts]
        slowest = max(late, key=Connection.late_by, default=None)
        if slowest is None or slowest.late_by() <= LATE_SECONDS:
            return False
        slowest.give_up()
        self._connections.discard(slowest)
        self._busy.discard(slowest)
        return True

    @contextlib.contextmanager
    def admitted(self, connection: Connection) -> Iterator[None]:
        """Counts a request that arrives, waits or runs, for which `drain` waits.

        Raises:
            HttpError: 503; too many, or the server stops.
        """
        if self.draining:
            raise HttpError(503, "The server is shutting down; try again later")
        full = self.busy >= self.max_requests
        if full and not self._give_up_slowest(self._busy, ("body",)):
            raise HttpError(503, "Too many requests are waiting; try again later")
        self._busy.add(connection)
        try:
            yield
        finally:
            self._busy.discard(connection)

    @staticmethod
    def is_large(length: int) -> bool:
        """Whether a body of so many bytes needs one of the places of large bodies."""
        return length > LARGE_BODY

    async def hold(self, held: contextlib.ExitStack) -> None:
        """Takes one of the places of large bodies until the stack is closed; waits for it.

        Raises:
            HttpError: 503. The body was not read, so the connection cannot be used again.
        """
        try:
            await asyncio.wait_for(self._large_held.acquire(), LARGE_SECONDS)
        except asyncio.TimeoutError:
            raise HttpError(503, "Too many large requests are waiting; try again later") from None
        held.callback(self._large_held.release)

    async def alone(self, held: contextlib.ExitStack, deadline: Deadline) -> None:
        """Lets one large body at a time be parsed and answered; waits until the deadline."""
        try:
            await asyncio.wait_for(self._large_worked_on.acquire(), deadline.remaining())
        except asyncio.TimeoutError:
            raise deadline.exceeded() from None
        held.callback(self._large_worked_on.release)

    @contextlib.asynccontextmanager
    async def checked(self) -> AsyncIterator[None]:
        """Gives up slow clients until the end of the block."""
        task = asyncio.create_task(self._check())
        try:
            yield
        finally:
            task.cancel()

    async def _check(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            for connection in list(self._connections):
                connection.check()

    async def drain(self, grace_seconds: float) -> bool:
        """Waits for the running requests, then closes all connections."""
        ended = await _until(lambda: not self.busy, grace_seconds)
        for connection in list(self._connections):
            connection.force_close()
        await _until(lambda: not self._connections, 1.0)
        return ended


async def _until(condition: Callable[[], bool], seconds: float) -> bool:
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not condition():
        if loop.time() > end:
            return False
        await asyncio.sleep(0.005)
    return True
