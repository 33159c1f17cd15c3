"""ADP; its formula is in the golden tests."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.defenses.adp import log_det_diversity

BALL = kr.LinfBall(0.1)


@pytest.fixture
def ensemble(make_classifier):
    return kr.models.ensemble([make_classifier(seed=seed) for seed in range(2)])


def on_paper(alpha, beta):
    """The terms, the determinant of two members written out: `(1 + o)^2 - cos^2`."""

    def entropy(log_p):
        p = np.exp(log_p).mean(axis=0)
        return -(p * np.log(p)).sum(axis=-1)

    def diversity(log_p, y):
        wrong = np.exp(log_p).copy()
        wrong[:, range(len(y)), y] = 0
        first, second = wrong / np.linalg.norm(wrong, axis=-1, keepdims=True)
        return np.log((1 + 1e-6) ** 2 - (first * second).sum(axis=-1) ** 2)

    def terms(clean, sources, y):
        both = (clean, sources[0])
        easy, hard = (-z[:, range(len(y)), y].sum(axis=0).mean() for z in both)
        return {
            "clean": easy,
            "adversarial": hard,
            "entropy": -alpha * sum(entropy(z).mean() for z in both),
            "diversity": -beta * sum(diversity(z, y).mean() for z in both),
        }

    return terms


def test_one_step(one_step_of_two):
    one_step_of_two(lambda c: kr.defenses.adp(c, BALL, steps=3), on_paper(2.0, 0.5))


def test_diversity_of_right_angles_and_of_agreement():
    """Orthogonal predictions: det = (1 + 1e-6)^2; equal ones: det = (1 + 1e-6)^2 - 1 = 2e-6."""
    apart = tf.constant([[[9.0, 40.0, -40.0], [9.0, -40.0, 40.0]]])
    alike = tf.constant([[[9.0, 1.0, -1.0], [0.0, 1.0, -1.0]]])
    y = tf.constant([0])
    assert float(log_det_diversity(apart, y)[0]) == pytest.approx(2e-6, abs=1e-6)
    assert float(log_det_diversity(alike, y)[0]) == pytest.approx(math.log(2e-6), abs=1e-3)


def test_sure_members_that_agree_have_a_finite_gradient():
    """In float32 the determinant of eight equal rows would be less than nothing."""
    z = tf.tile(tf.constant([[[80.0, *range(9)]]]), [1, 8, 1])
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = log_det_diversity(z, tf.constant([0]))
    assert np.isfinite(value).all() and np.isfinite(tape.gradient(value, z)).all()


def test_weights_of_zero_leave_terms_out(ensemble):
    assert kr.defenses.adp(ensemble, BALL, beta=0.0).robust_loss.term_names[2:] == ("entropy",)
    assert kr.defenses.adp(ensemble, BALL, alpha=0.0).robust_loss.term_names[2:] == ("diversity",)


def test_refused(ensemble, make_classifier):
    for name in ("alpha", "beta"):
        with pytest.raises(ValueError, match=f"{name} is -1"):
            kr.defenses.adp(ensemble, BALL, **{name: -1})
    with pytest.raises(TypeError, match="adp: the classifier"):
        kr.defenses.adp(make_classifier(), BALL)
    three = kr.models.ensemble([make_classifier(seed=seed) for seed in range(3)])
    with pytest.raises(ValueError, match="3 members and 3 classes"):
        kr.defenses.adp(three, BALL)
    assert kr.defenses.adp(three, BALL, beta=0.0)
