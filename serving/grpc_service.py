"""PredictionService and ModelService over gRPC."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

from serving.api import Api
from serving.status import ServingError, invalid

_LOG = logging.getLogger(__name__)
# Requests that wait for a thread hold their message in memory; the ones beyond are refused.
WAITING_PER_THREAD = 16


class GrpcServer:
    """The gRPC front of the server.

    Args:
        api: answers the messages.
        address: `host:port`; port 0 takes a free one.
        threads: requests answered at the same time.
        max_message_bytes: of a request, and of an answer.

    Raises:
        OSError: when the address cannot be taken.
    """

    def __init__(self, api: Api, address: str, threads: int, max_message_bytes: int) -> None:
        options = [
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
            # Otherwise a second server takes the same port, and half of the requests.
            ("grpc.so_reuseport", 0),
        ]
        self._server = grpc.server(
            futures.ThreadPoolExecutor(threads, "grpc"),
            options=options,
            maximum_concurrent_rpcs=threads * (1 + WAITING_PER_THREAD),
        )
        self._server.add_generic_rpc_handlers(_handlers(api))
        try:
            self.port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}") from error
        if not self.port:
            raise OSError(f"cannot listen on {address}")

    def start(self) -> None:
        """Begins to answer."""
        self._server.start()

    def stop(self, grace_seconds: float) -> Callable[[], Any]:
        """Refuses new requests; the function it gives waits for those under way."""
        return self._server.stop(grace_seconds).wait


def _handlers(api: Api) -> tuple[grpc.GenericRpcHandler, ...]:
    prediction = {
        "Predict": _unary(api.predict, predict_pb2.PredictRequest),
        "GetModelMetadata": _unary(
            api.get_model_metadata, get_model_metadata_pb2.GetModelMetadataRequest
        ),
    }
    model = {
        "GetModelStatus": _unary(api.get_model_status, get_model_status_pb2.GetModelStatusRequest)
    }
    return (
        grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", prediction),
        grpc.method_handlers_generic_handler("tensorflow.serving.ModelService", model),
    )


def _unary(method: Callable[[Any], Message], kind: type[Message]) -> grpc.RpcMethodHandler:
    """A handler that parses the bytes itself: gRPC answers junk as a failure of the server."""

    def handle(content: bytes, context: grpc.ServicerContext) -> bytes:
        try:
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
