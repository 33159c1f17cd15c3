"""MART."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.defenses.mart import Mart

BALL = kr.LinfBall(0.1)


def boosted(log_p, y):
    """-log p_y - log(1.0001 - max_{k != y} p_k + 1e-12)."""
    others = np.exp(log_p)
    others[np.arange(len(y)), y] = 0
    return -log_p[np.arange(len(y)), y] - np.log(1.0001 - others.max(axis=1) + 1e-12)


@pytest.mark.parametrize("boosted_on", ["adversarial", "clean"])
def test_one_step(one_step, of_label, kl, boosted_on):
    """BCE + 5 KL(p(x) || p(x_adv)) (1 - p_y(x)); the gradient flows through all of it."""
    one_step(
        lambda classifier: kr.defenses.mart(
            classifier, BALL, beta=5.0, boosted_on=boosted_on, steps=3
        ),
        lambda clean, moved, y: {
            "boosted": boosted(moved if boosted_on == "adversarial" else clean, y).mean(),
            "divergence": 5 * (kl(clean, moved) * (1 - np.exp(of_label(clean, y)))).mean(),
        },
    )


def test_by_hand():
    """p(x) = (3/4, 1/4), p(x_adv) = (1/2, 1/2), label 0.

    BCE = log 2 - log(1 - 1/2) = 2 log 2, but for the offset; KL = 3/4 log 3/2 + 1/4 log 1/2;
    1 - p_y = 1/4.
    """
    clean, moved = ({"logits": tf.math.log([p])} for p in ([0.75, 0.25], [0.5, 0.5]))
    terms = Mart(beta=4.0)(tf.constant([0]), moved, clean)
    np.testing.assert_allclose(terms["boosted"], [2 * math.log(2)], atol=2e-4 + 1e-6)
    divergence = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    np.testing.assert_allclose(terms["divergence"], [divergence], rtol=1e-5)


def test_the_divergence_weighs_little_where_the_prediction_is_sure():
    """With logits 8 apart, 1 - p_y = 1 / (1 + e^8), about 0.0003."""
    clean, moved = {"logits": tf.constant([[8.0, 0.0]])}, {"logits": tf.constant([[0.0, 8.0]])}
    weighted = Mart(beta=1.0)(tf.constant([0]), moved, clean)["divergence"]
    plain = kr.losses.kl_divergence(clean["logits"], moved["logits"])
    np.testing.assert_allclose(weighted / plain, [1 / (1 + math.exp(8))], rtol=1e-3)


def test_settings(tiny_classifier):
    model = kr.defenses.mart(tiny_classifier, BALL, beta=1.0, steps=40, step_size=0.01, seed=5)
    assert model.attack == kr.attacks.pgd(BALL, 40, 0.01, initialization="gaussian")
    assert model.validation_attack == kr.attacks.pgd(BALL, 40, 0.01)
    assert model.robust_loss == Mart(1.0, "adversarial") and model.seed == 5


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"beta": -1}, r"Mart: beta is -1; expected a finite number >= 0"),
        ({"boosted_on": "both"}, r"boosted_on is 'both'; expected one of 'adversarial', 'clean'"),
    ],
)
def test_refused(tiny_classifier, settings, match):
    with pytest.raises(ValueError, match=match):
        kr.defenses.mart(tiny_classifier, BALL, **settings)
