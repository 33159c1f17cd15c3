"""gRPC's standard services: the health of the server, and reflection for tools as `grpcurl`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any

import grpc
from grpc_health.v1 import health
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha import reflection, reflection_pb2
from tensorflow_serving.apis import (  # noqa: F401  reflection describes them
    model_service_pb2,
    prediction_service_pb2,
)

HEALTH, REFLECTION = health.SERVICE_NAME, reflection.SERVICE_NAME
# Reflection needs a thread for as long as its client is connected.
REFLECTION_SECONDS = 30.0


class StandardServices:
    """`grpc.health.v1.Health` and server reflection.

    They have threads of their own: a server whose threads are all busy is healthy and says so, and
    a client that stays connected to reflection takes none of them.

    Args:
        services: full names of the other services.

    Attributes:
        handlers: for `grpc.Server.add_generic_rpc_handlers`.
    """

    def __init__(self, services: Sequence[str]) -> None:
        self._services = list(services)
        self._health = health.HealthServicer()
        self._reflection = reflection.ReflectionServicer([*services, HEALTH, REFLECTION])
        self._open: set[grpc.ServicerContext] = set()
        self._lock = threading.Lock()
        self._pools = [futures.ThreadPoolExecutor(1, name) for name in ("health", "reflection")]
        self.set_serving(False)
        self.handlers = (self._health_handler(), self._reflection_handler())

    def set_serving(self, serving: bool) -> None:
        """Sets the health of all services."""
        status = HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING
        for service in ("", *self._services):
            self._health.set(service, status)

    def stop(self) -> None:
        """Reports for good that nothing is served, and ends the open streams."""
        self._health.enter_graceful_shutdown()
        with self._lock:
            contexts = list(self._open)
        for context in contexts:
            context.cancel()
        for pool in self._pools:
            pool.shutdown(wait=False)

    def _health_handler(self) -> grpc.GenericRpcHandler:
        def watch(
            request: HealthCheckRequest,
            context: grpc.ServicerContext,
            send: Callable[[HealthCheckResponse], None] | None = None,
        ) -> Iterator[HealthCheckResponse] | None:
            self._opened(context)
            return self._health.Watch(request, context, send)

        def check(
            request: HealthCheckRequest, context: grpc.ServicerContext
        ) -> HealthCheckResponse:
            return self._health.Check(request, context)

        pool = self._pools[0]
        codec = HealthCheckRequest.FromString, HealthCheckResponse.SerializeToString
        methods = {
            "Check": grpc.unary_unary_rpc_method_handler(_in_pool(check, pool), *codec),
            # A watched health takes no thread while it does not change.
            "Watch": grpc.unary_stream_rpc_method_handler(
                _in_pool(watch, pool, experimental_non_blocking=True), *codec
            ),
        }
        return grpc.method_handlers_generic_handler(HEALTH, methods)

    def _reflection_handler(self) -> grpc.GenericRpcHandler:
        request_type = reflection_pb2.ServerReflectionRequest
        response_type = reflection_pb2.ServerReflectionResponse

        def info(
            requests: Iterator[reflection_pb2.ServerReflectionRequest],
            context: grpc.ServicerContext,
        ) -> Iterator[reflection_pb2.ServerReflectionResponse]:
            self._opened(context)
            timer = threading.Timer(REFLECTION_SECONDS, context.cancel)
            timer.daemon = True
            timer.start()
            context.add_callback(timer.cancel)
            return self._reflection.ServerReflectionInfo(requests, context)

        handler = grpc.stream_stream_rpc_method_handler(
            _in_pool(info, self._pools[1]),
            request_type.FromString,
            response_type.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(REFLECTION, {"ServerReflectionInfo": handler})

    def _opened(self, context: grpc.ServicerContext) -> None:
        """Remembers a stream until it is closed."""

        def closed() -> None:
            with self._lock:
                self._open.discard(context)

        with self._lock:
            self._open.add(context)
        if not context.add_callback(closed):
            closed()


def _in_pool(
    behavior: Callable[..., Any], pool: futures.ThreadPoolExecutor, **attributes: Any
) -> Callable[..., Any]:
    """A method that runs in threads of its own; where gRPC does not do so, in the server's."""
    for name, value in {"experimental_thread_pool": pool, **attributes}.items():
        setattr(behavior, name, value)
    return behavior
