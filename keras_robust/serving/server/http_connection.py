"""HTTP connections with deadlines that slow senders cannot extend byte by byte."""

from __future__ import annotations

import asyncio
import json
import typing
from collections.abc import Coroutine
from typing import Any, Protocol

from aiohttp import http_exceptions, web

from keras_robust.serving.status import reason_of_http

# Seconds that each part of an exchange may take: the wait for a request, the request line and all
# headers from their first byte, the body, and the receipt of an answer by its client.
SECONDS = {"idle": 60.0, "head": 10.0, "body": 10.0, "answer": 60.0}
# A body has a second more for each BODY_RATE bytes that have arrived.
BODY_RATE = 2**17
# How long a refused client may go on sending: closing with unread bytes would lose the answer.
DISCARD_SECONDS = 1.0
SERVER_NAME = "keras_robust"
_LATE: dict[str, str] = {
    part: f"The {part} of the request did not arrive in time" for part in SECONDS
}


class HttpError(Exception):
    """A request rejected on the level of HTTP, before TensorFlow Serving's codes apply.

    Args:
        status: HTTP status of the answer.
        message: the error message.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Registry(Protocol):
    """Knows the open connections."""

    def connect(self, connection: Connection) -> HttpError | None:
        """Takes a place for a connection; returns why there is none."""

    def disconnect(self, connection: Connection) -> None:
        """Gives the place of a connection back."""


class Connection(web.RequestHandler):
    """A connection of aiohttp's server that knows what it waits for, and since when.

    Args:
        manager: calls the handler of requests.
        registry: where the connection takes a place.
        options: of aiohttp.

    Attributes:
        part: what is waited for, a key of `SECONDS`; empty while the server itself works.
    """

    def __init__(self, manager: web.Server, registry: Registry, **options: Any) -> None:
        super().__init__(manager, loop=asyncio.get_running_loop(), **options)
        self._registry = registry
        self._reader: asyncio.Task[bytes] | None = None
        self._failure: HttpError | None = None
        self._ended = self._refused = False
        self.expect("idle")

    def expect(self, part: str) -> None:
        """Starts the time of a part of the exchange."""
        self.part, self._since, self._received = part, self._loop.time(), 0

    def late_by(self) -> float:
        """For how many seconds the client is waited for; 0 or less while a body is fast."""
        if not self.part:
            return 0.0
        earned = self._received / BODY_RATE if self.part == "body" else 0.0
        return self._loop.time() - self._since - earned

    def check(self) -> None:
        """Gives a client up that is too late, or that has closed its side and has no request."""
        if self.part and self.late_by() > SECONDS[self.part]:
            self.give_up()
        elif self._ended and self.part in ("idle", "head"):
            self.force_close()

    def give_up(self) -> None:
        """Stops to wait for the client, and tells it so if it has begun a request."""
        error = HttpError(408, _LATE[self.part])
        if self.part == "head":
            self.refuse(error)
        elif self.part == "body":
            self._fail(error)
        elif self.part == "answer" and self.transport is not None:
            self.transport.abort()  # a close would wait until the client has read the answer
        else:
            self.force_close()

    def refuse(self, error: HttpError) -> None:
        """Answers although there is no complete request, and closes."""
        transport = typing.cast(asyncio.Transport, self.transport)
        transport.write(raw_answer(error))
        transport.write_eof()
        self.part, self._refused = "", True
        self._loop.call_later(DISCARD_SECONDS, self.force_close)

    async def read(self, body: Coroutine[Any, Any, bytes], complete: bool) -> bytes:
        """Runs the reading of a body until it ends or the client is given up.

        Args:
            body: reads it.
            complete: all of it has arrived.

        Raises:
            HttpError: 408, too slow; 400, the client has closed its side.
        """
        self._reader = self._loop.create_task(body)
        self.expect("body")
        if self._ended and not complete:
            self._fail(_ended_early())
        try:
            return await self._reader
        except asyncio.CancelledError:
            if self._failure is None:
                raise
            raise self._failure from None
        finally:
            self.part, self._reader = "", None

    def _fail(self, error: HttpError) -> None:
        self._failure = error
        if self._reader is not None:
            self._reader.cancel()

    # --- what asyncio and aiohttp call ----------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes a place, or answers that there is none."""
        super().connection_made(transport)
        if (error := self._registry.connect(self)) is not None:
            self.refuse(error)

    def connection_lost(self, error: BaseException | None) -> None:
        """Gives the place back."""
        self._registry.disconnect(self)
        super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        """Starts the time of a head with its first byte."""
        if self._refused:
            return
        if self.part == "idle":
            self.expect("head")
        self._received += len(data)
        super().data_received(data)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keeps the sending side open for the answer to a request."""
        if self.part == "idle" or self._refused:
            return False
        self._ended = True
        if self.part == "body":
            self._fail(_ended_early())
        return True

    def log_exception(self, *args: Any, **options: Any) -> None:
        """Logs faults; a body that is malformed is none, also where nobody reads it."""
        if not isinstance(options.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **options)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answers errors of aiohttp itself as JSON: heads that are not HTTP."""
        self.part = "answer"
        return error_response(HttpError(_status_of(exc, status), _first_line(message)))


def error_response(error: HttpError) -> web.Response:
    """The answer to a request after which the connection cannot be used."""
    response = json_response(error.status, _content(error))
    response.force_close()
    return response


def json_response(status: int, content: bytes) -> web.Response:
    """An answer with JSON."""
    headers = {"Content-Type": "application/json", "Server": SERVER_NAME}
    return web.Response(status=status, reason=reason_of_http(status), body=content, headers=headers)


def raw_answer(error: HttpError) -> bytes:
    """The same as bytes, for a connection that has no request."""
    content = _content(error)
    head = (
        f"HTTP/1.1 {error.status} {reason_of_http(error.status)}\r\n"
        "Content-Type: application/json\r\n"
        f"Server: {SERVER_NAME}\r\n"
        "Connection: close\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def _content(error: HttpError) -> bytes:
    return json.dumps({"error": str(error)}).encode()


def _ended_early() -> HttpError:
    return HttpError(400, "The body ended before its length was reached")


def _status_of(error: BaseException | None, status: int) -> int:
    if isinstance(error, http_exceptions.BadHttpMethod):
        return 501  # as libevent, on which TensorFlow Serving stands
    if isinstance(error, http_exceptions.LineTooLong):
        return 431
    if "Invalid HTTP version" in str(error):
        return 505
    return status


def _first_line(message: str | None) -> str:
    """The reason of aiohttp's message, without the request, which it quotes."""
    lines = [line.strip(" :") for line in (message or "").splitlines() if line.strip(" :")]
    return lines[0] if lines else "The request is not HTTP"
