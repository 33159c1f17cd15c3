"""The HTTP front end: limits on connections, body sizes and waiting; every error is JSON."""

from __future__ import annotations

import contextlib
import http.server
import json
import logging
import socket
import socketserver
import threading
import time
from concurrent import futures
from typing import Any
from urllib.parse import unquote, urlsplit

from keras_robust.serving.server.deadline import TIMEOUT_SECONDS, Workers
from keras_robust.serving.server.http_body import HttpError, content_length, too_large
from keras_robust.serving.server.http_places import Places
from keras_robust.serving.server.http_stream import RequestStream
from keras_robust.serving.server.prediction_service import PredictionService
from keras_robust.serving.server.rest_service import answer
from keras_robust.serving.status import Code, ServingError, reason_of_http

_LOG = logging.getLogger(__name__)
# For how long a client may take to receive an answer.
SEND_SECONDS = 60.0
_CHUNK = 2**16


class RestServer:
    """The REST front end of the server.

    Args:
        service: answers the requests.
        address: host and port; port 0 picks a free one.
        threads: requests answered at the same time.
        queue: requests that wait for a thread; further ones are answered 503.
        max_message_bytes: largest size of a request body and of an answer.
        timeout_seconds: time for a request that has arrived, with its wait for a thread.

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
    ) -> None:
        self.places = Places(threads, queue)
        workers = Workers(threads, "rest", timeout_seconds)
        self._server = _Server(address, service, self.places, workers, max_message_bytes)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True
        )

    def start(self) -> None:
        """Starts answering requests."""
        self._thread.start()

    def stop(self, grace_seconds: float) -> bool:
        """Stops accepting requests and waits for the running ones; returns whether all ended."""
        self.places.draining = True
        if self._thread.is_alive():
            self._server.shutdown()
            self._server.answer_backlog()
        self._server.server_close()
        ended = self.places.drain(grace_seconds)
        self._server.workers.stop()
        return ended


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        service: PredictionService,
        places: Places,
        workers: Workers,
        max_message_bytes: int,
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.service = service
        self.places = places
        self.workers = workers
        self.max_message_bytes = max_message_bytes
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Binds without a DNS look-up of this host's name, which can take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        if self.places.connect(request):
            super().process_request(request, client_address)
            return
        request.settimeout(1.0)
        with contextlib.suppress(OSError):
            request.sendall(_FULL)
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.places.disconnect(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        _LOG.debug("A connection failed.", exc_info=True)

    def answer_backlog(self) -> None:
        """Accepts the pending connections, so that they get an answer."""
        self.socket.setblocking(False)
        with contextlib.suppress(OSError):  # the backlog is empty
            for _ in range(self.request_queue_size):
                self.process_request(*self.get_request())


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "keras_robust"
    sys_version = ""
    disable_nagle_algorithm = True
    server: _Server
    rfile: RequestStream

    def setup(self) -> None:
        """Prepares to read with deadlines."""
        super().setup()
        self.rfile.close()
        self.rfile = RequestStream(self.connection)

    def handle_one_request(self) -> None:
        """Reads and answers one request, or closes a connection without any."""
        self.command = self.requestline = ""
        try:
            with contextlib.ExitStack() as self._reading:
                self._reading.enter_context(self.server.places.reading_head(self.rfile))
                if self.rfile.wait_for_request():
                    super().handle_one_request()
                else:
                    self.close_connection = True
        except HttpError as error:
            self.send_error(error.status, str(error))

    def parse_request(self) -> bool:
        """Reads the head of a request; answers malformed ones."""
        with self._reading:
            return super().parse_request()

    def _answer(self) -> None:
        try:
            with self.server.places.admitted():
                self._answer_admitted()
        except HttpError as error:
            self.close_connection = True
            self._send(error.status, {"error": str(error)})
            self._discard_rest()

    def _answer_admitted(self) -> None:
        try:
            path = unquote(urlsplit(self.path).path)
            self._send(200, self._result(path))
        except ServingError as error:
            self._send(error.http_status, {"error": error.message})
        except (HttpError, OSError):
            raise  # rejected by HTTP, or the connection is lost and cannot be answered
        except Exception:  # details stay in the log, and the server keeps running
            _LOG.exception("A request to %r failed.", self.path)
            self._send(500, {"error": "Internal error; see the server's log."})

    do_GET = do_POST = do_HEAD = do_PUT = do_DELETE = _answer

    def _result(self, path: str) -> bytes:
        length = content_length(self.headers)
        if length > self.server.max_message_bytes:
            raise too_large(length, self.server.max_message_bytes)
        if self.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise HttpError(415, "A compressed body was received; expected plain JSON")
        content = self._run(path, length)
        if len(content) > self.server.max_message_bytes:
            raise ServingError(
                Code.RESOURCE_EXHAUSTED,
                f"The answer has {len(content)} bytes; expected at most "
                f"{self.server.max_message_bytes}. Send smaller batches.",
            )
        return content

    def _run(self, path: str, length: int) -> bytes:
        """Reads the body and answers the request in one of the worker threads."""
        server, places = self.server, self.server.places
        with contextlib.ExitStack() as held:
            held.enter_context(places.holding(length))
            with places.reading_body(self.rfile):
                body = self.rfile.read_body(length)
            deadline = server.workers.deadline()
            held.enter_context(places.alone(length, deadline))
            command = self.command

            def run() -> bytes:
                return json.dumps(answer(server.service, command, path, body)).encode()

            def abandoned(future: futures.Future[bytes]) -> None:
                """Keeps the places until the request has ended."""
                kept = held.pop_all()
                kept.enter_context(places.counted())
                future.add_done_callback(lambda _: kept.close())

            return server.workers.run(run, deadline, abandoned)

    def handle_expect_100(self) -> bool:
        """Rejects a body that is too large before the client sends it."""
        with contextlib.suppress(HttpError):
            length = content_length(self.headers)
            if length > self.server.max_message_bytes:
                self.close_connection = True
                error = too_large(length, self.server.max_message_bytes)
                self._send(error.status, {"error": str(error)})
                return False
        return super().handle_expect_100()

    def _send(self, status: int, content: bytes | dict[str, str]) -> None:
        if isinstance(content, dict):
            content = json.dumps(content).encode()
        if self.server.places.draining:
            self.close_connection = True
        self.connection.settimeout(SEND_SECONDS)
        self.send_response(status, reason_of_http(status))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        elif self.request_version == "HTTP/1.0":  # else the client waits for the end
            self.send_header("Connection", "keep-alive")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _discard_rest(self) -> None:
        """Reads what the client still sends: closing with unread bytes would lose the answer."""
        deadline = time.monotonic() + 2.0
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(1.0)
            while time.monotonic() < deadline and self.connection.recv(_CHUNK):
                pass

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answers errors of `http.server` itself as JSON."""
        self.close_connection = True
        if not getattr(self, "command", None):
            self.command, self.request_version = "GET", "HTTP/1.1"
        with contextlib.suppress(OSError):
            self._send(int(code), {"error": message or reason_of_http(int(code))})

    def log_message(self, format: str, *args: Any) -> None:
        """Keeps requests out of standard error."""
        _LOG.debug(format, *args)


_BUSY_BODY = json.dumps({"error": "Too many connections; try again later"}).encode()
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
    + f"Content-Length: {len(_BUSY_BODY)}\r\n\r\n".encode()
    + _BUSY_BODY
)
