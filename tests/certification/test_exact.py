"""Bounds where the exact answer is known: linear networks, enumerated ReLU patterns, pools."""

from __future__ import annotations

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.optimize import linprog

import keras_robust as kr
from keras_robust.certification.layers.max_pooling import _Windows
from tests.certification.networks import draw_weights, functional, true_margins

METHODS = {
    "ibp": kr.certification.ibp,
    "crown_ibp": kr.certification.crown_ibp,
    "crown": kr.certification.crown,
}
BALLS = {1: kr.L1Ball, 2: kr.L2Ball, math.inf: kr.LinfBall}


@pytest.mark.parametrize("p", BALLS)
@pytest.mark.parametrize("method", METHODS)
def test_a_linear_network_equals_the_closed_form(make_linear, method, p):
    """`(w_y - w_j) . x + b_y - b_j - radius |w_y - w_j|_q`, with 1 / p + 1 / q = 1."""
    rng = np.random.default_rng(0)
    weights, bias = rng.normal(size=(12, 3)), rng.normal(size=3)
    model = make_linear(weights, bias, shape=(2, 3, 2))
    x, y = rng.random((5, 2, 3, 2)).astype("float32"), np.arange(5) % 3
    ball = BALLS[p](0.3, bounds=(-5.0, 5.0))
    differences = weights.T[y][:, None] - weights.T[None]
    q = {1: math.inf, 2: 2, math.inf: 1}[p]
    clean = true_margins(x.reshape(5, -1) @ weights + bias, y)
    expected = clean - 0.3 * np.linalg.norm(differences, q, axis=2)
    np.testing.assert_allclose(METHODS[method](ball)(model, x, y), expected, atol=2e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_linear_network_is_exact_at_the_range_of_a_pixel(make_linear, method):
    """Pixels at 0 and 1 move one way only."""
    model = make_linear(np.array([[1.0, -1.0], [2.0, 0.5]]), shape=(2,))
    margins = METHODS[method](kr.LinfBall(0.2))(model, [[0.0, 1.0]], [1])
    # z_1 - z_0 = -2 x_0 - 1.5 x_1, smallest at (0.2, 1).
    np.testing.assert_allclose(margins, [[-1.9, 0.0]], atol=1e-5)


@pytest.mark.parametrize("p", (1, 2))
def test_the_range_of_a_pixel_cuts_a_ball(make_linear, p):
    """A ball that holds all images gives the extremes of the box."""
    model = make_linear(np.array([[1.0, -1.0], [2.0, 0.5]]), shape=(2,))
    margins = kr.certification.ibp(BALLS[p](9.0))(model, [[0.5, 0.5]], [1])
    np.testing.assert_allclose(margins, [[-3.5, 0.0]], atol=1e-4)


@pytest.mark.parametrize("p", BALLS)
@pytest.mark.parametrize("method", METHODS)
def test_a_first_convolution_is_bounded_by_the_norm_of_its_kernel(method, p):
    """One ReLU per position, each far from 0, so that the network is linear in the ball."""
    images = keras.Input((3, 3, 1))
    conv = keras.layers.Conv2D(1, 2, activation="relu")
    dense = keras.layers.Dense(2)
    logits = dense(keras.layers.Flatten()(conv(images)))
    model = keras.Model(images, {"logits": logits, "features": logits})
    kernel = np.array([[1.0, -2.0], [3.0, 0.5]])
    conv.set_weights([kernel.reshape(2, 2, 1, 1), np.array([5.0])])
    dense.set_weights([np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]), np.zeros(2)])
    x = np.full((1, 3, 3, 1), 0.5, "float32")
    norm = {1: 3.0, 2: np.linalg.norm(kernel), math.inf: 6.5}[p]
    margins = METHODS[method](BALLS[p](0.1))(model, x, [0])
    np.testing.assert_allclose(margins, [[0.0, 5 + 0.5 * 2.5 - 0.1 * norm]], atol=1e-5)


def exact_minimum(weights, x, radius, direction):
    """The minimum of `direction . z` over the box, by a linear program per pattern of ReLUs.

    Args:
        weights: kernels and biases of the layers, all but the last one rectified.
        x: the center.
        radius: in Linf, cut with [0, 1].
        direction: coefficients of the logits.
    """
    layers = list(zip(weights[::2], weights[1::2], strict=True))
    units = sum(len(bias) for _, bias in layers[:-1])
    box = list(zip(np.maximum(x - radius, 0), np.minimum(x + radius, 1), strict=True))
    best = np.inf
    for pattern in itertools.product((0.0, 1.0), repeat=units):
        matrix, offset, left, limits, rest = np.eye(len(x)), np.zeros(len(x)), [], [], pattern
        for kernel, bias in layers[:-1]:
            matrix, offset = kernel.T @ matrix, kernel.T @ offset + bias
            on, rest = np.array(rest[: len(bias)]), rest[len(bias) :]
            sign = 1 - 2 * on  # on: matrix . x + offset >= 0
            left.append(sign[:, None] * matrix)
            limits.append(-sign * offset)
            matrix, offset = on[:, None] * matrix, on * offset
        kernel, bias = layers[-1]
        cost = direction @ kernel.T @ matrix
        found = linprog(cost, np.concatenate(left), np.concatenate(limits), bounds=box)
        if found.status == 0:
            best = min(best, found.fun + direction @ (kernel.T @ offset + bias))
    return best


