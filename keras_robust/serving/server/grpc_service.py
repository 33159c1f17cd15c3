"""PredictionService and ModelService over gRPC."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

from keras_robust.serving.server.prediction_service import Api
from keras_robust.serving.status import ServingError, invalid

_LOG = logging.getLogger(__name__)
_OPTIONS = [
    # Otherwise a second server takes the same port, and half of the requests.
    ("grpc.so_reuseport", 0),
    # A message is read when a thread takes its request on; until then only this much of it has
    # come. With the probe, which widens that window as it sees fit, the messages of all requests
    # that wait were found in memory; with the default of 64 KiB, batches of images took longer.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 2**19),
    # A client that vanished, with its message half sent, gives its thread back.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
]


class GrpcServer:
    """The gRPC front of the server.

    Args:
        api: answers the messages.
        address: `host:port`; port 0 takes a free one.
        threads: requests answered at the same time.
        queue: requests that may wait for a thread; beyond, they are RESOURCE_EXHAUSTED.
        max_message_bytes: of a request, and of an answer.

    Raises:
        OSError: when the address cannot be taken.
    """

    def __init__(
        self, api: Api, address: str, threads: int, queue: int, max_message_bytes: int
    ) -> None:
        options = [
            *_OPTIONS,
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
        ]
        self._server = grpc.server(
            futures.ThreadPoolExecutor(threads, "grpc"),
            options=options,
            maximum_concurrent_rpcs=threads + queue,
        )
        self._running = _Count()
        self._server.add_generic_rpc_handlers(_handlers(api, self._running))
        try:
            self.port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}") from error
        if not self.port:
            raise OSError(f"cannot listen on {address}")

    def start(self) -> None:
        """Begins to answer."""
        self._server.start()

    def stop(self, grace_seconds: float) -> Callable[[], bool]:
        """Refuses new requests.

        Returns:
            A function that waits for those under way, and says whether all have ended: one that
            runs past the grace is cancelled for its client, but nothing ends its thread.
        """
        deadline = time.monotonic() + grace_seconds
        stopped = self._server.stop(grace_seconds)

        def wait() -> bool:
            stopped.wait()
            # What its client has given up runs on, and gRPC does not wait for it.
            return self._running.wait_for_none(deadline - time.monotonic())

        return wait


class _Count:
    """How many requests run."""

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

    def wait_for_none(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self._value, max(0.0, seconds))


def _handlers(api: Api, running: _Count) -> tuple[grpc.GenericRpcHandler, ...]:
    def unary(method: Callable[[Any], Message], kind: type[Message]) -> grpc.RpcMethodHandler:
        return _unary(method, kind, running)

    prediction = {
        "Predict": unary(api.predict, predict_pb2.PredictRequest),
        "GetModelMetadata": unary(
            api.get_model_metadata, get_model_metadata_pb2.GetModelMetadataRequest
        ),
    }
    model = {
        "GetModelStatus": unary(api.get_model_status, get_model_status_pb2.GetModelStatusRequest)
    }
    return (
        grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", prediction),
        grpc.method_handlers_generic_handler("tensorflow.serving.ModelService", model),
    )


def _unary(
    method: Callable[[Any], Message], kind: type[Message], running: _Count
) -> grpc.RpcMethodHandler:
    """A handler that parses the bytes itself: gRPC answers junk as a failure of the server."""

    def handle(content: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            with running.one():
                return method(_parsed(content, kind)).SerializeToString()
        except ServingError as error:
            return context.abort(grpc.StatusCode[error.code.name], error.sentence)
        except Exception:  # a client is never told what broke inside, and the server goes on
            _LOG.exception("A request to %s failed.", kind.DESCRIPTOR.name)
            return context.abort(grpc.StatusCode.INTERNAL, "The server failed; its log tells why.")

    return grpc.unary_unary_rpc_method_handler(handle)


def _parsed(content: bytes, kind: type[Message]) -> Message:
    try:
        return kind.FromString(content)
    except DecodeError as error:
        raise invalid(
            f"The {len(content)} bytes received are no {kind.DESCRIPTOR.name}."
        ) from error
