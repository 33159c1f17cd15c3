"""Plain training."""

from __future__ import annotations

import keras_robust as kr


def test_one_step(one_step, of_label):
    """CE(x)."""
    one_step(
        kr.defenses.standard,
        lambda clean, _, y: {"clean": -of_label(clean, y).mean()},
    )


def test_a_ball_is_for_validation_alone(one_step, of_label):
    model = one_step(
        lambda classifier: kr.defenses.standard(classifier, kr.LinfBall(0.1), steps=7, seed=3),
        lambda clean, _, y: {"clean": -of_label(clean, y).mean()},
    )
    assert model.attack is None and model.seed == 3
    assert model.validation_attack == kr.attacks.pgd(kr.LinfBall(0.1), steps=7)


def test_without_a_ball_nothing_is_attacked(tiny_classifier, tiny_batch):
    model = kr.defenses.standard(tiny_classifier)
    model.compile("sgd", run_eagerly=True)
    logs = model.evaluate(*tiny_batch, verbose=0, return_dict=True)
    assert set(logs) == {"loss", "clean", "accuracy"}
