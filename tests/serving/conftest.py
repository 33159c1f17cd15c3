"""One tiny exported model for all tests of serving."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_robust.detection import EntropyDetector
from serving.export import export_model

SHAPE = (8, 8, 1)
CLASSES = 10


def tiny_classifier(shape=SHAPE, classes=CLASSES, members=0, policy=None, seed=0):
    """A random convolutional classifier whose answers differ from image to image."""
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
    stacked = keras.layers.Lambda(lambda x: keras.ops.stack(x, axis=1))(logits)
    mean = keras.layers.Average(dtype="float32")(logits)
    outputs = {"logits": mean, "features": features, "member_logits": stacked}
    return keras.Model(inputs, outputs, name="tiny_ensemble")


def random_images(count, shape=SHAPE, seed=0):
    """Images on the grid of 8 bits, so that they survive a PNG file."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)
    return pixels.astype(np.float32) / 255


def calibrated(model, shape=SHAPE, rate=0.25):
    """A detector that raises an alarm for about a quarter of the random images."""
    images = random_images(64, shape, seed=1)
    return EntropyDetector(model).calibrate([(tf.constant(images), tf.zeros(64))], rate)


@pytest.fixture(scope="session")
def classifier():
    """The classifier that `exported_model` serves."""
    return tiny_classifier()


@pytest.fixture(scope="session")
def detector(classifier):
    """The detector that `exported_model` serves."""
    return calibrated(classifier)


@pytest.fixture(scope="session")
def exported_model(tmp_path_factory, classifier, detector):
    """The base path of a model named "digits" with version 1; tests must not write into it."""
    base = tmp_path_factory.mktemp("exported") / "digits"
    export_model(
        classifier,
        base,
        detector,
        class_names=[str(i) for i in range(CLASSES)],
        recipe="digits/tiny",
    )
    return base
