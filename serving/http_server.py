"""The HTTP front of the server: bounded connections, bodies and waiting; every error is JSON."""

from __future__ import annotations

import contextlib
import http.server
import json
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

from serving.api import Api
from serving.rest_service import answer
from serving.status import Code, ServingError, reason_of_http

_LOG = logging.getLogger(__name__)
MAX_CONNECTIONS = 128
# A body of JSON becomes lists of many times its size: of large ones, only so many are in memory at
# the same time, and only one as lists.
LARGE_BODY = 4 * 2**20
LARGE_BODIES = 4
LARGE_SECONDS = 30.0
IDLE_SECONDS = 60.0
BODY_SECONDS = 120.0
_CHUNK = 2**16


class RestServer:
    """The REST front of the server.

    Args:
        api: answers the requests.
        host: to listen on.
        port: 0 takes a free one.
        threads: requests answered at the same time.
        max_message_bytes: of a request body, and of an answer.

    Raises:
        OSError: when the address cannot be taken.
    """

    def __init__(
        self, api: Api, host: str, port: int, threads: int, max_message_bytes: int
    ) -> None:
        self._server = _Server((host, port), api, threads, max_message_bytes)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True
        )

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()

    def stop(self, grace_seconds: float) -> None:
        """Refuses new connections, and waits for the requests under way."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()
        self._server.drain(grace_seconds)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self, address: tuple[str, int], api: Api, threads: int, max_message_bytes: int
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.api = api
        self.max_message_bytes = max_message_bytes
        self.draining = False
        self.work = threading.BoundedSemaphore(threads)
        self._large_held = threading.BoundedSemaphore(LARGE_BODIES)
        self._large_worked_on = threading.Lock()
        self._changed = threading.Condition()
        self._connections: set[socket.socket] = set()
        self._busy = 0
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Binds without asking the name service who this host is, which can take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._changed:
            full = len(self._connections) >= MAX_CONNECTIONS
            if not full:
                self._connections.add(request)
        if full:
            request.settimeout(1.0)
            with contextlib.suppress(OSError):
                request.sendall(_FULL)
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._changed:
                self._connections.discard(request)
                self._changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        _LOG.debug("A connection broke.", exc_info=True)

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """While a request is answered, a drain waits for it."""
        with self._changed:
            self._busy += 1
        try:
            yield
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def holding(self, length: int) -> Iterator[None]:
        """While a body is in memory; waits for others when it is a large one."""
        if length <= LARGE_BODY:
            yield
            return
        if not self._large_held.acquire(timeout=LARGE_SECONDS):
            raise ServingError(Code.UNAVAILABLE, "Too many large requests are waiting; try later")
        try:
            yield
        finally:
            self._large_held.release()

    @contextlib.contextmanager
    def working(self, length: int) -> Iterator[None]:
        """While a body is parsed and answered."""
        alone = self._large_worked_on if length > LARGE_BODY else contextlib.nullcontext()
        with alone, self.work:
            yield

    def drain(self, grace_seconds: float) -> None:
        """Waits for the requests under way, then ends the connections that idle."""
        self.draining = True
        with self._changed:
            self._changed.wait_for(lambda: not self._busy, grace_seconds)
            for connection in self._connections:
                # Only reading ends: a request that slipped in meanwhile is still answered.
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)
            self._changed.wait_for(lambda: not self._connections, 1.0)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "keras_robust"
    sys_version = ""
    timeout = IDLE_SECONDS
    disable_nagle_algorithm = True
    server: _Server

    def _answer(self) -> None:
        with self.server.busy():
            try:
                path = unquote(urlsplit(self.path).path)
                self._send(200, self._result(path))
            except _HttpError as error:
                self.close_connection = True
                self._send(error.status, {"error": str(error)})
                self._discard_rest()
            except ServingError as error:
                self._send(error.http_status, {"error": error.sentence})
            except OSError:
                raise  # the connection broke: nobody is there to be answered
            except Exception:  # a client is never told what broke inside, and the server goes on
                _LOG.exception("A request to %r failed.", self.path)
                self._send(500, {"error": "The server failed; its log tells why."})

    do_GET = do_POST = do_HEAD = do_PUT = do_DELETE = _answer

    def _result(self, path: str) -> bytes:
        length = self._length()
        if length > self.server.max_message_bytes:
            raise _too_large(length, self.server.max_message_bytes)
        if self.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise _HttpError(415, "A compressed body was received; expected plain JSON")
        with self.server.holding(length):
            body = self._body(length)
            with self.server.working(length):
                content = json.dumps(answer(self.server.api, self.command, path, body)).encode()
        if len(content) > self.server.max_message_bytes:
            raise ServingError(
                Code.RESOURCE_EXHAUSTED,
                f"The answer has {len(content)} bytes; expected at most "
                f"{self.server.max_message_bytes}. Send smaller batches.",
            )
        return content

    def _body(self, length: int) -> bytes:
        body, deadline = bytearray(), time.monotonic() + BODY_SECONDS
        while len(body) < length:
            try:
                chunk = self.rfile.read1(min(_CHUNK, length - len(body)))
            except TimeoutError as error:
                raise _HttpError(408, "The body did not arrive in time") from error
            if not chunk:
                raise _HttpError(400, f"The body ended after {len(body)} of {length} bytes")
            if time.monotonic() > deadline:
                raise _HttpError(408, "The body did not arrive in time")
            body += chunk
        return bytes(body)

    def _length(self) -> int:
        if "Transfer-Encoding" in self.headers:
            raise _HttpError(411, "A chunked body was received; expected a Content-Length")
        lengths = set(self.headers.get_all("Content-Length", []))
        if not lengths:
            return 0
        text = lengths.pop().strip()
        if lengths or not (text.isascii() and text.isdigit()) or len(text) > 18:
            raise _HttpError(400, f"Content-Length is {text[:40]!r}; expected one number of bytes")
        return int(text)

    def handle_expect_100(self) -> bool:
        """Refuses a body that is too large before it is sent."""
        with contextlib.suppress(_HttpError):
            length = self._length()
            if length > self.server.max_message_bytes:
                self.close_connection = True
                error = _too_large(length, self.server.max_message_bytes)
                self._send(error.status, {"error": str(error)})
                return False
        return super().handle_expect_100()

    def _send(self, status: int, content: bytes | dict[str, str]) -> None:
        if isinstance(content, dict):
            content = json.dumps(content).encode()
        if self.server.draining:
            self.close_connection = True
        self.send_response(status, reason_of_http(status))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _discard_rest(self) -> None:
        """Reads what the client still sends: closing on unread bytes would lose the answer."""
        deadline = time.monotonic() + 2.0
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(1.0)
            while time.monotonic() < deadline and self.connection.recv(_CHUNK):
                pass

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answers what `http.server` itself refuses, as JSON too."""
        self.close_connection = True
        if not getattr(self, "command", None):
            self.command, self.request_version = "GET", "HTTP/1.1"
        with contextlib.suppress(OSError):
            self._send(int(code), {"error": message or reason_of_http(int(code))})

    def log_message(self, format: str, *args: Any) -> None:
        """Keeps requests out of standard error."""
        _LOG.debug(format, *args)


class _HttpError(Exception):
    """A request that HTTP itself refuses, before TensorFlow Serving's codes come into play."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def _too_large(length: int, limit: int) -> _HttpError:
    return _HttpError(
        413, f"The body has {length} bytes; expected at most {limit}. Send smaller batches."
    )


_BUSY_BODY = json.dumps({"error": "The server has too many connections; try later"}).encode()
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
    + f"Content-Length: {len(_BUSY_BODY)}\r\n\r\n".encode()
    + _BUSY_BODY
)
