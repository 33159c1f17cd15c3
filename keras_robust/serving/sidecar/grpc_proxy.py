"""A proxy in front of a model server's gRPC interface, which reads the answers that pass."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from concurrent import futures

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import predict_pb2

from keras_robust.serving.metrics.request_record import RECORDED, RequestRecord
from keras_robust.serving.metrics.telemetry import Telemetry
from keras_robust.serving.status import Code, ServingError

_LOG = logging.getLogger(__name__)
_PREDICT = "/tensorflow.serving.PredictionService/Predict"
_METHODS = ("Predict", "GetModelMetadata", "GetModelStatus", "Classify", "Regress")
# gRPC sets them itself.
_NOT_FORWARDED = ("user-agent", "te", "content-type")


class GrpcProxy:
    """Passes unary requests to a model server, and its answers back, unchanged.

    Args:
        server: `host:port` of the model server's gRPC interface.
        address: `host:port` to listen on; port 0 picks a free one.
        telemetry: records the requests.
        max_message_bytes: largest request and answer.
        timeout_seconds: time for a request; a deadline of the client may be earlier.
        threads: requests that are passed at the same time.

    Raises:
        OSError: the address cannot be bound.
    """

    def __init__(
        self,
        server: str,
        address: str,
        telemetry: Telemetry,
        max_message_bytes: int = 2**26,
        timeout_seconds: float = 60.0,
        threads: int = 32,
    ) -> None:
        self._telemetry, self._timeout = telemetry, timeout_seconds
        options = [
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
        ]
        self._channel = grpc.insecure_channel(server, options)
        self._server = grpc.server(
            futures.ThreadPoolExecutor(threads, "grpc-proxy"),
            options=[*options, ("grpc.so_reuseport", 0)],
            maximum_concurrent_rpcs=8 * threads,
        )
        self._server.add_generic_rpc_handlers((_AnyMethod(self._pass),))
        try:
            self.port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"Cannot listen on {address}. Choose another port, or 0.") from error

    def start(self) -> None:
        """Starts passing requests."""
        self._server.start()

    def stop(self) -> None:
        """Answers the running requests, and ends."""
        self._server.stop(5.0).wait()
        self._channel.close()

    def _pass(self, method: str, content: bytes, context: grpc.ServicerContext) -> bytes:
        name = method.rpartition("/")[2]
        try:
            with self._telemetry.request("grpc", name if name in _METHODS else "") as record:
                answer = self._ask(method, content, context)
                if method == _PREDICT:
                    _read(answer, record)
                return answer
        except ServingError as error:
            cause = error.__cause__
            details = cause.details() if isinstance(cause, grpc.Call) else error.message
            return context.abort(grpc.StatusCode[error.code.name], details or "")

    def _ask(self, method: str, content: bytes, context: grpc.ServicerContext) -> bytes:
        left = context.time_remaining()
        timeout = self._timeout if left is None else min(left, self._timeout)
        metadata = [
            (key, value)
            for key, value in context.invocation_metadata()
            if key not in _NOT_FORWARDED and not key.startswith(("grpc-", ":"))
        ]
        try:
            return self._channel.unary_unary(method)(content, timeout, metadata)
        except grpc.RpcError as error:
            code = error.code().name if isinstance(error, grpc.Call) else "UNKNOWN"
            raise ServingError(Code[code], "The model server did not answer.") from error


class _AnyMethod(grpc.GenericRpcHandler):
    def __init__(self, call: Callable[[str, bytes, grpc.ServicerContext], bytes]) -> None:
        self._call = call

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """Handles a method of any name; messages stay bytes."""
        behavior = functools.partial(self._call, handler_call_details.method)
        return grpc.unary_unary_rpc_method_handler(behavior)


def _read(content: bytes, record: RequestRecord) -> None:
    """Fills in the record; an answer that cannot be read passes all the same."""
    try:
        response = predict_pb2.PredictResponse.FromString(content)
        outputs = {
            name: np.asarray(tf.make_ndarray(response.outputs[name]))
            for name in RECORDED
            if name in response.outputs
        }
    except (DecodeError, TypeError, ValueError) as error:
        _LOG.warning("An answer cannot be read: %s", error)
        return
    record.model = response.model_spec.name
    record.signature = response.model_spec.signature_name
    if len({array.shape for array in outputs.values()}) <= 1:
        record.answered(response.model_spec.version.value, {}, outputs)
