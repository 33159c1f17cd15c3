"""TRADES."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.defenses.trades import Trades

BALL = kr.LinfBall(0.1)


def test_one_step(one_step, of_label, kl):
    """CE(x) + 6 KL(p(x) || p(x_adv)), both predictions moving with the weights."""
    one_step(
        lambda classifier: kr.defenses.trades(classifier, BALL, beta=6.0, steps=3),
        lambda clean, moved, y: {
            "clean": -of_label(clean, y).mean(),
            "divergence": 6 * kl(clean, moved).mean(),
        },
    )


def test_the_attack_maximizes_the_divergence_of_the_loss(tiny_classifier, tiny_batch):
    """More steps of it make more KL from the clean prediction, and no label changes them."""
    x, y = tiny_batch
    clean = tiny_classifier(x)["logits"]
    reached = []
    for steps in (0, 1, 8):
        attack = kr.defenses.trades(tiny_classifier, BALL, steps=steps, step_size=0.02).attack
        x_adv = attack(tiny_classifier, x, y)
        np.testing.assert_array_equal(x_adv, attack(tiny_classifier, x, (y + 1) % 3))
        divergence = kr.losses.kl_divergence(clean, tiny_classifier(x_adv)["logits"])
        reached.append(float(tf.reduce_mean(divergence)))
    assert reached[0] < 1e-4 < reached[1] < reached[2]


def test_settings(tiny_classifier):
    """Crafted on the KL from a small Gaussian start; validated like the other defenses."""
    model = kr.defenses.trades(tiny_classifier, BALL, beta=1.0, steps=40, step_size=0.01, seed=5)
    assert model.attack == kr.attacks.pgd(BALL, 40, 0.01, loss="kl", initialization="gaussian")
    assert model.validation_attack == kr.attacks.pgd(BALL, 40, 0.01)
    assert model.robust_loss == Trades(1.0) and model.seed == 5


def test_without_beta_it_is_plain_training(tiny_classifier, tiny_batch):
    outputs = tiny_classifier(tiny_batch[0])
    terms = Trades(0.0)(tf.constant(tiny_batch[1]), {"logits": -outputs["logits"]}, outputs)
    assert not terms["divergence"].numpy().any()


@pytest.mark.parametrize("beta", [-1, math.nan, math.inf, "6"])
def test_beta_is_refused(tiny_classifier, beta):
    with pytest.raises(ValueError, match=r"Trades: beta is .*finite number >= 0"):
        kr.defenses.trades(tiny_classifier, BALL, beta=beta)
