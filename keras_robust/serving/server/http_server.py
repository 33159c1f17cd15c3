"""The HTTP front end, on aiohttp: limits, deadlines, and a drain; every error is JSON."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from typing import NamedTuple, cast
from urllib.parse import urlsplit

from aiohttp import web

from keras_robust.serving.metrics.request_record import RequestRecord
from keras_robust.serving.metrics.telemetry import Telemetry
from keras_robust.serving.server.deadline import TIMEOUT_SECONDS, Workers
from keras_robust.serving.server.http_connection import (
    DISCARD_SECONDS,
    SERVER_NAME,
    Connection,
    HttpError,
    error_response,
    json_response,
)
from keras_robust.serving.server.http_places import Places
from keras_robust.serving.server.prediction_service import PredictionService
from keras_robust.serving.server.rest_service import answer
from keras_robust.serving.status import Code, ServingError

_LOG = logging.getLogger(__name__)
BACKLOG = 128
# Turns of the event loop in which a connection is accepted, its request read, and the answer sent.
TURNS = 20
# Those that TensorFlow Serving's HTTP library lets through to it.
METHODS = frozenset({"GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"})
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Content-Type",
}
_OPTIONS = {
    "max_line_size": 2**16,
    "max_field_size": 2**16,
    "max_headers": 100,
    "lingering_time": DISCARD_SECONDS,
    "access_log": None,
    "logger": _LOG,
}


class Page(NamedTuple):
    """An answer to GET beside TensorFlow Serving's REST interface, such as metrics."""

    content_type: str
    content: bytes


