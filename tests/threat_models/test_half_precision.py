"""Images of half precision stay inside the ball, measured in float32 by the ball itself."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.threat_models.clipping import clipped
from tests.contracts.attack_table import ROWS

SEED = tf.constant([3, 5])
HALF = ["float16", "bfloat16"]
BALLS = {
    "linf": kr.LinfBall(8 / 255),
    "linf of bytes": kr.LinfBall(8, (0, 255)),
    "linf around 0": kr.LinfBall(1e-3, (-1, 1)),
    "l2": kr.L2Ball(0.5),
    "l2 of bytes": kr.L2Ball(128, (0, 255)),
    "l1": kr.L1Ball(2.0),
    "l1 of bytes": kr.L1Ball(500, (0, 255)),
    "l0": kr.L0Ball(5),
}
# The smallest excess that was seen with rounding to the nearest number is 6e-4 of the radius.
INSIDE = 1 + 2e-6


def drawn(bounds, dtype, shape=(200, 6, 6, 1)):
    """Uniform images, a tenth of the pixels on each bound."""
    low, high = bounds
    values = np.random.default_rng(0).uniform(-0.125, 1.125, shape).clip(0, 1)
    return tf.cast(low + (high - low) * values, dtype)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("name", BALLS)
def test_points_of_a_ball_are_inside(name, dtype):
    ball = BALLS[name]
    x = drawn(ball.bounds, dtype)
    far = tf.cast(x, tf.float32) + tf.random.stateless_normal(x.shape, SEED, 0, 3 * ball.radius)
    for point in (
        ball.project(far, x),
        ball.project(tf.cast(far, dtype), x),
        ball.sample(x, SEED),
        ball.sample_sphere(x, SEED),
    ):
        assert point.dtype == dtype
        assert float(tf.reduce_max(ball.distance(point, x))) <= ball.radius * INSIDE
        assert float(tf.reduce_min(point)) >= ball.bounds[0]
        assert float(tf.reduce_max(point)) <= ball.bounds[1]
        again = ball.project(point, x)
        np.testing.assert_array_equal(tf.cast(again, tf.float32), tf.cast(point, tf.float32))


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("scale", [255.0, 1.0, 1e-3, 1e-6])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_rounds_to_the_next_number_toward_the_center(dtype, scale, jit_compile):
    """No number of the dtype lies between the exact point and the result."""
    center = drawn((-scale, scale), dtype, (3000,))
    exact = np.asarray(tf.cast(center, tf.float32))
    point = exact + np.random.default_rng(1).normal(0, 0.02 * scale, 3000).astype("float32")
    function = tf.function(
        lambda p, c: clipped((-300, 300), p, c.dtype, c), jit_compile=jit_compile
    )
    rounded = np.asarray(tf.cast(function(point, center), tf.float32))
    nearest = np.asarray(tf.cast(tf.cast(point, dtype), tf.float32))
    low, high = np.minimum(point, exact), np.maximum(point, exact)
    assert ((low <= rounded) & (rounded <= high)).all()
    inward = (low <= nearest) & (nearest <= high)
    np.testing.assert_array_equal(rounded[inward], nearest[inward])
    assert 0.3 < inward.mean() < 0.95


def test_the_gradient_passes_the_rounding():
    x = drawn((0, 1), "float16", (2, 3))
    with tf.GradientTape() as tape:
        tape.watch(x)
        moved = kr.L2Ball(0.5).project(x + 0.01, x + 0)
    assert tape.gradient(moved, x) is not None


def linear(x):
    """Logits of four classes, in the dtype of the images."""
    flat = tf.reshape(x, [tf.shape(x)[0], -1])
    weights = tf.sin(2.0 * tf.reshape(tf.range(4.0 * flat.shape[1]), [-1, 4]))
    return {"logits": tf.cast((tf.cast(flat, tf.float32) - 0.5) @ weights, x.dtype)}


QUICK = ("fgsm", "pgd", "apgd", "square", "fab")


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize(
    ("row", "ball"),
    [
        pytest.param(row, norm, marks=[pytest.mark.slow] * (row not in QUICK or norm != "linf"))
        for row, entry in ROWS.items()
        for norm in entry.norms
        if not entry.members
    ],
)
def test_attacks_stay_inside(row, ball, dtype):
    ball, row = BALLS[ball], ROWS[row]
    x = drawn(ball.bounds, dtype, (6, 6, 6, 1))
    y = tf.argmax(linear(x)["logits"], axis=1)
    extra = {"targets": (y + 1) % 4} if row.targeted else {}
    x_adv = row.build(ball)(linear, x, y, seed=1, **extra)
    assert float(tf.reduce_max(ball.distance(x_adv, x))) <= ball.radius * INSIDE
