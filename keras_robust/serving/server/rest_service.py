"""TensorFlow Serving's REST paths, independent of the HTTP server."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import unquote

from google.protobuf import json_format
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
)

from keras_robust.serving.metrics.request_record import current_record
from keras_robust.serving.server import json_tensors
from keras_robust.serving.server.prediction_service import SIGNATURE_FIELD, PredictionService
from keras_robust.serving.server.servable import Servable, Signature
from keras_robust.serving.status import Code, ServingError, invalid

_SPEC = r"(?:(?:/versions/(?P<version>\d+))|(?:/labels/(?P<label>[^/:]+)))?"
_PREDICT = re.compile(
    rf"(?i:/v1/models/(?P<name>[^/:]+){_SPEC}:(?P<method>classify|regress|predict))", re.ASCII
)
_MODEL = re.compile(
    rf"(?i:/v1/models(?:/(?P<name>[^/:]+))?{_SPEC}(?:/(?P<part>metadata))?)", re.ASCII
)
_INT64_MAX = 2**63 - 1


def answer(service: PredictionService, method: str, path: str, body: bytes) -> dict[str, Any]:
    """Answers a request of TensorFlow Serving's REST interface.

    Args:
        service: runs the methods.
        method: HTTP method.
        path: the target of the request, as it was sent: with its query, and not decoded.
        body: body of the request.

    Returns:
        The answer, as an object for `json`.

    Raises:
        ServingError: a bad request; the code becomes the HTTP status.
    """
    if not path.lower().startswith("/v1/"):
        raise ServingError(Code.NOT_FOUND, f"Not found: {path}; expected /v1/models/NAME")
    if method == "POST" and (match := _PREDICT.fullmatch(path)):
        if match["method"].lower() != "predict":
            raise ServingError(
                Code.UNIMPLEMENTED,
                f"This server does not implement {match['method']}; expected predict",
            )
        _record("Predict")
        return _predict(service, _model_spec(match), body)
    if method == "GET" and (match := _MODEL.fullmatch(path)):
        if not match["name"]:
            raise invalid("Missing model name in request.")
        _record("GetModelMetadata" if match["part"] else "GetModelStatus")
        if match["part"]:
            return _metadata(service, _model_spec(match))
        return _status(service, _model_spec(match))
    # TensorFlow Serving answers 400, not 405, to an unsupported method.
    raise invalid(f"Malformed request: {method} {path}")


def _record(method: str) -> None:
    """Notes the method for the metrics, by its name in gRPC."""
    if (record := current_record()) is not None:
        record.method = method


def _model_spec(match: re.Match[str]) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=unquote(match["name"]))
    if match["version"]:
        if len(match["version"]) > 19 or int(match["version"]) > _INT64_MAX:
            raise invalid(f"Failed to convert version: {match['version']} to numeric.")
        spec.version.value = int(match["version"])
    if match["label"]:
        spec.version_label = unquote(match["label"])
    return spec


def _predict(service: PredictionService, spec: model_pb2.ModelSpec, body: bytes) -> dict[str, Any]:
    document = json_tensors.parse(body)
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid("'signature_name' key must be a string value.")
    with service.lease(spec) as servable:
        signature = _signature(servable, name)
        inputs, by_row = json_tensors.decode_inputs(document, signature.inputs)
        del document  # lists of numbers are many times the size of their text
        outputs = servable.run(signature, inputs)
    return json_tensors.encode_outputs(outputs, by_row)


def _signature(servable: Servable, name: str) -> Signature:
    try:
        return servable.signature(name)
    except KeyError as error:
        raise invalid(
            f'Serving signature name: "{error.args[0]}" not found in signature def; expected one '
            f"of {', '.join(sorted(servable.signatures))}"
        ) from error


def _metadata(service: PredictionService, spec: model_pb2.ModelSpec) -> dict[str, Any]:
    request = get_model_metadata_pb2.GetModelMetadataRequest(
        model_spec=spec, metadata_field=[SIGNATURE_FIELD]
    )
    response = service.get_model_metadata(request)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata[SIGNATURE_FIELD].Unpack(signatures)
    return {
        "model_spec": _as_json(response.model_spec),
        "metadata": {SIGNATURE_FIELD: _as_json(signatures)},
    }


def _status(service: PredictionService, spec: model_pb2.ModelSpec) -> dict[str, Any]:
    request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
    return _as_json(service.get_model_status(request))


def _as_json(message: Any) -> dict[str, Any]:
    text = json_format.MessageToJson(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return json.loads(text)