class RestServer:
    """The REST front end of the server.

    Args:
        service: answers the requests.
        address: host and port; port 0 picks a free one.
        threads: requests answered at the same time.
        queue: requests that wait for a thread; further ones are answered 503.
        max_message_bytes: largest size of a request body and of an answer.
        timeout_seconds: time for a request that has arrived, with its wait for a thread.
        cors: lets web pages of other origins send requests.
        pages: path -> makes the answer to GET, in a thread.
        telemetry: records the requests; default one of its own.

    Raises:
        OSError: the address cannot be bound.
    """

    def __init__(
        self,
        service: PredictionService,
        address: tuple[str, int],
        threads: int,
        queue: int,
        max_message_bytes: int,
        timeout_seconds: float = TIMEOUT_SECONDS,
        cors: bool = False,
        pages: Mapping[str, Callable[[], Page]] | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.service = service
        self.places = Places(threads, queue)
        self.pages = dict(pages or {})
        self._workers = Workers(threads, "rest", timeout_seconds)
        self._telemetry = telemetry or Telemetry()
        self._telemetry.requests.watch_queue("rest", lambda: self._workers.waiting)
        self._max_message_bytes = max_message_bytes
        self._headers = _CORS if cors else {}
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._socket = socket.create_server(address, family=family, backlog=BACKLOG)
        self.port: int = self._socket.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._grace_seconds = 0.0
        self._ended = True
        self._thread = threading.Thread(target=self._run, name="rest-loop", daemon=True)

    def start(self) -> None:
        """Starts answering requests."""
        self._thread.start()

    def stop(self, grace_seconds: float) -> bool:
        """Stops accepting requests and waits for the running ones; returns whether all ended."""
        if self._thread.is_alive():
            self._grace_seconds = grace_seconds
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
        self._socket.close()
        self._workers.stop()
        return self._ended

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        manager = web.Server(self._handle)
        server = await self._loop.create_server(
            lambda: Connection(manager, self.places, **_OPTIONS), sock=self._socket, backlog=BACKLOG
        )
        async with self.places.checked():
            await self._stop.wait()
            self.places.draining = True
            # Connections that were made but not accepted get an answer too.
            for _ in range(TURNS):
                await asyncio.sleep(0)
            server.close()
            self._ended = await self.places.drain(self._grace_seconds)

    # --- requests -------------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = cast(Connection, request.protocol)
        connection.part = ""
        try:
            with self._admitted(connection):
                response = await self._answer(request, connection)
                return await self._send(request, connection, response)
        except HttpError as error:
            return await self._send(request, connection, error_response(error))

    @contextlib.contextmanager
    def _admitted(self, connection: Connection) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self.places.admitted(connection))
            except HttpError:
                with self._telemetry.request("rest"):  # refused ones are counted too
                    raise
            yield

    async def _send(
        self, request: web.BaseRequest, connection: Connection, response: web.Response
    ) -> web.Response:
        response.headers.update(self._headers)
        if self.places.draining:
            response.force_close()
        connection.expect("answer")
        with contextlib.suppress(ConnectionError):  # aiohttp finds it too, and ends
            await response.prepare(request)
            await response.write_eof()
        connection.expect("idle")
        return response

    async def _answer(self, request: web.BaseRequest, connection: Connection) -> web.Response:
        path = request.raw_path
        if not path.startswith(("/", "*")):  # a proxy's absolute form
            path = urlsplit(path)._replace(scheme="", netloc="").geturl()
        if request.method not in METHODS:
            raise HttpError(501, f"The method {request.method} is not supported")
        if request.method == "GET" and (page := self.pages.get(path)) is not None:
            return await self._page(page)
        if request.method == "OPTIONS" and _has_origin(request):
            return web.Response(headers={"Server": SERVER_NAME})
        try:
            with self._telemetry.request("rest") as record:
                content = await self._result(request, connection, path, record)
            return json_response(200, content)
        except ServingError as error:
            return json_response(error.http_status, json.dumps({"error": error.message}).encode())
        except HttpError:
            raise
        except Exception:  # details stay in the log, and the server keeps running
            _LOG.exception("A request to %r failed.", path)
            return json_response(500, b'{"error": "Internal error; see the server\'s log."}')

    async def _page(self, page: Callable[[], Page]) -> web.Response:
        found = await self._loop.run_in_executor(None, page)
        headers = {"Content-Type": found.content_type, "Server": SERVER_NAME}
        return web.Response(body=found.content, headers=headers)

    async def _result(
        self,
        request: web.BaseRequest,
        connection: Connection,
        path: str,
        record: RequestRecord,
    ) -> bytes:
        """Reads the body and answers the request in one of the worker threads."""
        with contextlib.ExitStack() as held:
            body = await self._body(request, connection, held)
            deadline = self._workers.deadline()
            if self.places.is_large(len(body)):
                await self.places.alone(held, deadline)
            method = request.method

            def run() -> bytes:
                with record.active():
                    return json.dumps(answer(self.service, method, path, body)).encode()

            def abandoned(future: futures.Future[bytes]) -> None:
                """Keeps the places until the request has ended."""
                kept = held.pop_all()
                kept.callback(self._count_abandoned, -1)
                self._count_abandoned(1)
                future.add_done_callback(lambda _: self._call(kept.close))

            content = await self._workers.run_async(run, deadline, abandoned)
        if len(content) > self._max_message_bytes:
            raise ServingError(
                Code.RESOURCE_EXHAUSTED,
                f"The answer has {len(content)} bytes; expected at most "
                f"{self._max_message_bytes}. Send smaller batches.",
            )
        return content

    def _count_abandoned(self, change: int) -> None:
        self.places.abandoned += change

    def _call(self, function: Callable[[], None]) -> None:
        """Calls a function in the loop, from a thread; after the loop's end nobody waits for it."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function)

    async def _body(
        self, request: web.BaseRequest, connection: Connection, held: contextlib.ExitStack
    ) -> bytes:
        declared = request.content_length or 0
        if declared > self._max_message_bytes:
            raise self._too_large(declared)
        encoding = request.headers.get("Content-Encoding", "identity").lower()
        if encoding not in ("identity", "gzip"):
            raise HttpError(415, f"The body's encoding is {encoding[:40]!r}; expected gzip or none")
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        content = request.content
        large = self.places.is_large(declared)
        if large:
            await self.places.hold(held)
        elif content.is_eof() and encoding == "identity":
            return content.read_nowait()
        reading = self._read(request, connection, held, large)
        return await connection.read(reading, content.is_eof())

    async def _read(
        self,
        request: web.BaseRequest,
        connection: Connection,
        held: contextlib.ExitStack,
        large: bool,
    ) -> bytes:
        """Reads the body; of a chunked or compressed one, the size is known at its end only."""
        body = bytearray()
        try:
            while chunk := await request.content.readany():
                body += chunk
                if len(body) > self._max_message_bytes:
                    raise self._too_large(len(body))
                if self.places.is_large(len(body)) and not large:
                    connection.part = ""
                    await self.places.hold(held)
                    connection.expect("body")
                    large = True
        except web.RequestPayloadError as error:
            # aiohttp's text has a line for the status, and one for the reason.
            reason = str(error).strip().rpartition("\n")[2].strip()
            raise HttpError(400, f"The body is malformed: {reason}") from error
        return bytes(body)

    def _too_large(self, size: int) -> HttpError:
        return HttpError(
            413,
            f"The body has {size} bytes or more; expected at most {self._max_message_bytes}. "
            "Send smaller batches.",
        )


def _has_origin(request: web.BaseRequest) -> bool:
    return request.headers.get("Origin", "").startswith(("http://", "https://"))
