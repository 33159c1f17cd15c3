"""One tiny exported model for all tests of serving, and what it is made of."""

from __future__ import annotations

import shutil
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_robust.detection import EntropyDetector
from serving.export import export_model

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


@pytest.fixture(scope="session")
def tiny_classifier():
    """Makes random convolutional classifiers: `(shape, classes, members, policy, seed)`."""
    return _tiny_classifier


@pytest.fixture(scope="session")
def random_images():
    """Makes float32 images on the grid of 8 bits, which PNG keeps: `(count, shape, seed)`."""
    return _random_images


@pytest.fixture(scope="session")
def calibrated():
    """Makes detectors that raise an alarm for a quarter of random images: `(model, shape)`."""
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
    export_model(classifier, base, detector, class_names=names, recipe="digits/tiny")
    return base


def _wait_for(condition, seconds=20):
    pause = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("the condition did not come true")


@pytest.fixture(scope="session")
def wait_for():
    """Waits until a function gives something true: `(condition, seconds)`."""
    return _wait_for


def _add_version(source, base, version):
    draft = base / f"draft-{version}"
    shutil.copytree(source, draft)
    draft.rename(base / str(version))


@pytest.fixture(scope="session")
def add_version():
    """Adds a version that appears at once, as an export's does: `(source, base, version)`."""
    return _add_version


@pytest.fixture
def base(exported_model, tmp_path):
    """A base path of a test's own, with version 1, to write into."""
    path = tmp_path / "base"
    path.mkdir()
    _add_version(exported_model / "1", path, 1)
    return path


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
