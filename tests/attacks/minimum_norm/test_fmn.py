"""FMN where the closest boundary is a formula, a step by hand, and its settings."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks import fmn
from tests.attacks.linear_model import (
    FEWEST,
    SPARSE_IMAGES,
    WHOLE,
    distances,
    images,
    in_default_run,
    linear,
    ratios,
    sparse,
    two,
)


@pytest.mark.parametrize("norm", in_default_run("linf"))
def test_the_closest_boundary_of_a_linear_model(norm):
    ball, dual = WHOLE[norm]
    found = ratios(fmn(ball, 100), dual)
    assert (found >= 1 - 1e-9).all() and (found <= 1.005).all()


def test_the_fewest_pixels_of_a_linear_model():
    ball = kr.L0Ball(4, bounds=(-1.0, 1.0))
    x_adv = fmn(ball, 60).compiled(sparse)(SPARSE_IMAGES, tf.zeros([3], tf.int32))
    np.testing.assert_array_equal(ball.distance(x_adv, SPARSE_IMAGES), FEWEST)


@pytest.mark.slow
def test_a_target_is_reached():
    x, y = images(4)
    targets = (y + 2) % 3
    x_adv = fmn(kr.L2Ball(2.0), 60, targeted=True).compiled(linear)(x, y, targets=targets)
    np.testing.assert_array_equal(tf.argmax(linear(x_adv)["logits"], axis=1), targets)
    aimed = distances(x, y, 2)[np.arange(4), targets]
    assert (kr.L2Ball(2.0).distance(x_adv, x).numpy() >= aimed * (1 - 1e-9)).all()


def test_a_step_by_hand():
    """z = (x_1, x_2) at (0.7, 0.3) in L2: the boundary is 0.4 / sqrt(2) away, and the first radius
    1.05 times that; the step of 1 is longer, so that it ends at 1.05 * 0.2 per pixel."""
    x, y = tf.constant([[0.7, 0.3]], tf.float64), tf.constant([0])
    found = fmn(kr.L2Ball(2.0), 1)(two, x, y)
    np.testing.assert_allclose(found, [[0.49, 0.51]], rtol=1e-12)


def test_the_radius_shrinks_and_grows_by_hand():
    """After (0.49, 0.51), gamma is half of 0.05 + 0.001: the radius shrinks to 1.05 * 0.2 * 0.9745
    per pixel, still misclassified."""
    x, y = tf.constant([[0.7, 0.3]], tf.float64), tf.constant([0])
    found = fmn(kr.L2Ball(2.0), 2)(two, x, y)
    change = 1.05 * 0.2 * (1 - 0.0255)
    np.testing.assert_allclose(found, [[0.7 - change, 0.3 + change]], rtol=1e-12)


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"ball": 0.5}, TypeError, "expected a threat model"),
        ({"steps": -1}, ValueError, "steps is -1"),
        ({"alpha": 0.0}, ValueError, "alpha is 0.0"),
        ({"gamma": 1.0}, ValueError, "gamma is 1.0"),
        ({"gamma_final": -0.1}, ValueError, "gamma_final is -0.1"),
    ],
)
def test_bad_settings(settings, error, match):
    with pytest.raises(error, match=match):
        fmn(**{"ball": kr.L2Ball(1.0), **settings})


def test_targets_are_for_targeted_attacks():
    x, y = images(2)
    with pytest.raises(ValueError, match="called without targets"):
        fmn(kr.L2Ball(1.0), 2, targeted=True)(linear, x, y)
    with pytest.raises(ValueError, match="called with targets"):
        fmn(kr.L2Ball(1.0), 2)(linear, x, y, targets=y)
