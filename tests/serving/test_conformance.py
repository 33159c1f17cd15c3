"""One table of requests and answers for every model server, over gRPC and over REST.

Without environment variables it runs against the embedded server. With SERVING_ADDRESS and
SERVING_REST_ADDRESS (host:port) it runs against another, such as TensorFlow Serving, that serves a
model exported by `serving.export` under the name SERVING_MODEL ("digits"). What is refused:
`test_conformance_refusals.py`.
"""

from __future__ import annotations

import base64
import os
import re

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_service_pb2_grpc

from keras_robust.serving.client.grpc_client import Client
from keras_robust.serving.client.rest_client import RestClient

MODEL = os.environ.get("SERVING_MODEL", "digits")
ARRAYS = ("serving_default", "detect")
FILES = ("serving_bytes", "detect_bytes")


@pytest.fixture(scope="module")
def stub(channel):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


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
    if "member_probabilities" in expected:  # an ensemble
        members = expected["member_probabilities"]
        assert members.shape[::2] == expected["probabilities"].shape
        np.testing.assert_allclose(members.sum(axis=2), 1, rtol=1e-5)
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


def test_the_signature_is_serving_default_when_none_is_named(served, stub):
    request = served.request()
    request.model_spec.ClearField("signature_name")
    response = stub.Predict(request)
    assert response.model_spec.name == MODEL
    assert response.model_spec.signature_name == "serving_default"
    assert response.model_spec.version.value >= 1
    assert set(response.outputs) >= {"probabilities", "classes"}
    # The field that TensorFlow Serving fills, and that clients read without TensorFlow.
    assert len(response.outputs["classes"].int64_val) == 3


def test_output_filter(served, stub):
    response = stub.Predict(served.request(output_filter=["detection_score"]))
    assert set(response.outputs) == {"detection_score"}


def test_a_single_value_fills_a_tensor(served, stub):
    request = served.request(signature="detect")
    splat = tf.make_tensor_proto(0.5, tf.float32, shape=[2, *served.shape])
    assert len(splat.float_val) == 1
    request.inputs["images"].CopyFrom(splat)
    filled = stub.Predict(request)
    images = np.full((2, *served.shape), 0.5, np.float32)
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(images))
    full = stub.Predict(request)
    assert tf.make_ndarray(filled.outputs["probabilities"]).tolist() == pytest.approx(
        tf.make_ndarray(full.outputs["probabilities"])
    )


def test_the_values_of_a_tensor_may_come_one_by_one(served, stub):
    """As clients without TensorFlow send them: float_val instead of tensor_content."""
    request = served.request(signature="detect")
    raw = stub.Predict(request)
    images = served.images()
    proto = request.inputs["images"]
    proto.ClearField("tensor_content")
    proto.float_val.extend(images.ravel().tolist())
    listed = stub.Predict(request)
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
