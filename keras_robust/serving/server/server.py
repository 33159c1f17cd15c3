"""The embedded model server: one model behind TensorFlow Serving's gRPC and REST interfaces."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from keras_robust.core.validation import check_integer, check_number
from keras_robust.serving.addresses import host_port
from keras_robust.serving.metrics.detection_metrics import MAX_VERSIONS
from keras_robust.serving.metrics.request_metrics import Version
from keras_robust.serving.metrics.telemetry import (
    CONTENT_TYPE,
    METRICS_PATHS,
    Monitoring,
    Telemetry,
)
from keras_robust.serving.server.batching import Batching
from keras_robust.serving.server.deadline import TIMEOUT_SECONDS
from keras_robust.serving.server.grpc_service import SERVICES, GrpcServer
from keras_robust.serving.server.http_server import Page, RestServer
from keras_robust.serving.server.prediction_service import PredictionService
from keras_robust.serving.server.servable import MAX_PIXELS, Servable
from keras_robust.serving.server.standard_services import StandardServices
from keras_robust.serving.server.version_manager import VersionManager
from keras_robust.serving.status import ServingError

LONGEST_SECONDS = 1e6  # TensorFlow counts milliseconds, and Python's waits are bounded too


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of the server.

    Args:
        max_message_mb: largest request or answer in MiB, over gRPC and over REST.
        threads: requests that each of the two interfaces answers at the same time.
        queue: requests that wait for a thread of each interface; further ones are rejected.
        poll_wait_seconds: time between two scans for a new version.
        drain_seconds: how long a stop waits for running requests.
        rest_timeout_seconds: time for a REST request that has arrived, with its wait for a thread.
        grpc_timeout_seconds: time for a gRPC request from when a thread takes it; the deadline of
            its client may be earlier.
        max_megapixels: most million pixels of the PNG and JPEG files of a request, together.

    Raises:
        ValueError: a limit that is not positive.
    """

    max_message_mb: float = 64.0
    threads: int = 8
    queue: int = 128
    poll_wait_seconds: float = 1.0
    drain_seconds: float = 10.0
    rest_timeout_seconds: float = TIMEOUT_SECONDS
    grpc_timeout_seconds: float = TIMEOUT_SECONDS
    max_megapixels: float = MAX_PIXELS / 1e6

    def __post_init__(self) -> None:
        # A message of TensorFlow Serving cannot reach 2 GiB.
        check_number("max_message_mb", self.max_message_mb, above=0, below=2048)
        check_integer("threads", self.threads, 1)
        check_integer("queue", self.queue, 1)
        check_number("poll_wait_seconds", self.poll_wait_seconds, above=0)
        for name in ("drain_seconds", "rest_timeout_seconds", "grpc_timeout_seconds"):
            check_number(name, getattr(self, name), above=0, below=LONGEST_SECONDS)
        check_number("max_megapixels", self.max_megapixels, above=0)

    @property
    def max_message_bytes(self) -> int:
        """`max_message_mb` in bytes."""
        return int(self.max_message_mb * 2**20)

    @property
    def per_interface(self) -> tuple[int, int, int]:
        """The limits of each interface: threads, queue and message size in bytes."""
        return self.threads, self.queue, self.max_message_bytes


