"""PGD-AT."""

from __future__ import annotations

import pytest

import keras_robust as kr

BALL = kr.LinfBall(0.1)


def test_one_step(one_step, of_label):
    """CE(x_adv)."""
    one_step(
        lambda classifier: kr.defenses.pgd_at(classifier, BALL, steps=3),
        lambda _, moved, y: {"adversarial": -of_label(moved, y).mean()},
    )


@pytest.mark.parametrize("ball", [kr.L2Ball(0.3), kr.L1Ball(0.5)])
def test_one_step_with_a_clean_term(one_step, of_label, ball):
    """CE(x_adv) + 1/2 CE(x)."""
    one_step(
        lambda classifier: kr.defenses.pgd_at(classifier, ball, clean_weight=0.5, steps=3),
        lambda clean, moved, y: {
            "adversarial": -of_label(moved, y).mean(),
            "clean": -0.5 * of_label(clean, y).mean(),
        },
    )


def test_settings(tiny_classifier):
    model = kr.defenses.pgd_at(tiny_classifier, BALL, steps=40, step_size=0.01, seed=5)
    assert model.attack == model.validation_attack == kr.attacks.pgd(BALL, 40, 0.01)
    assert model.robust_loss == kr.losses.Adversarial() and model.seed == 5


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"clean_weight": -1}, "clean_weight is -1"),
        ({"steps": -1}, "steps is -1"),
        ({"step_size": 0}, "step_size is 0"),
        ({"seed": 0.5}, "seed is 0.5"),
    ],
)
def test_refused(tiny_classifier, settings, match):
    with pytest.raises(ValueError, match=match):
        kr.defenses.pgd_at(tiny_classifier, BALL, **settings)
