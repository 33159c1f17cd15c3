"""Requests that every model server rejects, with their codes, over gRPC and over REST.

Runs against any server, as `test_conformance.py`; the messages are checked of the embedded one.
"""

from __future__ import annotations

import base64
import dataclasses
import math
import os
import re
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from keras_robust.serving.client.rest_client import RestClient

MODEL = os.environ.get("SERVING_MODEL", "digits")


def _stub(channel):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


@dataclasses.dataclass(frozen=True)
class Bad:
    """A request that both interfaces reject."""

    name: str
    code: str
    http: int
    says: str = ""
    inputs: Callable[[Any], dict[str, Any]] = lambda served: {"images": served.images()}
    model: str = MODEL
    version: int | None = None
    label: str = ""
    signature: str = "detect"


def _spoilt(value):
    def inputs(served):
        images = served.images()
        images[1].flat[3] = value
        return {"images": images}

    return inputs


BAD = [
    Bad("model", "NOT_FOUND", 404, "Servable not found for request: Latest", model="nobody"),
    Bad("version", "NOT_FOUND", 404, "Servable not found for request: Specific", version=987654),
    Bad("label", "INVALID_ARGUMENT", 400, "Unrecognized servable version label", label="gold"),
    # The one code that differs: TensorFlow Serving looks the signature up at another place.
    Bad("signature", "FAILED_PRECONDITION", 400, "not found", signature="guess"),
    Bad("no_input", "INVALID_ARGUMENT", 400, "images", inputs=lambda served: {}),
    Bad("other_input", "INVALID_ARGUMENT", 400, "", inputs=lambda s: {"picture": s.images()}),
    Bad("rank", "INVALID_ARGUMENT", 400, inputs=lambda s: {"images": s.images()[0]}),
    Bad("height", "INVALID_ARGUMENT", 400, inputs=lambda s: {"images": s.images()[:, 1:]}),
    Bad("channels", "INVALID_ARGUMENT", 400, inputs=lambda s: {"images": _doubled(s.images())}),
    Bad("empty", "INVALID_ARGUMENT", 400, inputs=lambda s: {"images": s.images(0)}),
    Bad("above", "INVALID_ARGUMENT", 400, r"must lie in \[0, 1\]", inputs=_spoilt(1.5)),
    Bad("below", "INVALID_ARGUMENT", 400, r"must lie in \[0, 1\]", inputs=_spoilt(-0.01)),
    Bad("nan", "INVALID_ARGUMENT", 400, "NaN", inputs=_spoilt(math.nan)),
    Bad("infinite", "INVALID_ARGUMENT", 400, r"must lie in \[0, 1\]", inputs=_spoilt(math.inf)),
    Bad(
        "junk_file",
        "INVALID_ARGUMENT",
        400,
        "PNG or JPEG",
        inputs=lambda s: {"image_bytes": [*s.files(2), b"junk"]},
        signature="detect_bytes",
    ),
    Bad(
        "cut_file",
        "INVALID_ARGUMENT",
        400,
        inputs=lambda s: {"image_bytes": [s.files(1)[0][:40]]},
        signature="serving_bytes",
    ),
    Bad(
        "array_for_files",
        "INVALID_ARGUMENT",
        400,
        inputs=lambda s: {"image_bytes": s.images()},
        signature="detect_bytes",
    ),
    Bad(
        "files_for_array",
        "INVALID_ARGUMENT",
        400,
        inputs=lambda s: {"images": s.files()},
    ),
]


def _doubled(images):
    return np.concatenate([images, images], axis=-1)


def _check_message(message, says=""):
    assert re.search(says, message)
    assert "\n" not in message and len(message) <= 1000
    assert not re.search(r"Traceback|\{\{node|Graph execution|\.py", message)


def _refused_over_grpc(served, channel, bad):
    request = served.request(bad.signature, bad.inputs(served))
    request.model_spec.name = bad.model
    if bad.version is not None:
        request.model_spec.version.value = bad.version
    if bad.label:
        request.model_spec.version_label = bad.label
    with pytest.raises(grpc.RpcError) as caught:
        _stub(channel).Predict(request)
    return caught.value


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_refused_over_grpc(served, channel, bad):
    assert _refused_over_grpc(served, channel, bad).code().name == bad.code
    _check_alive(served)


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_the_message_over_grpc(embedded_only, served, channel, bad):
    _check_message(_refused_over_grpc(served, channel, bad).details(), bad.says)


def _refused_over_rest(served, bad, row):
    columns = {alias: _json(value) for alias, value in bad.inputs(served).items()}
    body = {"signature_name": bad.signature, "inputs": columns}
    if row:
        size = len(next(iter(columns.values()), [None]))
        rows = [{alias: columns[alias][i] for alias in columns} for i in range(size)]
        body = {"signature_name": bad.signature, "instances": rows}
    path = f"/v1/models/{bad.model}"
    if bad.version is not None:
        path += f"/versions/{bad.version}"
    if bad.label:
        path += f"/labels/{bad.label}"
    return served.rest("POST", path + ":predict", body)


@pytest.mark.parametrize("row", [True, False], ids=["row", "column"])
@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_refused_over_rest(served, bad, row):
    status, answer = _refused_over_rest(served, bad, row)
    assert (status, list(answer)) == (bad.http, ["error"])
    _check_alive(served)


