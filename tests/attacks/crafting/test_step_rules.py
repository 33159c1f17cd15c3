"""Single steps on paper."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks.crafting.step_rules import FixedStep, MomentumStep, Point

X = tf.constant([[0.5, 0.5], [0.2, 0.9]], tf.float64)
GRADIENT = tf.constant([[3.0, -4.0], [0.0, 5.0]], tf.float64)


def at(x, gradient):
    return Point(tf.constant(0), x, tf.zeros([2]), gradient)


def test_fixed_linf():
    """+- 0.1 by sign; no gradient, no step; 0.9 + 0.1 ends at the bound."""
    moved, state = FixedStep(0.1).update(kr.LinfBall(1.0), X, at(X, GRADIENT), ())
    np.testing.assert_allclose(moved, [[0.6, 0.4], [0.2, 1.0]])
    assert state == ()


def test_fixed_l2():
    """0.1 (0.6, -0.8)."""
    moved, _ = FixedStep(0.1).update(kr.L2Ball(1.0), X, at(X, GRADIENT), ())
    np.testing.assert_allclose(moved, [[0.56, 0.42], [0.2, 1.0]])


def test_fixed_l1():
    """The largest of two pixels: 0.1 (0, -1)."""
    moved, _ = FixedStep(0.1).update(kr.L1Ball(1.0), X, at(X, GRADIENT), ())
    np.testing.assert_allclose(moved, [[0.5, 0.4], [0.2, 1.0]])


def test_fixed_starts_from_the_point_and_projects_around_the_image():
    """From (0.58, 0.5), 0.1 further is beyond the radius 0.1: (0.6, 0.4)."""
    point = at(tf.constant([[0.58, 0.5], [0.2, 0.9]], tf.float64), GRADIENT)
    moved, _ = FixedStep(0.1).update(kr.LinfBall(0.1), X, point, ())
    np.testing.assert_allclose(moved, [[0.6, 0.4], [0.2, 1.0]])


def test_momentum_by_hand():
    """Gradients are divided by their L1 length: 7 and 5, then 2 and 1.

    v1 = (3/7, -4/7), (0, 1). With decay 1/2, v2 = v1 / 2 + (-1/2, 1/2), (1, 0)
       = (-2/7, 3/14), (1, 1/2). L2 steps of 0.1 go along them.
    """
    rule, ball = MomentumStep(0.1, decay=0.5), kr.L2Ball(9.0, (-9.0, 9.0))
    velocity = rule.init(ball, X)
    np.testing.assert_array_equal(velocity, tf.zeros_like(X))
    x, velocity = rule.update(ball, X, at(X, GRADIENT), velocity)
    np.testing.assert_allclose(velocity, [[3 / 7, -4 / 7], [0, 1]])
    np.testing.assert_allclose(x, [[0.56, 0.42], [0.2, 1.0]])
    second = tf.constant([[-1.0, 1.0], [1.0, 0.0]], tf.float64)
    moved, velocity = rule.update(ball, X, at(x, second), velocity)
    expected = np.array([[-2 / 7, 3 / 14], [1, 1 / 2]])
    np.testing.assert_allclose(velocity, expected)
    length = np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(moved - x, 0.1 * expected / length)


@pytest.mark.parametrize("ball", [kr.LinfBall(0.3), kr.L2Ball(0.3), kr.L1Ball(0.3)])
def test_momentum_without_decay_is_a_fixed_step(ball):
    stale = 7 * tf.ones_like(X)
    moved, _ = MomentumStep(0.1, decay=0).update(ball, X, at(X, GRADIENT), stale)
    fixed, _ = FixedStep(0.1).update(ball, X, at(X, GRADIENT), ())
    np.testing.assert_allclose(moved, fixed)


@pytest.mark.parametrize("ball", [kr.LinfBall(0.3), kr.L2Ball(0.3), kr.L1Ball(0.3)])
@pytest.mark.parametrize("rule", [FixedStep(0.1), MomentumStep(0.1)], ids=repr)
def test_without_a_gradient_nothing_moves(rule, ball):
    moved, _ = rule.update(ball, X, at(X, tf.zeros_like(X)), rule.init(ball, X))
    np.testing.assert_array_equal(moved, X)


def test_momentum_continues_without_a_gradient():
    """v2 = 0.5 v1: the direction of the first step, once more."""
    rule, ball = MomentumStep(0.1, decay=0.5), kr.L2Ball(9.0, (-9.0, 9.0))
    x, velocity = rule.update(ball, X, at(X, GRADIENT), rule.init(ball, X))
    moved, _ = rule.update(ball, X, at(x, tf.zeros_like(X)), velocity)
    np.testing.assert_allclose(moved, X + 2 * (x - X))


@pytest.mark.parametrize("ball", [kr.LinfBall(0.1), kr.L2Ball(0.1), kr.L1Ball(0.1)], ids=repr)
@pytest.mark.parametrize("rule", [FixedStep(1e39), MomentumStep(1e39)], ids=repr)
def test_a_step_beyond_the_largest_number(rule, ball):
    """With a gradient of 0, an infinite step would be NaN."""
    x = tf.constant([[0.5, 0.5]])
    moved, _ = rule.update(ball, x, at(x, tf.constant([[0.0, 1.0]])), rule.init(ball, x))
    np.testing.assert_allclose(moved, [[0.5, 0.6]])


def test_momentum_that_explodes():
    """v -> 1e30 v is infinite after two steps; its direction is still (1, -1) / sqrt(2)."""
    rule, ball = MomentumStep(0.1, decay=1e30), kr.L2Ball(9.0, (-9.0, 9.0))
    x = tf.zeros([1, 2])
    velocity = rule.init(ball, x)
    for _ in range(4):
        before = x
        x, velocity = rule.update(ball, x, at(x, tf.constant([[1.0, -1.0]])), velocity)
    np.testing.assert_allclose(x - before, [[0.05**0.5 * 0.1**0.5, -(0.05**0.5) * 0.1**0.5]], 1e-5)


def test_momentum_of_huge_gradients():
    """|g|_1 = 4e38 is infinite in float32; g / |g|_1 is (1/2, -1/2)."""
    x = tf.zeros([1, 2])
    rule = MomentumStep(0.1)
    ball = kr.LinfBall(1.0, (-1.0, 1.0))
    _, velocity = rule.update(ball, x, at(x, tf.constant([[2e38, -2e38]])), rule.init(ball, x))
    np.testing.assert_allclose(velocity, [[0.5, -0.5]])


@pytest.mark.parametrize("kind", [FixedStep, MomentumStep])
def test_size_may_be_zero_or_a_tensor(kind):
    for size in (0, 0.0, tf.constant(0.0), tf.constant(0.0, tf.float64)):
        rule = kind(size)
        moved, _ = rule.update(kr.LinfBall(0.3), X, at(X, GRADIENT), rule.init(None, X))
        np.testing.assert_array_equal(moved, X)


@pytest.mark.parametrize("kind", [FixedStep, MomentumStep])
@pytest.mark.parametrize("size", [-0.1, math.inf, math.nan, np.float32(-1), np.float32("nan")])
def test_size_is_refused(kind, size):
    with pytest.raises(ValueError, match=rf"{kind.__name__}: step size is .*>= 0"):
        kind(size)


@pytest.mark.parametrize("decay", [-0.1, math.inf, math.nan])
def test_decay_is_refused(decay):
    with pytest.raises(ValueError, match=r"MomentumStep: decay is .*>= 0"):
        MomentumStep(0.1, decay)
