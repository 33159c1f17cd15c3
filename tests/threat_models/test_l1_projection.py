"""The nearest point of an L1 ball and a box, against bisection and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.threat_models.l1_projection import onto_ball, onto_ball_and_box


def bisected(delta, radius, low, high):
    """`clip(|delta| - t, 0, room)` with the least t >= 0 whose sum is at most the radius."""
    size, room = np.abs(delta), np.where(delta > 0, high, -low)

    def at(t):
        return np.minimum(np.maximum(size - t, 0), room)

    near, far = np.zeros((len(delta), 1)), size.max(axis=1, keepdims=True)
    for _ in range(100):
        middle = (near + far) / 2
        over = at(middle).sum(axis=1, keepdims=True) > radius
        near, far = np.where(over, middle, near), np.where(over, far, middle)
    fits = at(0).sum(axis=1, keepdims=True) <= radius
    return np.sign(delta) * at(np.where(fits, 0, far))


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("radius", [0.3, 2.0])
def test_it_is_the_nearest_point(scale, radius):
    random = np.random.default_rng(0)
    x = random.random((50, 30))
    x[:, ::5] = x[:, ::5].round()  # pixels on a bound, which leaves no room on one side
    delta = scale * random.normal(size=x.shape)
    expected = bisected(delta, radius, -x, 1 - x)
    found = onto_ball_and_box(tf.constant(delta), tf.constant(radius, tf.float64), -x, 1 - x)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(
        kr.L1Ball(radius).project(tf.constant(x + delta), tf.constant(x)) - x, expected, atol=1e-12
    )


def test_by_hand():
    """Of (3, 2, 1) in a ball of 2 the first may move by 0.5: 1.5 are left for 2 and 1, less 0.75
    each: (0.5, 1.25, 0.25). Clipping after the plain projection, (1.5, 0.5, 0), leaves 1."""
    delta, one = tf.constant([[3.0, 2.0, 1.0]]), tf.ones([1, 3])
    high = tf.constant([[0.5, 2.0, 2.0]])
    found = onto_ball_and_box(delta, tf.constant(2.0), -one, high)
    np.testing.assert_allclose(found, [[0.5, 1.25, 0.25]])
    np.testing.assert_allclose(onto_ball(delta, tf.constant(2.0)), [[1.5, 0.5, 0]])


def test_a_box_that_is_smaller_than_the_ball():
    found = onto_ball_and_box(
        tf.constant([[3.0, -2.0]]), tf.constant(2.0), -0.25 * tf.ones([1, 2]), [[0.5, 0.5]]
    )
    np.testing.assert_allclose(found, [[0.5, -0.25]])


def test_huge_points_keep_their_digits():
    """1e30 and as much again: only the order counts, and the first meets the box."""
    delta = tf.constant([[1e30, 1e30, 1.0]])
    high = tf.constant([[0.25, 4.0, 4.0]])
    found = onto_ball_and_box(delta, tf.constant(1.0), -tf.ones([1, 3]), high)
    np.testing.assert_allclose(found, [[0.25, 0.75, 0]])
