"""Step rules with a penalty instead of a projection, on paper and at random."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given

import keras_robust as kr
from keras_robust.attacks.crafting.step_rules import (
    FixedStep,
    PenalizedStep,
    Point,
    SoftBallStep,
)

BALL = kr.LinfBall(0.25)


def at(x, gradient, index=0):
    return Point(tf.constant(index), *(tf.constant(v, tf.float64) for v in (x, 0.0, gradient)))


def moved(rule, x, now, gradient, ball=BALL, index=0):
    return rule.update(ball, tf.constant(x, tf.float64), at(now, gradient, index), ())[0].numpy()


def test_elementwise():
    """0.5 + 0.2 + 0.1 is 0.05 outside, of which 1 * 0.1 / 0.2 goes; the other pixel is inside."""
    found = moved(SoftBallStep(0.1), [[0.5, 0.5]], [[0.7, 0.5]], [[1.0, -1.0]])
    np.testing.assert_allclose(found, [[0.775, 0.4]])


def test_without_a_multiplier_only_the_bounds_hold():
    found = moved(SoftBallStep(0.4, 0.0), [[0.5, 0.5]], [[0.9, 0.1]], [[1.0, -1.0]])
    np.testing.assert_allclose(found, [[1.0, 0.0]])


@pytest.mark.parametrize(
    ("penalty", "expected"),
    [
        # delta (0.3, 0.1): the mean 0.2 is inside, so 0.1 * 1 * (1/2, 1/2) goes.
        ("l1", [0.75, 0.55]),
        # Half the squared length, 0.05, is inside: 0.1 * delta goes.
        ("l2", [0.77, 0.59]),
        # The largest, 0.3, is outside: 0.1 / 0.2 of one goes from it.
        ("linf", [0.3, 0.6]),
    ],
)
def test_along_the_gradient_of_a_cost(penalty, expected):
    rule = SoftBallStep(0.1, 1.0, penalty=penalty)
    found = moved(rule, [[0.5, 0.5]], [[0.7, 0.5]], [[1.0, 1.0]])
    np.testing.assert_allclose(found, [expected])


PIXELS = st.lists(st.floats(0, 1), min_size=12, max_size=12)
GRADIENTS = st.lists(st.floats(-5, 5), min_size=12, max_size=12)


@given(PIXELS, PIXELS, GRADIENTS, st.floats(0.01, 0.5))
def test_with_a_temperature_of_one_step_it_is_the_projection(x, now, gradient, size):
    now = BALL.project(tf.constant([now], tf.float64), tf.constant([x], tf.float64)).numpy()
    soft = moved(SoftBallStep(size, 1.0, tau=size), [x], now, [gradient])
    hard = moved(FixedStep(size), [x], now, [gradient])
    np.testing.assert_allclose(soft, hard, atol=1e-12)


@given(
    PIXELS, PIXELS, GRADIENTS, st.floats(0.01, 0.5), st.floats(0, 5), st.floats(0, 5),
    st.floats(0.01, 2),
)  # fmt: skip
def test_a_larger_multiplier_never_goes_further_out(x, now, gradient, size, one, other, tau):
    less, more = sorted((one, other))
    far, near = (
        np.abs(moved(SoftBallStep(size, by, tau=tau), [x], [now], [gradient]) - x)
        for by in (less, more)
    )
    assert np.all(near <= far + 1e-12)


def test_a_penalized_step():
    """0.6 + 0.1 / sqrt(4) (2 - 3 * 0.1), and a pixel at the bound stays there."""
    rule = PenalizedStep(0.1, 3.0)
    found = moved(rule, [[0.5, 1.0]], [[0.6, 1.0]], [[2.0, 5.0]], index=3)
    np.testing.assert_allclose(found, [[0.6 + 0.05 * 1.7, 1.0]])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": -0.1}, "step size is -0.1"),
        ({"size": 0.1, "multiplier": -1.0}, "multiplier is -1.0"),
        ({"size": 0.1, "tau": 0.0}, "tau is 0.0; expected a finite number > 0"),
        ({"size": 0.1, "tau": float("nan")}, "tau is nan"),
        ({"size": 0.1, "penalty": "l3"}, "penalty is 'l3'; expected one of 'elementwise', 'l1'"),
    ],
)
def test_invalid_soft_ball_steps(settings, message):
    with pytest.raises(ValueError, match=message):
        SoftBallStep(**settings)


@pytest.mark.parametrize("name", ["size", "multiplier", "decay"])
def test_invalid_penalized_steps(name):
    with pytest.raises(ValueError, match=f"{name} is -1.0"):
        PenalizedStep(**{"size": 0.1, "multiplier": 1.0, name: -1.0})


@pytest.mark.parametrize("width", [1.0, 255.0])
def test_a_push_by_the_gradient_is_as_long_as_the_gradient(width):
    """In any units of the images: with pixels in [0, 255] a gradient is 1 / 255 as large."""
    ball = kr.LinfBall(0.1 * width, (0.0, width))
    x = tf.fill([1, 2], width / 2)
    point = Point(tf.constant(0), x, None, tf.constant([[0.5, -0.25]]) / width)
    rule = SoftBallStep(0.1 * width, push="gradient")
    moved, _ = rule.update(ball, x, point, ())
    np.testing.assert_allclose((moved - x) / width, [[0.05, -0.025]], rtol=1e-4)


def test_the_pixelwise_penalty_is_steep_outside_the_radius_alone():
    """Back by `multiplier * size` of the change, over `tau` of the pixel outside."""
    ball = kr.LinfBall(0.1)
    rule = SoftBallStep(0.05, multiplier=0.5, penalty="pixelwise", tau=0.1)
    delta = tf.constant([[0.08, -0.2]])
    expected = [[0.5 * 0.05 * 0.08, 0.5 * 0.05 / 0.1 * -0.2]]
    np.testing.assert_allclose(rule.pull(ball, tf.zeros([1, 2]), delta), expected, rtol=1e-6)


@pytest.mark.parametrize("option", ["penalty", "push"])
def test_unknown_penalties_and_pushes(option):
    with pytest.raises(ValueError, match=f"{option} is 'sign'; expected one of"):
        SoftBallStep(0.1, **{option: "sign"})
