"""A proxy in front of a model server's REST interface, which reads the answers that pass."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from concurrent import futures
from urllib.parse import unquote, urlsplit

import aiohttp
import yarl
from aiohttp import web

from keras_robust.serving.metrics.request_metrics import Version
from keras_robust.serving.metrics.request_record import RequestRecord
from keras_robust.serving.metrics.telemetry import Telemetry
from keras_robust.serving.sidecar.answers import (
    Target,
    outputs_of,
    predict_target,
    signature_of,
)
from keras_robust.serving.sidecar.upstream import Model, Upstream
from keras_robust.serving.status import Code, ServingError, code_of_http

_LOG = logging.getLogger(__name__)
# Those of one connection, and those that the two HTTP libraries set.
_NOT_FORWARDED = frozenset(
    (
        "accept-encoding", "connection", "content-encoding", "content-length", "expect", "host",
        "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer",
        "transfer-encoding", "upgrade",
    )
)  # fmt: skip
CONNECTIONS = 256


class RestProxy:
    """Passes requests to a model server, and its answers back, unchanged.

    Args:
        server: `host:port` of the model server's REST interface.
        address: host and port to listen on; port 0 picks a free one.
        telemetry: records the requests.
        max_message_bytes: largest request body.
        timeout_seconds: time for a request.

    Raises:
        OSError: the address cannot be bound.
    """

    def __init__(
        self,
        server: str,
        address: tuple[str, int],
        telemetry: Telemetry,
        max_message_bytes: int = 2**26,
        timeout_seconds: float = 60.0,
    ) -> None:
        self._server, self._address, self._telemetry = server, address, telemetry
        self._max_bytes = max_message_bytes
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=5.0)
        self._upstream: Upstream | None = None
        self._session: aiohttp.ClientSession | None = None
        self._loop = asyncio.new_event_loop()
        self._ready: futures.Future[int] = futures.Future()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="rest-proxy", daemon=True)
        self.port = 0
        telemetry.requests.watch_versions(self._versions)

    def start(self) -> None:
        """Starts passing requests."""
        self._thread.start()
        self.port = self._ready.result()

    def stop(self) -> None:
        """Answers the running requests, and ends."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10.0)

    def _versions(self) -> list[Version]:
        return [] if self._upstream is None else self._upstream.versions()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        connector = aiohttp.TCPConnector(limit=CONNECTIONS)
        async with aiohttp.ClientSession(connector=connector, timeout=self._timeout) as session:
            self._session, self._upstream = session, Upstream(self._server, session)
            runner = web.ServerRunner(
                web.Server(self._handle, access_log=None), shutdown_timeout=5.0
            )
            await runner.setup()
            try:
                site = web.TCPSite(runner, *self._address)
                await site.start()
                self._ready.set_result(runner.addresses[0][1])
                await self._stop.wait()
            finally:
                await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.raw_path
        if not path.startswith("/"):  # a proxy's absolute form
            path = urlsplit(path)._replace(scheme="", netloc="").geturl() or "/"
        try:
            with self._telemetry.request("rest") as record:
                body = await self._body(request)
                return await self._forward(request, path, body, record)
        except ServingError as error:
            content = json.dumps({"error": error.message}).encode()
            return _answer(error.http_status, content, {"Content-Type": "application/json"})

    async def _body(self, request: web.BaseRequest) -> bytes:
        body = bytearray()
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > self._max_bytes:
                raise ServingError(
                    Code.RESOURCE_EXHAUSTED,
                    f"The body has {len(body)} bytes or more; expected at most {self._max_bytes}.",
                )
        return bytes(body)

    async def _forward(
        self, request: web.BaseRequest, path: str, body: bytes, record: RequestRecord
    ) -> web.Response:
        session, upstream = self._session, self._upstream
        if session is None or upstream is None:
            raise ServingError(Code.UNAVAILABLE, "The proxy is starting.")
        url = yarl.URL(upstream.base + path, encoded=True)
        headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() not in _NOT_FORWARDED
        }
        try:
            async with session.request(
                request.method, url, data=body or None, headers=headers, allow_redirects=False
            ) as response:
                content = await response.read()
        except asyncio.TimeoutError as error:
            raise ServingError(
                Code.DEADLINE_EXCEEDED, f"{self._server} did not answer in time."
            ) from error
        except aiohttp.ClientError as error:
            raise ServingError(
                Code.UNAVAILABLE, f"{self._server} cannot be reached: {type(error).__name__}."
            ) from error
        if response.status >= 400:
            record.status = code_of_http(response.status).name
        if request.method == "POST" and (target := predict_target(path)) is not None:
            record.method = "Predict"
            if response.status == 200:
                model = await upstream.model(target.label)
                await self._read(model, target, body, content, record)
        kept = {n: v for n, v in response.headers.items() if n.lower() not in _NOT_FORWARDED}
        return _answer(response.status, content, kept)

    async def _read(
        self, model: Model, target: Target, body: bytes, content: bytes, record: RequestRecord
    ) -> None:
        """Fills in the record; an answer that cannot be read passes all the same."""
        record.model, signature = unquote(target.model), signature_of(body)
        record.signature = signature if signature in model.signatures else ""
        try:
            outputs = await self._loop.run_in_executor(None, outputs_of, content)
        except ValueError as error:
            _LOG.warning("An answer of %s cannot be read: %s", record.model, error)
            return
        version = model.newest if target.version is None else target.version
        if version is not None:
            record.answered(version, {}, outputs)


def _answer(status: int, content: bytes, headers: dict[str, str]) -> web.Response:
    return web.Response(status=status, body=content, headers=headers)
