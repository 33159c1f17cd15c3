"""One table of requests and answers for every model server, over gRPC and over REST.

Without environment variables it runs against the embedded server. With SERVING_ADDRESS and
SERVING_REST_ADDRESS (host:port) it runs against another, such as TensorFlow Serving, that serves a
model exported by `serving.export` under the name SERVING_MODEL ("digits").
"""

from __future__ import annotations

import base64
import dataclasses
import http.client
import json
import math
import os
import re
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.client import Client, RestClient
from serving.server import Server

EXTERNAL = os.environ.get("SERVING_ADDRESS")
EXTERNAL_REST = os.environ.get("SERVING_REST_ADDRESS")
MODEL = os.environ.get("SERVING_MODEL", "digits") if EXTERNAL else "digits"
ARRAYS = ("serving_default", "detect")
FILES = ("serving_bytes", "detect_bytes")


@dataclasses.dataclass(frozen=True)
class Served:
    grpc_address: str
    rest_address: str
    shape: tuple[int, ...]

    def images(self, count=3, seed=0):
        pixels = np.random.default_rng(seed).integers(0, 256, (count, *self.shape))
        return (pixels / 255).astype(np.float32)

    def files(self, count=3, seed=0):
        pixels = np.rint(self.images(count, seed) * 255).astype(np.uint8)
        return [tf.io.encode_png(image).numpy() for image in pixels]

    def rest(self, method, path, body=None):
        connection = http.client.HTTPConnection(self.rest_address, timeout=30)
        try:
            connection.request(method, path, body if body is None else _encoded(body))
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()


def _encoded(body):
    return body if isinstance(body, bytes) else json.dumps(body).encode()


@pytest.fixture(scope="module")
def served(request):
    if EXTERNAL:
        with Client(EXTERNAL) as client:
            shape = client.metadata(MODEL)["detect"]["inputs"]["images"]["shape"][1:]
        yield Served(EXTERNAL, EXTERNAL_REST or "localhost:8501", tuple(shape))
        return
    base = request.getfixturevalue("exported_model")
    with Server(MODEL, base, port=0, rest_api_port=0) as server:
        yield Served(server.grpc_address, server.rest_address, (8, 8, 1))


@pytest.fixture(scope="module")
def channel(served):
    with grpc.insecure_channel(served.grpc_address) as channel:
        yield channel


# --- what is answered ---------------------------------------------------------------------------


