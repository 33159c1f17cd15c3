"""Adversarial training in a union of balls."""

from __future__ import annotations

import numpy as np
import pytest

import keras_robust as kr

BALL = kr.UnionBall((kr.LinfBall(0.2), kr.L2Ball(0.3), kr.L1Ball(0.5)))


def test_a_step_is_that_of_the_base_on_images_of_the_union(one_step, of_label):
    model = one_step(
        lambda c: kr.defenses.union(c, BALL, base="pgd_at", clean_weight=0.5, steps=2),
        lambda log_p, log_q, y: {
            "adversarial": -of_label(log_q, y).mean(),
            "clean": -0.5 * of_label(log_p, y).mean(),
        },
    )
    assert model.attack.name == "MSD-2" and model.attack.ball == BALL


@pytest.mark.parametrize("strategy", ["msd", "max", "average"])
def test_the_attack_keeps_what_the_base_sets(tiny_classifier, strategy):
    trades = kr.defenses.trades(tiny_classifier, BALL, steps=3, step_size=0.2)
    model = kr.defenses.union(
        tiny_classifier, BALL, base=kr.defenses.trades, strategy=strategy, steps=3, step_size=0.2
    )
    for name in ("objective", "initialization", "steps", "step_rule"):
        assert getattr(model.attack, name) == getattr(trades.attack, name)
    assert model.attack.strategy == strategy and model.robust_loss == trades.robust_loss
    assert model.validation_attack.strategy == "max"  # on the cross-entropy, in each ball
    assert model.validation_attack.objective == trades.validation_attack.objective


def test_a_validation_attack_of_your_own_stays(tiny_classifier):
    own = kr.attacks.in_each_ball(kr.attacks.mim, BALL, steps=2)
    model = kr.defenses.union(tiny_classifier, BALL, base="pgd_at", validation_attack=own)
    assert model.validation_attack == own


def test_what_is_refused(tiny_classifier):
    with pytest.raises(TypeError, match="union: ball is LinfBall"):
        kr.defenses.union(tiny_classifier, kr.LinfBall(0.1), base="pgd_at")
    with pytest.raises(ValueError, match="union over wrm: The attack .* fixed steps"):
        kr.defenses.union(tiny_classifier, BALL, base="wrm")
    with pytest.raises(ValueError, match="the base 'free' has a way of its own to craft"):
        kr.defenses.union(tiny_classifier, BALL, base="free")
    with pytest.raises(ValueError, match="strategy is 'worst'"):
        kr.defenses.union(tiny_classifier, BALL, base="pgd_at", strategy="worst")


@pytest.mark.parametrize(
    "ball",
    [kr.L1Ball(1.0), pytest.param(kr.L2Ball(0.5), marks=pytest.mark.slow)],
    ids=["l1", "l2"],
)
def test_pgd_at_in_another_norm(one_step, of_label, make_batch, ball):
    model = one_step(
        lambda c: kr.defenses.pgd_at(c, ball, steps=2),
        lambda log_p, log_q, y: {"adversarial": -of_label(log_q, y).mean()},
    )
    x, y = make_batch(6, (4, 1, 1))
    distance = ball.distance(model.craft(x, y), x).numpy()
    assert 0 < np.min(distance) <= np.max(distance) <= ball.radius * (1 + 1e-5)
