"""Serves the metrics of the sidecar on a port of their own."""

from __future__ import annotations

from prometheus_client import start_http_server

from keras_robust.serving.addresses import host_port
from keras_robust.serving.metrics.telemetry import Telemetry


class MetricsServer:
    """Serves the metrics over HTTP, inside of a `with` block.

    Args:
        telemetry: the metrics.
        host: address to listen on.
        port: 0 picks a free one.

    Raises:
        OSError: the address cannot be bound.
    """

    def __init__(self, telemetry: Telemetry, host: str, port: int) -> None:
        try:
            self._server, self._thread = start_http_server(port, host, telemetry.exposed)
        except OSError as error:
            raise OSError(
                f"Cannot serve metrics on {host}:{port}: {error.strerror or error}. Choose another "
                "port, or 0 for any free one."
            ) from error
        self.host, self.port = host, self._server.server_port

    @property
    def address(self) -> str:
        """`host:port` of the metrics."""
        return host_port(self.host, self.port)

    def __enter__(self) -> MetricsServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(2.0)
