"""Sizes of perturbations."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr


def linear(x):
    return {"logits": x}


def test_sizes_on_paper():
    """Three images of two pixels; label 0, so that the first pixel falls and the second rises.

    By 0.1 where there is room: 0.1 and 0.1; 0.04 and 0.1; 0.1 and 0.095.
    """
    x = np.array([[0.5, 0.5], [0.04, 0.5], [0.5, 0.905]], "float32")
    attack = kr.attacks.fgsm(kr.LinfBall(0.1))
    found = kr.evaluation.perturbations(linear, (x, [0, 0, 0]), attack)
    assert found.l1 == pytest.approx((0.1 + 0.07 + 0.0975) / 3, rel=1e-5)
    assert found.linf == pytest.approx(0.1, rel=1e-5)
    assert found.within == pytest.approx((1 / 6, 1, 1))
    assert found.samples == 3


def test_those_of_a_soft_ball_go_beyond_it(tiny_classifier, tiny_batch):
    """Lambda 0.5 at tau of two steps draws a quarter of what is outside back: three steps out."""
    ball = kr.LinfBall(0.1)
    model = kr.defenses.udr(
        tiny_classifier,
        ball,
        base=kr.defenses.pgd_at,
        steps=40,
        step_size=0.01,
        dual=kr.DualVariable(initial_value=0.5),
    )
    x, y = 0.3 + 0.4 * tiny_batch[0], tiny_batch[1]
    attack = model.training_attack(tf.float32)
    soft = kr.evaluation.perturbations(model, (x, y), attack)
    hard = kr.evaluation.perturbations(model, (x, y), model.validation_attack)
    assert hard.linf == pytest.approx(0.1, rel=1e-4) and hard.within[1] == 1.0
    assert soft.linf == pytest.approx(0.13, abs=0.003) and soft.within[1] < 0.5


def test_it_takes_a_limit_and_refuses_what_is_no_attack(tiny_classifier, tiny_batch):
    attack = kr.attacks.fgsm(kr.LinfBall(0.1))
    assert kr.evaluation.perturbations(tiny_classifier, tiny_batch, attack, limit=3).samples == 3
    with pytest.raises(TypeError, match="attack is"):
        kr.evaluation.perturbations(tiny_classifier, tiny_batch, kr.LinfBall(0.1))
