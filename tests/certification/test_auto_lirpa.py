"""Bounds beside those of auto_LiRPA 0.3 on the same networks.

`benchmarks/certification_beside_auto_lirpa.py` made the file: weights, images, lower bounds of the
margins by IBP, CROWN-IBP and CROWN.
"""

from __future__ import annotations

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr

STORED = dict(np.load(pathlib.Path(__file__).with_name("auto_lirpa.npz")))
NETWORKS = ("dense", "convolution", "residual", "max_pool")
METHODS = {
    "IBP": kr.certification.ibp,
    "CROWN-IBP": kr.certification.crown_ibp,
    "CROWN": kr.certification.crown,
}
layers = keras.layers


def strided(x):
    """PyTorch's padding of 1, which is on all four sides."""
    return layers.Conv2D(4, 3, strides=2)(layers.ZeroPadding2D(1)(x))


def dense(x):
    x = layers.Flatten()(x)
    for units in (20, 16, 12):
        x = layers.Dense(units, activation="relu")(x)
    return layers.Dense(3)(x)


def convolution(x):
    x = layers.ReLU()(layers.BatchNormalization(epsilon=1e-5)(strided(x)))
    x = layers.Flatten()(layers.Conv2D(5, 3, activation="relu")(x))
    return layers.Dense(3)(layers.Dense(10, activation="relu")(x))


def residual(x):
    x = layers.ReLU()(strided(x))
    y = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    x = layers.ReLU()(layers.Add()([x, layers.Conv2D(4, 3, padding="same")(y)]))
    return layers.Dense(3)(layers.Flatten()(x))


def max_pool(x):
    x = layers.MaxPooling2D(2)(layers.Conv2D(4, 3, activation="relu")(x))
    return layers.Dense(3)(layers.Dense(8, activation="relu")(layers.Flatten()(x)))


@pytest.fixture(scope="module", params=NETWORKS)
def stored(request):
    """The name of a network, the network with its weights, images and labels."""
    name = request.param
    images = keras.Input((8, 8, 2))
    logits = globals()[name](images)
    model = keras.Model(images, {"logits": logits, "features": logits})
    count = len(model.weights)
    model.set_weights([STORED[f"{name}/weight{number}"] for number in range(count)])
    x, y = STORED[f"{name}/x"], STORED[f"{name}/y"]
    np.testing.assert_allclose(model(x)["logits"], STORED[f"{name}/logits"], atol=1e-5)
    return name, model, tf.constant(x), y


@pytest.mark.parametrize("method", METHODS)
def test_linf(stored, method):
    """IBP is the same, CROWN not looser; CROWN-IBP without the cut by IBP is the same."""
    name, model, x, y = stored
    bounds = METHODS[method](kr.LinfBall(float(STORED[f"{name}/linf/radius"])))
    margins, theirs = bounds(model, x, y).numpy(), STORED[f"{name}/linf/{method}"]
    assert np.all(margins >= theirs - (1e-4 if method == "IBP" else 1e-3))
    if method == "CROWN-IBP":
        margins = bounds.with_ibp(model, x, y)[0]
    if method != "CROWN":
        np.testing.assert_allclose(margins, theirs, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_l2(stored, method):
    """Not looser: at the border of an image fewer weights of a kernel count here."""
    name, model, x, y = stored
    ball = kr.L2Ball(float(STORED[f"{name}/l2/radius"]), bounds=(-100.0, 100.0))
    bounds = METHODS[method](ball)
    margins = bounds(model, x, y).numpy()
    theirs = STORED[f"{name}/l2/{method}"]
    assert np.all(margins >= theirs - (1e-4 if method == "IBP" else 1e-3))
    if method == "CROWN-IBP" and name == "dense":
        np.testing.assert_allclose(bounds.with_ibp(model, x, y)[0], theirs, atol=1e-4)
