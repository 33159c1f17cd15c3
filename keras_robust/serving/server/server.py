"""The embedded model server: TensorFlow Serving's two interfaces over one model."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from keras_robust.serving.server.grpc_service import GrpcServer
from keras_robust.serving.server.http_server import RestServer
from keras_robust.serving.server.prediction_service import Api
from keras_robust.serving.server.servable import Servable
from keras_robust.serving.server.version_manager import Versions


@dataclasses.dataclass(frozen=True)
class Limits:
    """How much the server takes on.

    Args:
        max_message_mb: size of a request or an answer, in MiB, over gRPC and over REST.
        threads: requests that each of the two interfaces answers at the same time.
        queue: requests that wait for a thread of each interface; the ones beyond are refused.
        poll_wait_seconds: between two looks for a new version.
        drain_seconds: how long a stop waits for the requests under way.

    Raises:
        ValueError: when one of them is not positive, or a number of requests is not whole.
    """

    max_message_mb: float = 64.0
    threads: int = 8
    queue: int = 128
    poll_wait_seconds: float = 1.0
    drain_seconds: float = 10.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not value > 0 or value == float("inf"):
                raise ValueError(f"{field.name}={value!r} was received; expected more than 0.")
        for name in ("threads", "queue"):
            if not isinstance(getattr(self, name), int):
                raise ValueError(f"{name}={getattr(self, name)!r} was received; expected an int.")
        if self.max_message_mb >= 2048:
            raise ValueError(
                f"max_message_mb={self.max_message_mb!r} was received; a message of TensorFlow "
                "Serving cannot reach 2048 MiB."
            )

    @property
    def max_message_bytes(self) -> int:
        """The size in bytes."""
        return int(self.max_message_mb * 2**20)

    @property
    def of_interface(self) -> tuple[int, int, int]:
        """What each interface is told: threads, queue and the size in bytes."""
        return self.threads, self.queue, self.max_message_bytes


class Server:
    """Serves the newest version of an exported model over gRPC and REST.

    Bind it to loopback, or behind something that speaks TLS and knows who may ask: as TensorFlow
    Serving, it asks nobody who they are.

    Args:
        model_name: the name by which clients ask.
        model_base_path: holds one directory for each version, as `serving.export` writes them.
        port: of gRPC; 0 takes a free one.
        rest_api_port: of REST; 0 takes a free one.
        host: to listen on.
        limits: of sizes, threads and times.

    Raises:
        ValueError: when the name cannot stand in a path, or a port is none.

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
    ) -> None:
        if not model_name or set(model_name) & set("/:?# "):
            raise ValueError(
                f"model_name={model_name!r} was received; expected a name without '/', ':', '?', "
                "'#' and spaces, as it stands in the paths of REST."
            )
        for number in (port, rest_api_port):
            if not 0 <= number < 2**16:
                raise ValueError(f"The port {number} was received; expected 0 to 65535.")
        self.model_name = model_name
        self.host = host
        self.limits = limits or Limits()
        self._ports = (port, rest_api_port)
        self._versions: Versions[Servable] = Versions(
            model_name, Path(model_base_path), self._load, self.limits.poll_wait_seconds
        )
        self._grpc: GrpcServer | None = None
        self._rest: RestServer | None = None

    def _load(self, path: Path, version: int) -> Servable:
        return Servable(path, version, self.limits.max_message_bytes)

    def start(self) -> None:
        """Takes the ports, loads the newest version, then answers.

        Raises:
            FileNotFoundError: when the base path is no directory.
            ServingError: when the newest version cannot be loaded.
            OSError: when a port cannot be taken.
        """
        api, limits = Api(self._versions), self.limits
        port, rest_port = self._ports
        try:
            with _taking(self.host, port):
                self._grpc = GrpcServer(api, _joined(self.host, port), *limits.of_interface)
            with _taking(self.host, rest_port):
                self._rest = RestServer(api, self.host, rest_port, *limits.of_interface)
            self._versions.start()
        except BaseException:
            self.stop()
            raise
        self._grpc.start()
        self._rest.start()

    def stop(self) -> bool:
        """Refuses new requests, waits for those under way, gives everything back.

        Returns:
            Whether everything has ended. A request that runs for longer than `drain_seconds`, or a
            version that is being loaded, goes on in a thread that nothing but the end of the
            process stops.
        """
        grace = self.limits.drain_seconds
        waits = [self._grpc.stop(grace)] if self._grpc else []
        ended = [self._rest.stop(grace)] if self._rest else []
        ended += [wait() for wait in waits]
        ended.append(self._versions.stop())
        self._grpc = self._rest = None
        return all(ended)

    @property
    def version(self) -> int | None:
        """The number of the version in use; None when there is none yet."""
        return self._versions.current

    @property
    def grpc_address(self) -> str:
        """`host:port` of gRPC, of a started server."""
        return self._address(self._grpc)

    @property
    def rest_address(self) -> str:
        """`host:port` of REST, of a started server."""
        return self._address(self._rest)

    def _address(self, front: GrpcServer | RestServer | None) -> str:
        if front is None:
            raise ValueError("The server is not started; use `with Server(...) as server:`.")
        return _joined(self.host, front.port)

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextlib.contextmanager
def _taking(host: str, port: int) -> Iterator[None]:
    """Says what to do when an address cannot be taken."""
    try:
        # gRPC does not tell why it fails, so the address is tried without it first.
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port), family=family).close()
        yield
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(
            f"Cannot listen on {_joined(host, port)}: {reason}. Choose another port, or 0 for any "
            "free one, and a host that is one of this machine's addresses."
        ) from error
