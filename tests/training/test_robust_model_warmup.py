"""The radius of the training attack grows from 0 to its own, as a function of the step number."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import keras_robust as kr

BALL = kr.LinfBall(0.2, bounds=(-10.0, 10.0))


@pytest.mark.parametrize(("step", "share"), [(0, 0.25), (1, 0.5), (3, 1.0), (4, 1.0), (1000, 1.0)])
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_radius_is_a_share_of_its_own(make_classifier, make_batch, step, share, mode):
    """With 4 steps of warm-up, step k attacks at (k + 1) / 4 of the radius, at most all of it."""
    model = kr.defenses.pgd_at(
        make_classifier(), BALL, steps=3, step_size=0.2, radius_warmup=4, crafting_mode=mode
    )
    model.compile(optimizer="sgd")
    model.step.assign(step)
    x, y = make_batch(8)
    distance = BALL.distance(model.craft(x, y), x)
    np.testing.assert_allclose(distance, 0.2 * share, rtol=1e-4)


def test_validation_attacks_at_the_whole_radius(make_classifier, make_batch):
    x, y = make_batch(8)
    cold, warm = (
        kr.defenses.pgd_at(make_classifier(), BALL, steps=2, radius_warmup=warmup)
        for warmup in (0, 100)
    )
    for model in (cold, warm):
        model.compile(optimizer="sgd", run_eagerly=True)
    assert cold.evaluate(x, y, verbose=0) == pytest.approx(warm.evaluate(x, y, verbose=0))


def test_is_saved(make_classifier, tmp_path):
    model = kr.defenses.trades(make_classifier(), BALL, radius_warmup=7)
    model.save(tmp_path / "model.keras")
    assert keras.saving.load_model(tmp_path / "model.keras").radius_warmup == 7


@pytest.mark.parametrize("warmup", [-1, 1.5, True, "5", None])
def test_is_refused(make_classifier, warmup):
    with pytest.raises(ValueError, match=r"radius_warmup is .*expected an integer >= 0"):
        kr.defenses.pgd_at(make_classifier(), BALL, radius_warmup=warmup)
