"""Adversarial training of an ensemble."""

from __future__ import annotations

import pytest

import keras_robust as kr

BALL = kr.LinfBall(0.1)


@pytest.fixture
def ensemble(make_classifier):
    return kr.models.ensemble([make_classifier(seed=seed) for seed in range(2)])


def cross_entropy(log_p, y):
    """The mean over the batch, summed over the members."""
    return -log_p[:, range(len(y)), y].sum(axis=0).mean()


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_one_step(one_step_of_two, weight):
    """sum_n CE(f_n(x_adv)) + weight * CE(f_n(x)), x_adv crafted on the mean probability."""
    one_step_of_two(
        lambda c: kr.defenses.ensemble_at(c, BALL, clean_weight=weight, steps=3),
        lambda clean, sources, y: {
            "adversarial": cross_entropy(sources[0], y),
            "clean": weight * cross_entropy(clean, y),
        },
    )


def test_settings(ensemble):
    model = kr.defenses.ensemble_at(ensemble, BALL, steps=40, step_size=0.01, seed=5)
    assert model.attack == model.validation_attack == kr.attacks.pgd(BALL, 40, 0.01)
    assert model.seed == 5
    without = kr.defenses.ensemble_at(ensemble, BALL, clean_weight=0)
    assert without.robust_loss.required_outputs == {"adversarial"}


def test_refused(ensemble, tiny_classifier):
    with pytest.raises(ValueError, match="clean_weight is -1"):
        kr.defenses.ensemble_at(ensemble, BALL, clean_weight=-1)
    for classifier in (tiny_classifier, "a name", None):
        with pytest.raises(TypeError, match=r"ensemble_at: the classifier is .*models.ensemble"):
            kr.defenses.ensemble_at(classifier, BALL)
