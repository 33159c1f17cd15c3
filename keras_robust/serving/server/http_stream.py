"""Reads an HTTP connection with deadlines that slow senders cannot extend byte by byte."""

from __future__ import annotations

import contextlib
import io
import selectors
import socket
import time
from typing import Any

from keras_robust.serving.server.http_body import HttpError

# A connection may wait this long for its next request.
IDLE_SECONDS = 60.0
# The request line and all headers, from the first byte.
HEAD_SECONDS = 10.0
# A body arrives after BODY_SECONDS, plus a second for each BODY_RATE bytes that have arrived.
BODY_SECONDS = 10.0
BODY_RATE = 2**17
_CHUNK = 2**16


class RequestStream(io.BufferedReader):
    """The receiving side of a connection.

    Args:
        connection: the socket; its timeout changes with every read.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._source = _Source(connection)
        super().__init__(self._source)

    def wait_for_request(self) -> bool:
        """Waits for the first byte of a request, then starts the time of its head.

        Returns:
            False if none comes.
        """
        self._source.expect("head", IDLE_SECONDS)
        try:
            found = bool(self.peek(1))
        except (HttpError, OSError):
            return False
        self._source.expect("head", HEAD_SECONDS)
        return found

    def read_body(self, length: int) -> bytes:
        """Reads the body of a request.

        Raises:
            HttpError: the body ends early, or arrives too slowly.
        """
        body = bytearray()
        self._source.expect("body", BODY_SECONDS)
        while len(body) < length:
            chunk = self.read1(min(_CHUNK, length - len(body)))
            if not chunk:
                raise HttpError(400, f"The body ended after {len(body)} of {length} bytes")
            body += chunk
            self._source.extend(len(chunk) / BODY_RATE)
        return bytes(body)

    def begin(self) -> None:
        """Starts to wait: until now, the server was not ready to read."""
        self._source.begin()

    def late_by(self) -> float:
        """For how many seconds the connection is waited for; a fast body is not late."""
        return self._source.late_by()

    def has_input(self) -> bool:
        """Whether a read would not wait: for bytes, or for an end that it will find."""
        with selectors.DefaultSelector() as selector:
            try:
                selector.register(self.connection, selectors.EVENT_READ)
            except (ValueError, OSError):  # closed meanwhile
                return True
            return bool(selector.select(0))

    def give_up(self) -> None:
        """Ends the read that waits, in another thread: its sender is too slow."""
        self._source.give_up()


class _Source(io.RawIOBase):
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._part, self._due, self._deadline = "head", 0.0, 0.0
        self._given_up = False

    def readable(self) -> bool:
        return True

    def expect(self, part: str, seconds: float) -> None:
        """Starts the time of a part of the request."""
        self._part, self._due = part, time.monotonic()
        self._deadline = self._due + seconds

    def begin(self) -> None:
        self._due = time.monotonic()

    def extend(self, seconds: float) -> None:
        """Grants more time, for bytes that have arrived."""
        self._due += seconds
        self._deadline += seconds

    def late_by(self) -> float:
        return time.monotonic() - self._due

    def give_up(self) -> None:
        self._given_up = True
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RD)  # wakes the read

    def readinto(self, buffer: Any) -> int:
        left = self._deadline - time.monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            self._connection.settimeout(left)
            count = self._connection.recv_into(buffer)
        except TimeoutError as error:
            raise self._too_slow() from error
        if self._given_up:
            raise self._too_slow()
        return count

    def _too_slow(self) -> HttpError:
        return HttpError(408, f"The {self._part} of the request did not arrive in time")
