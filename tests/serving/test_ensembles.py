"""A served ensemble: its members' probabilities, and detectors with every score."""

from __future__ import annotations

import json
import urllib.request

import numpy as np
import pytest
import tensorflow as tf
from absl import flags

import keras_robust as kr
from keras_robust.cli import query
from keras_robust.detection import Detector
from keras_robust.serving.client.grpc_client import Client
from keras_robust.serving.client.rest_client import RestClient
from keras_robust.serving.exporting.export import export_model
from keras_robust.serving.exporting.signatures import DETECTION, INPUTS, OUTPUTS, endpoints
from keras_robust.serving.exporting.verify import read_threshold, verify
from keras_robust.serving.exporting.warmup import read_warmup
from keras_robust.serving.server.server import Server

SCORE = "disagreement"  # of ensembles alone


@pytest.fixture(scope="module")
def ensemble(tiny_classifier):
    return kr.models.ensemble([tiny_classifier(seed=seed) for seed in (3, 4)])


@pytest.fixture(scope="module")
def detector(ensemble, random_images):
    return Detector(ensemble, scored_by=SCORE).calibrate([random_images(64, seed=1)], 0.25)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, ensemble, detector):
    return export_model(ensemble, tmp_path_factory.mktemp("exported") / "pair", detector)


@pytest.fixture(scope="module")
def server(exported):
    with Server("pair", exported.parent, port=0, rest_api_port=0) as server:
        yield server


@pytest.fixture(scope="module", params=["grpc", "rest"])
def client(request, server):
    if request.param == "rest":
        yield RestClient(server.rest_address)
        return
    with Client(server.grpc_address) as client:
        yield client


def png(image):
    return tf.io.encode_png(np.rint(image * 255).astype(np.uint8)).numpy()


@pytest.mark.parametrize("signature", INPUTS)
def test_every_signature_gives_what_the_members_say(
    client, ensemble, detector, random_images, signature
):
    images = random_images(3)
    by_arrays = INPUTS[signature] == "images"
    answers = client.predict("pair", images if by_arrays else list(map(png, images)), signature)
    assert set(answers) == {*OUTPUTS[signature], "member_probabilities"}
    members = answers["member_probabilities"]
    expected = tf.nn.softmax(ensemble(images)["member_logits"])
    assert members.dtype == np.float32
    np.testing.assert_allclose(members, expected, atol=1e-5)
    np.testing.assert_allclose(members.mean(axis=1), answers["probabilities"], atol=1e-5)
    if DETECTION.keys() <= set(answers):
        np.testing.assert_allclose(answers["detection_score"], detector.score(images), atol=1e-5)
        np.testing.assert_array_equal(answers["is_adversarial"], detector.is_adversarial(images))


@pytest.mark.parametrize("key", ["instances", "inputs"])
def test_rows_and_columns_of_json_hold_the_members(server, ensemble, random_images, key):
    images = random_images(3)
    body = json.dumps({"signature_name": "detect", key: images.tolist()}).encode()
    url = f"http://{server.rest_address}/v1/models/pair:predict"
    with urllib.request.urlopen(url, body, timeout=30) as response:
        answer = json.load(response)
    if key == "instances":
        members = [row["member_probabilities"] for row in answer["predictions"]]
    else:
        members = answer["outputs"]["member_probabilities"]
    np.testing.assert_allclose(members, tf.nn.softmax(ensemble(images)["member_logits"]), atol=1e-5)


def test_the_score_is_the_detectors_and_not_the_entropy(client, ensemble, random_images):
    images = random_images(3)
    scores = client.predict("pair", images, "detect")["detection_score"]
    entropy = Detector(ensemble).score(images)
    assert np.abs(scores - entropy).min() > 0.1


def test_the_version_verifies_and_says_what_its_score_is(exported, detector):
    assert set(verify(exported)) == set(INPUTS)
    assert read_threshold(exported) == detector.threshold
    facts = json.loads((exported / "assets.extra" / "keras_robust.json").read_text())
    assert facts["members"] == 2
    assert facts["detector"]["score"] == SCORE


def test_warm_up_asks_for_every_signature(exported):
    asked = {request.model_spec.signature_name for request in read_warmup(exported)}
    assert asked == set(INPUTS)


def test_the_query_prints_what_each_member_says(server, tmp_path, ensemble, random_images):
    images = random_images(2)
    np.save(tmp_path / "two.npy", images)
    values = flags.FlagValues()
    query.define_flags(values)
    address = f"--server={server.grpc_address}"
    values(["query", address, "--model=pair", f"--images={tmp_path}/two.npy"])
    header, *lines = query.run(values).splitlines()
    assert header.split()[-1] == "member_probabilities"
    for line, row in zip(lines, tf.nn.softmax(ensemble(images)["member_logits"]), strict=True):
        said = ", ".join(f"{np.argmax(member)} ({np.max(member):.2f})" for member in row)
        assert line.endswith(f"  {said}")


@pytest.mark.parametrize(
    "score",
    [
        pytest.param(score, marks=[pytest.mark.slow] * (score != "disagreement"))
        for score in kr.detection.scores.SCORES
    ],
)
def test_detection_makes_no_second_forward_pass(ensemble, score):
    made = endpoints(ensemble, Detector(ensemble, scored_by=score), tf.Variable(0.5))

    def convolutions(signature):
        function, spec = made[signature]
        graph = tf.function(function).get_concrete_function(spec).graph
        return sum(op.type == "Conv2D" for op in graph.get_operations())

    assert convolutions("detect") == convolutions("serving_default") == 2  # one for each member
