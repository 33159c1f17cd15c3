"""CROWN-IBP training: the mix of its bounds."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr

BALL = kr.LinfBall(0.1)


def tiny():
    keras.utils.set_random_seed(0)
    return kr.models.mlp((3, 3, 1), 3, hidden=(6, 5))


def worst_of_a_step(defense, x, y, **options):
    model = defense(tiny(), BALL, train_radius=0.1, warmup_steps=0, ramp="linear", **options)
    model.compile("sgd")
    batch = (tf.constant(x), tf.constant(y), None)
    outputs = model.training_loss().gradients(batch, None, tf.constant(6), model.optimizer)[1]
    return outputs["bounds"]["logits"].numpy()


@pytest.mark.parametrize("steps", [4, pytest.param(2, marks=pytest.mark.slow)])
def test_the_margins_are_mixed_on_the_ramp(make_batch, steps):
    """At the first of `steps` steps, beta is `1 - 1 / steps` and the radius `0.1 / steps`."""
    x, y = make_batch(6, (3, 3, 1))
    found = worst_of_a_step(kr.defenses.crown_ibp, x, y, ramp_steps=steps)
    bounds = kr.certification.crown_ibp(kr.LinfBall(0.1 / steps))
    by_lines, by_intervals = bounds.with_ibp(tiny(), x, y)
    assert np.abs(by_lines - by_intervals).max() > 1e-3
    expected = -((1 - 1 / steps) * by_lines + by_intervals / steps)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_after_the_ramp_it_is_ibp(make_batch):
    x, y = make_batch(6, (3, 3, 1))
    found = worst_of_a_step(kr.defenses.crown_ibp, x, y, ramp_steps=1)
    np.testing.assert_array_equal(found, worst_of_a_step(kr.defenses.ibp, x, y, ramp_steps=1))


def test_settings():
    """Validated by the bounds that the last steps train for, and by PGD."""
    model = kr.defenses.crown_ibp(tiny(), BALL, clean_weight=0.0, steps=7, seed=4)
    assert model.bounds == kr.certification.ibp(BALL)
    assert model.validation_attack == kr.attacks.pgd(BALL, steps=7)
    assert model.attack is None and model.regularizer is None and model.seed == 4
    assert model.ramp.radius == pytest.approx(0.11)