@pytest.fixture(scope="module")
def enumerated():
    """A network of two inputs and six ReLUs, images, and exact margins at two radii."""
    rng = np.random.default_rng(9)

    def body(x):
        for units in (3, 3):
            x = keras.layers.Dense(units, activation="relu")(x)
        return keras.layers.Dense(3)(x)

    model = functional(body, shape=(2,))
    draw_weights(model, rng)
    weights = [weight.astype("float64") for weight in model.get_weights()]
    x, y = rng.random((2, 2)), np.array([0, 2])
    directions = np.eye(3)[y][:, None] - np.eye(3)[None]
    exact = {
        radius: np.array(
            [
                [exact_minimum(weights, image, radius, row) for row in rows]
                for image, rows in zip(x, directions, strict=True)
            ]
        )
        for radius in (0.05, 0.3)
    }
    return model, tf.constant(x, tf.float32), y, exact


@pytest.mark.parametrize("method", METHODS)
def test_the_exact_extremes_of_a_small_network_are_not_exceeded(enumerated, method):
    model, x, y, exact = enumerated
    for radius, minimum in exact.items():
        margins = METHODS[method](kr.LinfBall(radius))(model, x, y).numpy()
        assert np.all(margins <= minimum + 1e-9)


def test_crown_is_exact_where_no_unit_changes_sign(enumerated):
    model, x, y, _ = enumerated
    tiny = 1e-3
    margins = kr.certification.crown(kr.LinfBall(tiny))(model, x, y).numpy()
    weights = [weight.astype("float64") for weight in model.get_weights()]
    rows = np.eye(3)[y][:, None] - np.eye(3)[None]
    expected = [
        [exact_minimum(weights, image, tiny, row) for row in each]
        for image, each in zip(np.float64(x), rows, strict=True)
    ]
    np.testing.assert_allclose(margins, expected, atol=1e-5)


def test_crown_is_not_looser_than_ibp(enumerated):
    """Linear bounds alone may be; the better of both is taken."""
    model, x, y, exact = enumerated
    for radius, minimum in exact.items():
        ball = kr.LinfBall(radius)
        by_ibp, by_both, by_crown = (METHODS[name](ball)(model, x, y).numpy() for name in METHODS)
        assert np.all(by_ibp - 1e-6 <= by_both) and np.all(by_ibp - 1e-6 <= by_crown)
        assert np.mean(minimum - by_crown) < 0.7 * np.mean(minimum - by_ibp)


def test_crown_of_a_pool_is_exact_where_one_value_is_the_largest():
    """`max(3 x, y) - ...` with `3 x` always above `y`."""
    images = keras.Input((1, 2, 1))
    dense = keras.layers.Dense(2)
    x = keras.layers.MaxPooling2D((1, 2))(keras.layers.Rescaling(1.0)(images))
    logits = dense(keras.layers.Flatten()(x))
    model = keras.Model(images, {"logits": logits, "features": logits})
    dense.set_weights([np.array([[1.0, -1.0]]), np.zeros(2)])
    x = np.array([0.9, 0.2], "float32").reshape(1, 1, 2, 1)
    for y, expected in ((0, 2 * 0.8), (1, -2 * 1.0)):
        margins = kr.certification.crown(kr.LinfBall(0.1))(model, x, [y]).numpy()
        np.testing.assert_allclose(margins[0, 1 - y], expected, atol=1e-5)


def test_tiles_are_routed_as_other_windows_are():
    """A pool whose windows do not overlap takes a shorter way."""
    rng = np.random.default_rng(0)
    windows = _Windows(keras.layers.MaxPooling2D((2, 3)), tf.TensorShape([1, 4, 6, 5]))
    assert windows.are_tiles
    rows = tf.constant(rng.normal(size=(2, 7, 2, 2, 5)))
    chosen = tf.one_hot(rng.integers(0, 6, (2, 2, 2, 5)), 6, axis=3, dtype=tf.float64)
    short = windows.routed(rows, chosen)
    windows.are_tiles = False
    np.testing.assert_array_equal(short, windows.routed(rows, chosen))
