"""The gRPC interface: PredictionService, ModelService, health and reflection."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError, Message
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

from keras_robust.serving.metrics.telemetry import Telemetry
from keras_robust.serving.server.counted_pool import CountedPool
from keras_robust.serving.server.deadline import TIMEOUT_SECONDS, Workers
from keras_robust.serving.server.prediction_service import PredictionService
from keras_robust.serving.status import ServingError, invalid

if TYPE_CHECKING:
    from keras_robust.serving.server.standard_services import StandardServices

_LOG = logging.getLogger(__name__)
_PREDICTION, _MODEL = "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"
SERVICES = (_PREDICTION, _MODEL)
_OPTIONS = [
    # Otherwise a second server takes the same port, and half of the requests.
    ("grpc.so_reuseport", 0),
    # Bytes of a message that are received before a thread takes the request. The bandwidth probe
    # would widen this window until all queued messages are in memory; with the default of 64 KiB,
    # batches of images are slower.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 2**19),
    # Frees the thread of a client that disappeared in the middle of a message.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
]


class GrpcServer:
    """The gRPC front end of the server.

    Args:
        service: answers the messages.
        address: `host:port`; port 0 picks a free one.
        threads: requests answered at the same time.
        queue: requests that wait for a thread; further ones get RESOURCE_EXHAUSTED.
        max_message_bytes: largest size of a request and of an answer.
        timeout_seconds: time for a request from when a thread takes it; a deadline of the client
            may be earlier.
        telemetry: records the requests; default one of its own.
        standard: gRPC's standard services; None for a server without them.

    Raises:
        OSError: the address cannot be bound.
    """

    def __init__(
        self,
        service: PredictionService,
        address: str,
        threads: int,
        queue: int,
        max_message_bytes: int,
        timeout_seconds: float = TIMEOUT_SECONDS,
        telemetry: Telemetry | None = None,
        standard: StandardServices | None = None,
    ) -> None:
        options = [
            *_OPTIONS,
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
        ]
        pool = CountedPool(threads, "grpc")
        self._server = grpc.server(
            pool,
            options=options,
            maximum_concurrent_rpcs=threads + queue,
        )
        self._running = _RunningRequests()
        self._workers = Workers(threads, "model", timeout_seconds)
        telemetry = telemetry or Telemetry()
        telemetry.requests.watch_queue("grpc", lambda: pool.waiting + self._workers.waiting)
        handlers = _Handlers(telemetry, self._workers, self._running).of(service)
        self._standard = standard
        self._server.add_generic_rpc_handlers(
            (*handlers, *(standard.handlers if standard is not None else ()))
        )
        try:
            self.port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}") from error
        if not self.port:
            raise OSError(f"cannot listen on {address}")

    def start(self) -> None:
        """Starts answering requests."""
        self._server.start()

    def stop(self, grace_seconds: float) -> Callable[[], bool]:
        """Stops accepting requests.

        Returns:
            A function that waits for the running requests and returns whether all have ended. A
            request past the grace period is cancelled for its client, but its thread runs on.
        """
        deadline = time.monotonic() + grace_seconds
        stopped = self._server.stop(grace_seconds)
        if self._standard is not None:
            self._standard.stop()

        def wait() -> bool:
            stopped.wait()
            # gRPC does not wait for requests that their clients have cancelled.
            ended = self._running.wait_until_none(deadline - time.monotonic())
            self._workers.stop()
            return ended

        return wait


class _RunningRequests:
    """Counts the running requests, also those that run on after their answer."""

    def __init__(self) -> None:
        self._value = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        with self._changed:
            self._value += 1
        try:
            yield
        finally:
            with self._changed:
                self._value -= 1
                self._changed.notify_all()

    def wait_until_none(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self._value, max(0.0, seconds))


class _Handlers:
    """Makes the handlers of the methods."""

    def __init__(self, telemetry: Telemetry, workers: Workers, running: _RunningRequests) -> None:
        self._telemetry, self._workers, self._running = telemetry, workers, running

    def of(self, service: PredictionService) -> tuple[grpc.GenericRpcHandler, ...]:
        prediction = {
            "Predict": self._unary("Predict", service.predict, predict_pb2.PredictRequest),
            "GetModelMetadata": self._unary(
                "GetModelMetadata",
                service.get_model_metadata,
                get_model_metadata_pb2.GetModelMetadataRequest,
            ),
        }
        model = {
            "GetModelStatus": self._unary(
                "GetModelStatus",
                service.get_model_status,
                get_model_status_pb2.GetModelStatusRequest,
            )
        }
        return (
            grpc.method_handlers_generic_handler(_PREDICTION, prediction),
            grpc.method_handlers_generic_handler(_MODEL, model),
        )

    def _unary(
        self, name: str, method: Callable[[Any], Message], kind: type[Message]
    ) -> grpc.RpcMethodHandler:
        """A handler that parses the message itself: gRPC would answer malformed ones INTERNAL."""

        def handle(content: bytes, context: grpc.ServicerContext) -> bytes:
            def run() -> bytes:
                with record.active():
                    return method(_parsed(content, kind)).SerializeToString()

            def abandoned(future: futures.Future[bytes]) -> None:
                kept = counted.pop_all()
                future.add_done_callback(lambda _: kept.close())

            try:
                with (
                    self._telemetry.request("grpc", name) as record,
                    contextlib.ExitStack() as counted,
                ):
                    counted.enter_context(self._running.one())
                    left = context.time_remaining()
                    deadline = self._workers.deadline(math.inf if left is None else left)
                    return self._workers.run(run, deadline, abandoned)
            except ServingError as error:
                return context.abort(grpc.StatusCode[error.code.name], error.message)
            except Exception:  # details stay in the log, and the server keeps running
                _LOG.exception("A request to %s failed.", kind.DESCRIPTOR.name)
                return context.abort(
                    grpc.StatusCode.INTERNAL, "Internal error; see the server's log."
                )

        return grpc.unary_unary_rpc_method_handler(handle)


def _parsed(content: bytes, kind: type[Message]) -> Message:
    try:
        return kind.FromString(content)
    except DecodeError as error:
        raise invalid(
            f"The {len(content)} bytes received are not a {kind.DESCRIPTOR.name}."
        ) from error
