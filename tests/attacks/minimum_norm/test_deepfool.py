"""DeepFool where the closest boundary is a formula, and its settings."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks import deepfool
from tests.attacks.linear_model import WHOLE, images, in_default_run, linear, ratios


@pytest.mark.parametrize("norm", in_default_run("l2"))
def test_the_closest_boundary_of_a_linear_model(norm):
    """One step is enough, and leads 5 % beyond it."""
    ball, dual = WHOLE[norm]
    np.testing.assert_allclose(ratios(deepfool(ball, 1, overshoot=0.05), dual), 1.05, rtol=1e-9)


def quadratic(x):
    """The boundary is the circle of radius 1 around 0."""
    square = tf.reduce_sum(x**2, axis=1)
    return {"logits": tf.stack([tf.ones_like(square), square], axis=1)}


def test_newton_steps_by_hand():
    """z_2 - z_1 = |x|^2 - 1 at (0.5, 0): Newton's step 0.75 leads to 1.25, beyond the circle. From
    (2, 0) of the other class, steps of 0.75, 0.225 and so on end at 1, where the logits are tied
    and the first class is predicted; the image stays where it is first misclassified."""
    ball = kr.L2Ball(9.0, (-3.0, 3.0))
    x = tf.constant([[0.5, 0.0], [2.0, 0.0]], tf.float64)
    y = tf.constant([0, 1])
    found = deepfool(ball, 9, overshoot=0.0)(quadratic, x, y)
    np.testing.assert_allclose(found[0], [1.25, 0.0])
    np.testing.assert_allclose(found[1], [1.0, 0.0])
    point, beyond = 2.0, 0.02
    while point >= 1:  # 1.02 times the sum of the steps, each from where that leads
        total = (2.0 - point) / (1 + beyond) + (point**2 - 1) / (2 * point)
        point = 2.0 - (1 + beyond) * total
    found = deepfool(ball, 20, overshoot=beyond)(quadratic, x, y)
    np.testing.assert_allclose(found[1], [point, 0.0])


def test_it_stops_when_all_are_misclassified():
    calls = []

    def counted(x):
        calls.append(1)
        return linear(x)

    x, y = images(3)
    deepfool(kr.L2Ball(2.0), 50)(counted, x, y)
    assert len(calls) == 3  # the images, a linearization, and the result


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"ball": 0.5}, TypeError, "expected a threat model"),
        ({"steps": -1}, ValueError, "steps is -1"),
        ({"overshoot": -0.1}, ValueError, "overshoot is -0.1"),
    ],
)
def test_bad_settings(settings, error, match):
    with pytest.raises(error, match=match):
        deepfool(**{"ball": kr.L2Ball(1.0), **settings})


def test_it_takes_no_targets():
    x, y = images(2)
    with pytest.raises(ValueError, match="called with targets"):
        deepfool(kr.L2Ball(1.0), 2)(linear, x, y, targets=y)
