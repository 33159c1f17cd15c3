"""Schedules on paper, and saved with the model that they train."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import keras_robust as kr
from keras_robust.training import OneCycle, WarmUp


def test_one_cycle_is_two_lines():
    """(0, 0), (peak (n + 1), rate), (n + 1, 0) at k + 1, and 0 after the training."""
    found = [float(OneCycle(2.0, 99, 0.3)(step)) for step in range(110)]
    expected = np.interp(np.arange(1, 111), [0, 30, 100], [0, 2, 0])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert min(found[:99]) > 0


def test_a_warm_up_is_a_share_of_the_schedule():
    inner = keras.optimizers.schedules.ExponentialDecay(1.0, 1, 0.5)
    found = [float(WarmUp(inner, 4)(step)) for step in range(6)]
    expected = [min((k + 1) / 4, 1) * 0.5**k for k in range(6)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "schedule",
    [
        OneCycle(0.5, 10, 0.2),
        WarmUp(0.5, 3),
        WarmUp(keras.optimizers.schedules.CosineDecay(0.5, 10), 3),
    ],
    ids=["one cycle", "warm-up", "warm-up of a cosine"],
)
def test_a_saved_model_resumes_its_schedule(schedule, make_classifier, make_batch, tmp_path):
    model = kr.defenses.pgd_at(make_classifier(), kr.LinfBall(0.1), steps=1)
    model.compile(keras.optimizers.SGD(schedule), run_eagerly=True)
    model.fit(*make_batch(4), batch_size=2, verbose=0)
    assert float(model.optimizer.learning_rate) == pytest.approx(float(schedule(2)))
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert float(loaded.optimizer.learning_rate) == pytest.approx(float(schedule(2)))
    assert loaded.optimizer.get_config() == model.optimizer.get_config()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: OneCycle(0.0, 10), "OneCycle: rate is 0.0; expected a finite number > 0"),
        (lambda: OneCycle(0.1, 0), "OneCycle: steps is 0; expected an integer >= 1"),
        (lambda: OneCycle(0.1, 10, 1.0), r"OneCycle: peak is 1.0; expected a number in \(0, 1\)"),
        (lambda: WarmUp(0.1, 0), "WarmUp: steps is 0; expected an integer >= 1"),
    ],
)
def test_what_they_refuse(build, message):
    with pytest.raises(ValueError, match=message):
        build()
