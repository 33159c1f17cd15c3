"""A client of TensorFlow Serving's gRPC interface.

with Client("localhost:8500") as client:
    outputs = client.predict("digits", images, signature="detect")
"""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_robust.serving.client.rest_client import (
    CREDENTIALS,
    Inputs,
    Signatures,
    TensorInfo,
    authorization,
    refused,
)
from keras_robust.serving.status import Code, ServingError

DEFAULT_SIGNATURE = "serving_default"
# The receiver of a message limits its size: the server's limit applies to requests.
_NO_LIMIT = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Client:
    """A gRPC client of a model server; may be used by several threads.

    Args:
        address: `host:port`.
        timeout: seconds until a request fails.
        tls: connect with TLS, to a proxy in front of the server.
        token: sent to that proxy as `Authorization: Bearer ...`.

    Raises:
        ValueError: a token without TLS, which would be readable on the network.

    Example:
        >>> with Client("localhost:8500") as client:
        ...     client.address
        'localhost:8500'
    """

    def __init__(
        self, address: str, timeout: float = 10.0, tls: bool = False, token: str | None = None
    ) -> None:
        # These messages import all of TensorFlow, which users of the REST client do not need.
        import grpc
        from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

        self.address = address
        self.timeout = timeout
        self._headers = tuple((name.lower(), v) for name, v in authorization(token, tls).items())
        if tls:
            credentials = grpc.ssl_channel_credentials()
            self._channel = grpc.secure_channel(address, credentials, _NO_LIMIT)
        else:
            self._channel = grpc.insecure_channel(address, _NO_LIMIT)
        self._prediction = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._model = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def predict(
        self,
        model: str,
        inputs: Inputs,
        signature: str = DEFAULT_SIGNATURE,
        *,
        version: int | None = None,
        output_filter: tuple[str, ...] = (),
    ) -> dict[str, np.ndarray]:
        """Runs a signature.

        Args:
            model: the name it is served by.
            inputs: images `[batch, height, width, channels]` float32 in [0, 1], or a list with the
                content of one PNG or JPEG file each, or a dictionary of named inputs.
            signature: `serving_default` or `detect` for images, `serving_bytes` or `detect_bytes`
                for files.
            version: default the newest.
            output_filter: the outputs to return; default all.

        Returns:
            `{output: array}`.

        Raises:
            ServingError: the server rejects the request or cannot be reached.
        """
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest(output_filter=output_filter)
        self._fill(request.model_spec, model, version)
        request.model_spec.signature_name = signature
        for name, value in named_inputs(inputs).items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        response = self._call(self._prediction.Predict, request)
        return {name: tf.make_ndarray(proto) for name, proto in response.outputs.items()}

    def metadata(self, model: str, version: int | None = None) -> Signatures:
        """The signatures of a model.

        Returns:
            `{signature: {"inputs": {name: {"dtype", "shape"}}, "outputs": ...}}`, with shapes as
            lists in which -1 stands for any length.

        Raises:
            ServingError: the server rejects the request or cannot be reached.
        """
        from tensorflow_serving.apis import get_model_metadata_pb2

        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        self._fill(request.model_spec, model, version)
        response = self._call(self._prediction.GetModelMetadata, request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        return {
            name: {side: _described(getattr(definition, side)) for side in ("inputs", "outputs")}
            for name, definition in signatures.signature_def.items()
        }

    def status(self, model: str, version: int | None = None) -> dict[int, str]:
        """The state of each version: `{1: "AVAILABLE"}`.

        Raises:
            ServingError: the server rejects the request or cannot be reached.
        """
        from tensorflow_serving.apis import get_model_status_pb2

        request = get_model_status_pb2.GetModelStatusRequest()
        self._fill(request.model_spec, model, version)
        response = self._call(self._model.GetModelStatus, request)
        names = get_model_status_pb2.ModelVersionStatus.State
        return {entry.version: names.Name(entry.state) for entry in response.model_version_status}

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @staticmethod
    def _fill(spec: Any, model: str, version: int | None) -> None:
        spec.name = model
        if version is not None:
            spec.version.value = version

    def _call(self, method: Any, request: Any) -> Any:
        import grpc

        try:
            return method(request, timeout=self.timeout, metadata=self._headers)
        except grpc.RpcError as error:
            code = Code[error.code().name]
            message = error.details() or code.name
            if code is Code.UNAVAILABLE:
                message = f"No model server answers at {self.address}: {message}"
            if code in CREDENTIALS:
                message = refused(self.address, message, self._headers)
            # gRPC's own words; a server explains its limit.
            if code is Code.DEADLINE_EXCEEDED and message.lower() == "deadline exceeded":
                message = f"{self.address} did not answer within {self.timeout:g} seconds"
            raise ServingError(code, message) from error


def named_inputs(inputs: Inputs) -> dict[str, np.ndarray | list[bytes]]:
    """Inputs under the names of exported models: `images` or `image_bytes`."""
    if isinstance(inputs, dict):
        return inputs
    if isinstance(inputs, np.ndarray) and inputs.dtype != object:
        return {"images": inputs}
    return {"image_bytes": list(inputs)}


def _described(infos: Any) -> dict[str, TensorInfo]:
    import tensorflow as tf

    return {
        name: {
            "dtype": tf.dtypes.as_dtype(info.dtype).name,
            "shape": [dim.size for dim in info.tensor_shape.dim],
        }
        for name, info in infos.items()
    }