@pytest.mark.parametrize("signature", ARRAYS + FILES)
def test_grpc_and_rest_rows_and_columns_give_the_same(served, signature):
    inputs = served.images() if signature in ARRAYS else served.files()
    values = inputs.tolist() if signature in ARRAYS else [_b64(content) for content in inputs]
    alias = "images" if signature in ARRAYS else "image_bytes"
    with Client(served.grpc_address) as client:
        expected = client.predict(MODEL, inputs, signature)
    assert expected["probabilities"].shape[0] == 3
    assert expected["probabilities"].dtype == np.float32
    assert expected["classes"].dtype == np.int64
    np.testing.assert_allclose(expected["probabilities"].sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(expected["classes"], expected["probabilities"].argmax(axis=1))
    if signature.startswith("detect"):
        assert expected["detection_score"].shape == expected["is_adversarial"].shape == (3,)
        assert expected["is_adversarial"].dtype == bool
    bodies = [
        {"instances": values},
        {"instances": [{alias: value} for value in values]},
        {"inputs": values},
        {"inputs": {alias: values}},
    ]
    for body in bodies:
        path = f"/v1/models/{MODEL}:predict"
        status, answer = served.rest("POST", path, {"signature_name": signature, **body})
        assert status == 200
        if "instances" in body:
            assert set(answer) == {"predictions"}
            assert all(set(row) == set(expected) for row in answer["predictions"])
            columns = {name: [row[name] for row in answer["predictions"]] for name in expected}
        else:
            assert set(answer) == {"outputs"}
            columns = answer["outputs"]
        assert set(columns) == set(expected)
        for name, column in columns.items():
            np.testing.assert_allclose(np.array(column), expected[name], rtol=1e-6, atol=1e-7)


def _b64(content):
    return {"b64": base64.b64encode(content).decode()}


def test_the_signature_is_serving_default_when_none_is_named(served, channel):
    request = _request(served)
    request.model_spec.ClearField("signature_name")
    response = _stub(channel).Predict(request)
    assert response.model_spec.name == MODEL
    assert response.model_spec.signature_name == "serving_default"
    assert response.model_spec.version.value >= 1
    assert set(response.outputs) >= {"probabilities", "classes"}
    # The field that TensorFlow Serving fills, and that clients read without TensorFlow.
    assert len(response.outputs["classes"].int64_val) == 3


def test_output_filter(served, channel):
    response = _stub(channel).Predict(_request(served, output_filter=["detection_score"]))
    assert set(response.outputs) == {"detection_score"}


def test_a_single_value_fills_a_tensor(served, channel):
    request = _request(served, signature="detect")
    splat = tf.make_tensor_proto(0.5, tf.float32, shape=[2, *served.shape])
    assert len(splat.float_val) == 1
    request.inputs["images"].CopyFrom(splat)
    filled = _stub(channel).Predict(request)
    images = np.full((2, *served.shape), 0.5, np.float32)
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(images))
    full = _stub(channel).Predict(request)
    assert tf.make_ndarray(filled.outputs["probabilities"]).tolist() == pytest.approx(
        tf.make_ndarray(full.outputs["probabilities"])
    )


def test_the_values_of_a_tensor_may_come_one_by_one(served, channel):
    """As clients without TensorFlow send them: float_val instead of tensor_content."""
    request = _request(served, signature="detect")
    raw = _stub(channel).Predict(request)
    images = served.images()
    proto = request.inputs["images"]
    proto.ClearField("tensor_content")
    proto.float_val.extend(images.ravel().tolist())
    listed = _stub(channel).Predict(request)
    assert listed.outputs["detection_score"] == raw.outputs["detection_score"]


def test_batch_sizes(served):
    images = served.images(7)
    with Client(served.grpc_address) as client:
        whole = client.predict(MODEL, images)["probabilities"]
        for size in (1, 3):
            part = client.predict(MODEL, images[:size])["probabilities"]
            np.testing.assert_allclose(part, whole[:size], atol=1e-5)


def test_a_version_by_its_number(served):
    with Client(served.grpc_address) as client:
        versions = [v for v, state in client.status(MODEL).items() if state == "AVAILABLE"]
        latest = client.predict(MODEL, served.images())
        pinned = client.predict(MODEL, served.images(), version=max(versions))
    np.testing.assert_array_equal(latest["probabilities"], pinned["probabilities"])
    rest = RestClient(served.rest_address)
    assert rest.predict(MODEL, served.images(), version=max(versions)).keys() == latest.keys()


def test_status_and_metadata_agree(served):
    rest = RestClient(served.rest_address)
    with Client(served.grpc_address) as client:
        assert client.status(MODEL) == rest.status(MODEL)
        version = max(v for v, state in client.status(MODEL).items() if state == "AVAILABLE")
        assert (
            client.status(MODEL, version) == rest.status(MODEL, version) == {version: "AVAILABLE"}
        )
        grpc_metadata, rest_metadata = client.metadata(MODEL), rest.metadata(MODEL, version)
    for metadata in (grpc_metadata, rest_metadata):
        assert set(metadata) >= set(ARRAYS + FILES)
        images = metadata["detect"]["inputs"]["images"]
        assert images == {"dtype": "float32", "shape": [-1, *served.shape]}
        assert metadata["detect_bytes"]["inputs"]["image_bytes"]["dtype"] == "string"
    assert grpc_metadata["detect"] == rest_metadata["detect"]


