"""DDN where the closest boundary is a formula, steps by hand, and its settings."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks import ddn
from tests.attacks.linear_model import (
    WHOLE,
    assert_targets_are_reached,
    ratios,
    two,
)


@pytest.mark.slow
def test_the_closest_boundary_of_a_linear_model():
    """The length goes on changing by 5 %, so the closest example is within that."""
    ball, dual = WHOLE["l2"]
    found = ratios(ddn(ball, 150), dual)
    assert (found >= 1 - 1e-9).all() and (found <= 1.06).all()


def test_steps_by_hand():
    """z = (x_1, x_2) at (0.7, 0.3): the direction is (-1, 1) / sqrt(2) from the first step on. The
    length begins at 0.3 and grows: 0.315 is misclassified (the tie is at 0.2 sqrt(2) = 0.283), then
    0.315 * 0.95 is still so, and closer; without a step, the image is all there is."""
    x, y = tf.constant([[0.7, 0.3]], tf.float64), tf.constant([0])
    for steps, length in ((0, 0.0), (1, 0.315), (2, 0.315 * 0.95), (3, 0.315 * 0.95**2)):
        found = ddn(kr.L2Ball(2.0), steps, initial_norm=0.3)(two, x, y)
        change = length / np.sqrt(2)
        np.testing.assert_allclose(found, [[0.7 - change, 0.3 + change]], rtol=1e-12)


@pytest.mark.slow
def test_a_target_is_reached():
    assert_targets_are_reached(ddn(kr.L2Ball(2.0), 60, targeted=True))


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"ball": kr.LinfBall(0.1)}, TypeError, "DDN is defined in L2; ball is LinfBall"),
        ({"steps": 1.5}, ValueError, "steps is 1.5"),
        ({"gamma": 0.0}, ValueError, "gamma is 0.0"),
        ({"initial_norm": 0.0}, ValueError, "initial_norm is 0.0"),
    ],
)
def test_bad_settings(settings, error, match):
    with pytest.raises(error, match=match):
        ddn(**{"ball": kr.L2Ball(1.0), **settings})