@pytest.mark.parametrize("row", [True, False], ids=["row", "column"])
@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_the_message_over_rest(embedded_only, served, bad, row):
    # A request without rows is rejected before its input is known.
    says = "" if row and bad.name == "empty" else bad.says
    _check_message(_refused_over_rest(served, bad, row)[1]["error"], says)


def _b64(content):
    return {"b64": base64.b64encode(content).decode()}


def _json(value):
    if isinstance(value, list):
        return [_b64(content) for content in value]
    return value.tolist()


def _check_alive(served):
    assert RestClient(served.rest_address).status(MODEL)


MALFORMED = [
    ("POST", f"/v1/models/{MODEL}", {"instances": [1]}, 400, "Malformed request: POST"),
    ("GET", f"/v1/models/{MODEL}:predict", None, 400, "Malformed request: GET"),
    ("PUT", f"/v1/models/{MODEL}:predict", {"instances": [1]}, 400, "Malformed request: PUT"),
    ("DELETE", f"/v1/models/{MODEL}", None, 400, "Malformed request: DELETE"),
    ("GET", f"/v1/models/{MODEL}/version/1", None, 400, "Malformed request"),
    ("GET", "/v1/models/nobody", None, 404, "Could not find any versions of model nobody"),
    ("GET", f"/v1/models/{MODEL}/versions/987654", None, 404, "Could not find version 987654"),
    ("GET", "/v1/models/nobody/metadata", None, 404, "Servable not found"),
    ("GET", "/v1/models", None, 400, "Missing model name"),
    ("GET", f"/v1/models/{MODEL}/versions/{10**20}", None, 400, "Failed to convert version"),
    ("POST", f"/v1/models/{MODEL}:predict", b"", 400, "The document is empty"),
    ("POST", f"/v1/models/{MODEL}:predict", b"{instances", 400, "JSON Parse error"),
    ("POST", f"/v1/models/{MODEL}:predict", b"\xff\xfe\x00", 400, "JSON Parse error"),
    ("POST", f"/v1/models/{MODEL}:predict", [1], 400, "(?i)is not object"),
    ("POST", f"/v1/models/{MODEL}:predict", {}, 400, "Missing 'inputs' or 'instances' key"),
    ("POST", f"/v1/models/{MODEL}:predict", {"instances": [], "inputs": []}, 400, ""),
    ("POST", f"/v1/models/{MODEL}:predict", {"instances": []}, 400, ""),
    ("POST", f"/v1/models/{MODEL}:predict", {"instances": 3}, 400, ""),
    ("POST", f"/v1/models/{MODEL}:predict", {"instances": [None]}, 400, ""),
    ("POST", f"/v1/models/{MODEL}:predict", {"instances": [[1], [[1]]]}, 400, ""),
    ("POST", f"/v1/models/{MODEL}:predict", {"instances": [[1], [1, 2]]}, 400, ""),
    ("POST", f"/v1/models/{MODEL}:predict", {"instances": ["text"]}, 400, ""),
    ("POST", f"/v1/models/{MODEL}:predict", {"instances": [True]}, 400, ""),
    ("POST", f"/v1/models/{MODEL}:predict", {"instances": [1], "signature_name": 3}, 400, ""),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "says"), MALFORMED)
def test_malformed_over_rest(served, method, path, body, status, says):
    found, answer = served.rest(method, path, body)
    assert (found, list(answer)) == (status, ["error"])


@pytest.mark.parametrize(("method", "path", "body", "status", "says"), MALFORMED)
def test_the_message_of_malformed_over_rest(
    embedded_only, served, method, path, body, status, says
):
    _check_message(served.rest(method, path, body)[1]["error"], says)


def _refused(call, request):
    with pytest.raises(grpc.RpcError) as caught:
        call(request)
    return caught.value.code().name


def test_malformed_over_grpc(served, channel):
    stub, models = _stub(channel), model_service_pb2_grpc.ModelServiceStub(channel)
    nameless = served.request()
    nameless.model_spec.name = ""
    assert _refused(stub.Predict, nameless) == "INVALID_ARGUMENT"
    assert _refused(stub.Predict, predict_pb2.PredictRequest()) == "INVALID_ARGUMENT"
    for wrong in (["other"], ["classes", "classes"]):
        request = served.request(output_filter=wrong)
        assert _refused(stub.Predict, request) == "INVALID_ARGUMENT"
    both = {"images": served.images(), "more": served.images()}
    assert _refused(stub.Predict, served.request(inputs=both)) == "INVALID_ARGUMENT"
    for dtype in (np.float64, np.uint8):
        wrong = {"images": served.images().astype(dtype)}
        assert _refused(stub.Predict, served.request(inputs=wrong)) == "INVALID_ARGUMENT"
    metadata = get_model_metadata_pb2.GetModelMetadataRequest()
    assert _refused(stub.GetModelMetadata, metadata) == "INVALID_ARGUMENT"
    metadata.model_spec.name = MODEL
    assert _refused(stub.GetModelMetadata, metadata) == "INVALID_ARGUMENT"
    metadata.metadata_field.append("weather")
    assert _refused(stub.GetModelMetadata, metadata) == "INVALID_ARGUMENT"
    status = get_model_status_pb2.GetModelStatusRequest()
    assert _refused(models.GetModelStatus, status) == "INVALID_ARGUMENT"
    status.model_spec.name = "nobody"
    assert _refused(models.GetModelStatus, status) == "NOT_FOUND"
    status.model_spec.name = MODEL
    status.model_spec.version.value = 987654
    assert _refused(models.GetModelStatus, status) == "NOT_FOUND"