def test_the_json_of_status_and_metadata(served):
    status, answer = served.rest("GET", f"/v1/models/{MODEL}")
    assert status == 200
    entry = answer["model_version_status"][0]
    assert re.fullmatch(r"\d+", entry["version"])  # 64-bit numbers are strings in this JSON
    assert entry["state"] == "AVAILABLE"
    assert entry["status"] == {"error_code": "OK", "error_message": ""}
    status, answer = served.rest("GET", f"/v1/models/{MODEL}/metadata")
    assert status == 200
    assert answer["model_spec"] == {
        "name": MODEL,
        "signature_name": "",
        "version": entry["version"],
    }
    detect = answer["metadata"]["signature_def"]["signature_def"]["detect"]
    assert detect["method_name"] == "tensorflow/serving/predict"
    dims = detect["inputs"]["images"]["tensor_shape"]["dim"]
    assert [int(dim["size"]) for dim in dims] == [-1, *served.shape]


# --- what is refused ----------------------------------------------------------------------------


def _stub(channel):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


def _request(served, signature="detect", inputs=None, output_filter=()):
    request = predict_pb2.PredictRequest(output_filter=output_filter)
    request.model_spec.name = MODEL
    request.model_spec.signature_name = signature
    for alias, value in ({"images": served.images()} if inputs is None else inputs).items():
        request.inputs[alias].CopyFrom(tf.make_tensor_proto(value))
    return request


@dataclasses.dataclass(frozen=True)
class Bad:
    """A request that both interfaces refuse."""

    name: str
    code: str
    http: int
    says: str = ""
    inputs: Callable[[Served], dict[str, Any]] = lambda served: {"images": served.images()}
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


def _check_sentence(sentence, says=""):
    assert re.search(says, sentence)
    assert "\n" not in sentence and len(sentence) <= 1000
    assert not re.search(r"Traceback|\{\{node|Graph execution|\.py", sentence)


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_refused_over_grpc(served, channel, bad):
    request = _request(served, bad.signature, bad.inputs(served))
    request.model_spec.name = bad.model
    if bad.version is not None:
        request.model_spec.version.value = bad.version
    if bad.label:
        request.model_spec.version_label = bad.label
    with pytest.raises(grpc.RpcError) as caught:
        _stub(channel).Predict(request)
    assert caught.value.code().name == bad.code
    if not EXTERNAL:
        _check_sentence(caught.value.details(), bad.says)
    _check_alive(served)


@pytest.mark.parametrize("row", [True, False], ids=["row", "column"])
@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_refused_over_rest(served, bad, row):
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
    status, answer = served.rest("POST", path + ":predict", body)
    assert (status, list(answer)) == (bad.http, ["error"])
    if not EXTERNAL and not (row and bad.name == "empty"):
        _check_sentence(answer["error"], bad.says)
    _check_alive(served)


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
    _check_sentence(answer["error"], says)


def _refused(call, request):
    with pytest.raises(grpc.RpcError) as caught:
        call(request)
    return caught.value.code().name


def test_malformed_over_grpc(served, channel):
    stub, models = _stub(channel), model_service_pb2_grpc.ModelServiceStub(channel)
    nameless = _request(served)
    nameless.model_spec.name = ""
    assert _refused(stub.Predict, nameless) == "INVALID_ARGUMENT"
    assert _refused(stub.Predict, predict_pb2.PredictRequest()) == "INVALID_ARGUMENT"
    for wrong in (["other"], ["classes", "classes"]):
        request = _request(served, output_filter=wrong)
        assert _refused(stub.Predict, request) == "INVALID_ARGUMENT"
    both = {"images": served.images(), "more": served.images()}
    assert _refused(stub.Predict, _request(served, inputs=both)) == "INVALID_ARGUMENT"
    for dtype in (np.float64, np.uint8):
        wrong = {"images": served.images().astype(dtype)}
        assert _refused(stub.Predict, _request(served, inputs=wrong)) == "INVALID_ARGUMENT"
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
