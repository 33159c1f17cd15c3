"""One tiny exported model for all tests of serving, with its parts."""

from __future__ import annotations

import dataclasses
import gc
import http.client
import json
import os
import shutil
import threading

import grpc
import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from keras_robust.detection import EntropyDetector
from keras_robust.serving.client.grpc_client import Client
from keras_robust.serving.exporting.export import export_model
from keras_robust.serving.exporting.warmup import WARMUP_FILE
from keras_robust.serving.server.server import Server

SHAPE = (8, 8, 1)
CLASSES = 10


def _tiny_classifier(shape=SHAPE, classes=CLASSES, members=0, policy=None, seed=0):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(shape)
    x = keras.layers.Rescaling(4.0, -2.0, dtype=policy)(inputs)
    x = keras.layers.Conv2D(4, 3, activation="relu", padding="same", dtype=policy)(x)
    x = keras.layers.BatchNormalization(dtype=policy)(x)
    features = keras.layers.Flatten(dtype=policy)(x)
    heads = [keras.layers.Dense(classes, dtype="float32") for _ in range(max(1, members))]
    logits = [head(features) for head in heads]
    if not members:
        return keras.Model(inputs, {"logits": logits[0], "features": features}, name="tiny")
    outputs = {
        "logits": keras.layers.Average(dtype="float32")(logits),
        "features": features,
        "member_logits": keras.ops.stack(logits, axis=1),
    }
    return keras.Model(inputs, outputs, name="tiny_ensemble")


def _random_images(count, shape=SHAPE, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)
    return pixels.astype(np.float32) / 255


def _calibrated(model, shape=SHAPE, false_alarm_rate=0.25):
    images = tf.constant(_random_images(64, shape, seed=1))
    return EntropyDetector(model).calibrate([(images, tf.zeros(64))], false_alarm_rate)


@pytest.fixture(scope="session", autouse=True)
def frozen():
    """Keeps TensorFlow's objects from the collections with which each server ends."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def tiny_classifier():
    """Makes random convolutional classifiers: `(shape, classes, members, policy, seed)`."""
    return _tiny_classifier


@pytest.fixture(scope="session")
def random_images():
    """Makes float32 images with 8-bit values, which PNG preserves: `(count, shape, seed)`."""
    return _random_images


@pytest.fixture(scope="session")
def calibrated():
    """Makes detectors that flag a quarter of random images: `(model, shape)`."""
    return _calibrated


@pytest.fixture(scope="session")
def classifier():
    """The classifier that `exported_model` serves."""
    return _tiny_classifier()


@pytest.fixture(scope="session")
def detector(classifier):
    """The detector that `exported_model` serves."""
    return _calibrated(classifier)


@pytest.fixture(scope="session")
def exported_model(tmp_path_factory, classifier, detector):
    """The base path of a model named "digits" with version 1; tests must not write into it."""
    base = tmp_path_factory.mktemp("exported") / "digits"
    names = [str(label) for label in range(CLASSES)]
    clean = detector.score(_random_images(200, seed=2)).numpy()
    export_model(
        classifier, base, detector, class_names=names, recipe="digits/tiny", clean_scores=clean
    )
    return base


@pytest.fixture(scope="session")
def cold_model(tmp_path_factory, exported_model):
    """The same without warm-up requests, whose replay takes most of the start of a server."""
    base = tmp_path_factory.mktemp("cold") / "digits"
    ignore = shutil.ignore_patterns(WARMUP_FILE)
    shutil.copytree(exported_model / "1", base / "1", ignore=ignore)
    return base


@pytest.fixture(scope="session")
def embedded(cold_model):
    """A server of that model with the default limits; tests must not change it."""
    with Server("digits", cold_model, port=0, rest_api_port=0) as server:
        yield server


def _wait_for(condition, seconds=60):
    pause = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("the condition did not come true")


@pytest.fixture(scope="session")
def wait_for():
    """Waits until a function returns true: `(condition, seconds)`."""
    return _wait_for


def _add_version(source, base, version):
    draft = base / f"draft-{version}"
    shutil.copytree(source, draft)
    draft.rename(base / str(version))


@pytest.fixture(scope="session")
def add_version():
    """Adds a version by one rename, as an export does: `(source, base, version)`."""
    return _add_version


@pytest.fixture
def base(exported_model, tmp_path):
    """A base path of a test's own, with version 1, to write into."""
    path = tmp_path / "base"
    path.mkdir()
    _add_version(exported_model / "1", path, 1)
    return path


