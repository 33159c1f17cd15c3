"""PDPGD where the closest boundary is a formula, a step by hand, and its settings."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks import pdpgd
from tests.attacks.linear_model import (
    WHOLE,
    assert_targets_are_reached,
    ratios,
    two,
)


@pytest.mark.slow
@pytest.mark.parametrize("norm", WHOLE)
def test_the_closest_boundary_of_a_linear_model(norm):
    ball, dual = WHOLE[norm]
    found = ratios(pdpgd(ball, 200), dual)
    assert (found >= 1 - 1e-9).all() and (found <= 1.02).all()


def test_a_step_by_hand():
    """z = (x_1, x_2) at (0.7, 0.3) in L1. Adam's first step is the rate, 0.25, in the sign of the
    gradient, to (0.45, 0.55). Both entries of the gradient are s = sigmoid(0.4), so the metric is
    the identity and the shrinkage 0.25 / s times the ratio of the weights, here 0.01."""
    x, y = tf.constant([[0.7, 0.3]], tf.float64), tf.constant([0])
    found = pdpgd(kr.L1Ball(2.0), 1, learning_rate=0.25)(two, x, y)
    change = 0.25 - 0.01 * 0.25 * (1 + np.exp(-0.4))
    np.testing.assert_allclose(found, [[0.7 - change, 0.3 + change]], rtol=1e-6)


@pytest.mark.slow
def test_a_target_is_reached():
    assert_targets_are_reached(pdpgd(kr.L2Ball(2.0), 60, targeted=True))


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"ball": 0.5}, TypeError, "expected a threat model"),
        ({"steps": -1}, ValueError, "steps is -1"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate is 0.0"),
        ({"initial_ratio": 2.0}, ValueError, "initial_ratio is 2.0"),
        ({"dual_learning_rate": 0.0}, ValueError, "dual_learning_rate is 0.0"),
        ({"dual_momentum": 1.0}, ValueError, "dual_momentum is 1.0"),
    ],
)
def test_bad_settings(settings, error, match):
    with pytest.raises(error, match=match):
        pdpgd(**{"ball": kr.L2Ball(1.0), **settings})
