"""EAD where the closest boundary is a formula, a step by hand, and its settings."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks import ead
from tests.attacks.linear_model import (
    WHOLE,
    assert_targets_are_reached,
    ratios,
    two,
)


@pytest.mark.slow
def test_the_closest_boundary_of_a_linear_model():
    """In L1, with a binary search of the constant."""
    ball, dual = WHOLE["l1"]
    found = ratios(ead(ball, 60, binary_search_steps=5, initial_const=0.05), dual)
    assert (found >= 1 - 1e-9).all() and (found <= 1.05).all()


def test_a_step_by_hand():
    """z = (x_1, x_2) at (0.7, 0.3), c = 30: the first step is 0.01 c = 0.3 along (-1, 1), shortened
    by beta, 0.05."""
    x, y = tf.constant([[0.7, 0.3]], tf.float64), tf.constant([0])
    attack = ead(kr.L1Ball(2.0), 1, beta=0.05, initial_const=30.0, binary_search_steps=1)
    np.testing.assert_allclose(attack(two, x, y), [[0.45, 0.55]], rtol=1e-12)


def test_small_changes_stay_zero():
    """With c = 4 the first step is 0.04, which a beta of 0.05 takes back: no example."""
    x, y = tf.constant([[0.7, 0.3]], tf.float64), tf.constant([0])
    attack = ead(kr.L1Ball(2.0), 3, beta=0.05, initial_const=4.0, binary_search_steps=1)
    np.testing.assert_array_equal(attack(two, x, y), x)


@pytest.mark.slow
def test_a_target_is_reached():
    attack = ead(kr.L1Ball(4.0), 60, initial_const=10.0, binary_search_steps=1, targeted=True)
    assert_targets_are_reached(attack)


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"ball": 0.5}, TypeError, "expected a threat model"),
        ({"steps": -1}, ValueError, "steps is -1"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate is 0.0"),
        ({"beta": -1.0}, ValueError, "beta is -1.0"),
        ({"initial_const": 0.0}, ValueError, "initial_const is 0.0"),
        ({"binary_search_steps": 0}, ValueError, "binary_search_steps is 0"),
        ({"confidence": -1.0}, ValueError, "confidence is -1.0"),
    ],
)
def test_bad_settings(settings, error, match):
    with pytest.raises(error, match=match):
        ead(**{"ball": kr.L1Ball(1.0), **settings})