@pytest.fixture(scope="session")
def endless_model(tmp_path_factory):
    """A model that never returns for a positive number."""

    class Endless(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def __call__(self, x):
            same = tf.while_loop(lambda y: tf.reduce_any(y > 0), lambda y: [tf.abs(y)], [x])
            return {"y": same[0]}

    base = tmp_path_factory.mktemp("endless")
    module = Endless()
    tf.saved_model.save(module, str(base / "1"), signatures=module.__call__)
    return base


TOKENS = [b"-1", b"1e999", b"NaN", b"null", b"[", b"}", b'"', b"\x80\x80\x01"]


def _mutate(content, dice):
    content = bytearray(content)
    for _ in range(dice.choice([1, 1, 1, 2, 4, 16])):
        at = dice.randrange(len(content) + 1)
        size = dice.choice([1, 1, 2, 8, 64])
        edit = dice.randrange(6)
        if edit == 0 and at < len(content):
            content[at] ^= 1 << dice.randrange(8)
        elif edit == 1:
            content[at : at + size] = dice.randbytes(size)
        elif edit == 2:
            del content[at : at + size]
        elif edit == 3:
            content[at:at] = content[at : at + size] * dice.choice([1, 2, 50])
        elif edit == 4:
            del content[at:]
        else:
            content[at:at] = dice.choice(TOKENS)
    return bytes(content)


@pytest.fixture(scope="session")
def mutate():
    """Edits bytes at random: bits flipped, bytes replaced, removed, repeated, cut off."""
    return _mutate


@dataclasses.dataclass(frozen=True)
class Served:
    """The model server of the conformance tests, and requests to it."""

    model: str
    grpc_address: str
    rest_address: str
    shape: tuple[int, ...]

    def images(self, count=3, seed=0):
        return _random_images(count, self.shape, seed)

    def files(self, count=3, seed=0):
        pixels = np.rint(self.images(count, seed) * 255).astype(np.uint8)
        return [tf.io.encode_png(image).numpy() for image in pixels]

    def request(self, signature="detect", inputs=None, output_filter=()):
        request = predict_pb2.PredictRequest(output_filter=output_filter)
        request.model_spec.name = self.model
        request.model_spec.signature_name = signature
        for alias, value in ({"images": self.images()} if inputs is None else inputs).items():
            request.inputs[alias].CopyFrom(tf.make_tensor_proto(value))
        return request

    def rest(self, method, path, body=None):
        """Status and JSON of the answer to a request; the body is bytes, or becomes JSON."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        connection = http.client.HTTPConnection(self.rest_address, timeout=30)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()


@pytest.fixture(scope="session")
def served(request):
    """The server at SERVING_ADDRESS and SERVING_REST_ADDRESS, or an embedded one."""
    model = os.environ.get("SERVING_MODEL", "digits")
    address, rest_address = map(os.environ.get, ("SERVING_ADDRESS", "SERVING_REST_ADDRESS"))
    if bool(address) != bool(rest_address):
        pytest.fail("Set both SERVING_ADDRESS (gRPC) and SERVING_REST_ADDRESS, or neither.")
    if address:
        with Client(address) as client:
            shape = client.metadata(model)["detect"]["inputs"]["images"]["shape"][1:]
        return Served(model, address, rest_address, tuple(shape))
    server = request.getfixturevalue("embedded")
    return Served("digits", server.grpc_address, server.rest_address, SHAPE)


@pytest.fixture
def embedded_only():
    """Skips a test of the embedded server when another one is queried."""
    if address := os.environ.get("SERVING_ADDRESS"):
        pytest.skip(f"only the embedded server promises this; {address} is asked")


@pytest.fixture(scope="session")
def channel(served):
    """A gRPC channel to the server of the conformance tests."""
    with grpc.insecure_channel(served.grpc_address) as channel:
        yield channel