class Server:
    """Serves the newest version of an exported model over gRPC and REST.

    Bind it to loopback, or put it behind a proxy with TLS and authentication: like TensorFlow
    Serving, it has neither.

    Args:
        model_name: the name that clients use.
        model_base_path: parent of the version directories, as `keras-robust export` writes them.
        port: gRPC port; 0 picks a free one.
        rest_api_port: REST port; 0 picks a free one.
        host: address to listen on.
        limits: sizes, threads and times.
        batching: joins requests to batches; None runs each by itself.
        cors: lets web pages of any origin send REST requests.
        monitoring: the metrics, the alarm of the detection scores, and the log of requests.

    Raises:
        ValueError: a name that is not valid in a path, or a port out of range.

    Example:
        >>> server = Server("digits", "exported/digits", port=0, rest_api_port=0)
        >>> server.version is None
        True
    """

    def __init__(
        self,
        model_name: str,
        model_base_path: str | os.PathLike[str],
        *,
        port: int = 8500,
        rest_api_port: int = 8501,
        host: str = "127.0.0.1",
        limits: Limits | None = None,
        batching: Batching | None = None,
        cors: bool = False,
        monitoring: Monitoring | None = None,
    ) -> None:
        if not model_name or set(model_name) & set("/:?# "):
            raise ValueError(
                f"model_name is {model_name!r}; expected a name without '/', ':', '?', '#' and "
                "spaces, since it is part of REST paths."
            )
        for number in (port, rest_api_port):
            if not 0 <= number < 2**16:
                raise ValueError(f"The port is {number}; expected an integer from 0 to 65535.")
        self.model_name = model_name
        self.host = host
        self.limits = limits or Limits()
        self.batching = batching
        self.cors = cors
        self._ports = (port, rest_api_port)
        self._versions: VersionManager[Servable] = VersionManager(
            model_name, Path(model_base_path), self._load, self.limits.poll_wait_seconds
        )
        self._base, self._monitoring = model_base_path, monitoring or Monitoring()
        self._telemetry: Telemetry | None = None
        self._grpc: GrpcServer | None = None
        self._rest: RestServer | None = None

    def _load(self, path: Path, version: int) -> Servable:
        max_pixels = int(self.limits.max_megapixels * 1e6)
        max_bytes = self.limits.max_message_bytes
        servable = Servable(path, version, max_bytes, max_pixels, self.batching)
        if self._telemetry is not None:
            servable.on_batch = functools.partial(self._telemetry.requests.batch, self.model_name)
        return servable

    def _waiting(self) -> float:
        """Number of requests that wait for a batch."""
        with contextlib.suppress(ServingError), self._versions.lease() as servable:
            return servable.waiting
        return 0

    def start(self) -> None:
        """Binds the ports, loads the newest version, then starts answering.

        Raises:
            FileNotFoundError: the base path is not a directory.
            ServingError: the newest version cannot be loaded.
            OSError: a port cannot be bound.
        """
        service = PredictionService(self._versions)
        self._telemetry = Telemetry(self._monitoring, self._base)
        self._telemetry.requests.watch_versions(self._states)
        if self.batching is not None:
            self._telemetry.requests.watch_queue("batch", self._waiting)
        standard = StandardServices(SERVICES)
        port, rest_port = self._ports
        try:
            with _bind_errors(self.host, port):
                self._grpc = GrpcServer(
                    service,
                    host_port(self.host, port),
                    *self.limits.per_interface,
                    self.limits.grpc_timeout_seconds,
                    self._telemetry,
                    standard,
                )
            with _bind_errors(self.host, rest_port):
                self._rest = RestServer(
                    service,
                    (self.host, rest_port),
                    *self.limits.per_interface,
                    self.limits.rest_timeout_seconds,
                    self.cors,
                    pages=self._pages(),
                    telemetry=self._telemetry,
                )
            self._versions.start()
            self._versions.subscribe(lambda version: standard.set_serving(version is not None))
        except BaseException:
            self.stop()
            raise
        self._grpc.start()
        self._rest.start()

    def stop(self) -> bool:
        """Stops accepting requests, waits for the running ones, and frees everything.

        Returns:
            Whether everything has ended. A request that takes longer than `drain_seconds`, or a
            version that is being loaded, keeps its thread until the process ends.
        """
        grace = self.limits.drain_seconds
        waits = [self._grpc.stop(grace)] if self._grpc else []
        ended = [self._rest.stop(grace)] if self._rest else []
        ended += [wait() for wait in waits]
        ended.append(self._versions.stop())
        if self._telemetry is not None:
            self._telemetry.close()
        self._grpc = self._rest = None
        return all(ended)

    @property
    def metrics(self) -> str:
        """The metrics in Prometheus' text format, as at `/metrics`; empty before the start."""
        return "" if self._telemetry is None else self._telemetry.text().decode()

    def _pages(self) -> dict[str, Callable[[], Page]]:
        telemetry = self._telemetry
        if telemetry is None or not self._monitoring.metrics:
            return {}
        return dict.fromkeys(METRICS_PATHS, lambda: Page(CONTENT_TYPE, telemetry.text()))

    def _states(self) -> list[Version]:
        with contextlib.suppress(ServingError):  # no version at all
            return [
                (self.model_name, one.version, one.state.name, one.code.name)
                for one in self._versions.states()[:MAX_VERSIONS]
            ]
        return []

    @property
    def version(self) -> int | None:
        """The number of the current version; None before there is one."""
        return self._versions.current

    @property
    def grpc_address(self) -> str:
        """`host:port` of the gRPC interface; the server must be started."""
        return self._address(self._grpc)

    @property
    def rest_address(self) -> str:
        """`host:port` of the REST interface; the server must be started."""
        return self._address(self._rest)

    def _address(self, interface: GrpcServer | RestServer | None) -> str:
        if interface is None:
            raise ValueError("The server is not started; use `with Server(...) as server:`.")
        return host_port(self.host, interface.port)

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@contextlib.contextmanager
def _bind_errors(host: str, port: int) -> Iterator[None]:
    """Explains why an address cannot be bound."""
    try:
        # gRPC reports no reason, so a plain socket tries the address first.
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port), family=family).close()
        yield
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(
            f"Cannot listen on {host_port(host, port)}: {reason}. Choose another port, or 0 for "
            "any free one, and a host that is one of this machine's addresses."
        ) from error
