"""An evaluation that was interrupted goes on where it was."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks.crafting.base import Attack
from keras_robust.evaluation import run_state

BALL = kr.LinfBall(0.1)
X = np.stack([np.linspace(0.55, 0.62, 12), np.full(12, 0.5)], axis=1).astype("float32")
Y = np.zeros(12, int)


def pixels(x):
    return {"logits": 2 * x}


@dataclasses.dataclass(frozen=True)
class Draws(Attack):
    """Moves each image by random amounts; is interrupted at its n-th batch."""

    calls: list = dataclasses.field(default_factory=list, compare=False, repr=False)
    fails_at: int = dataclasses.field(default=-1, compare=False, repr=False)
    ball: kr.LinfBall = BALL
    name: str = "draws"

    def _count(self):
        self.calls.append(1)
        if len(self.calls) == self.fails_at:
            raise RuntimeError("the power failed")
        return np.int64(0)

    def craft(self, forward, x, y, seed, targets):
        zero = tf.numpy_function(self._count, [], tf.int64)
        zero = tf.cast(tf.reshape(zero, []), x.dtype)
        return self.ball.sample(x, seed) + zero

    def at_radius(self, radius, step_size=None):
        return dataclasses.replace(self, ball=kr.LinfBall(radius))


def judged(attack, keep=None, say=None, **options):
    """Three rounds of batches of 4."""
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
    attacks = kr.attacks.restarts(attack, 3)
    return kr.evaluation.evaluate(pixels, data, attacks, keep=keep, progress=say, seed=5, **options)


def found(report):
    return report.worst_case_accuracy, report.confusion_adversarial


@pytest.fixture(autouse=True)
def always_kept(monkeypatch):
    monkeypatch.setattr(run_state, "SECONDS", 0.0)


@pytest.mark.parametrize("at", [1, 2, 4, 5, 6])
def test_it_ends_as_it_would_have(at, tmp_path):
    whole = Draws()
    expected = judged(whole)
    with pytest.raises(tf.errors.OpError, match="the power failed"):
        judged(Draws(fails_at=at), tmp_path)
    said, rest = [], Draws()
    report = judged(rest, tmp_path, said.append)
    assert found(report) == found(expected)
    assert len(rest.calls) == len(whole.calls) - (at - 1)
    assert any("goes on in round" in line for line in said) == (at > 1)
    np.testing.assert_array_equal(report.examples or [], expected.examples or [])


def test_what_is_done_is_not_done_again(tmp_path):
    expected = judged(Draws(), tmp_path, radii=[0.05])
    again = Draws()
    assert found(judged(again, tmp_path, radii=[0.05])) == found(expected)
    assert not again.calls


@pytest.mark.parametrize("change", ["seed", "data", "ball", "model"])
def test_another_evaluation_begins_anew(change, tmp_path):
    judged(Draws(), tmp_path)
    other = Draws(ball=kr.LinfBall(0.09)) if change == "ball" else Draws()
    kr.evaluation.evaluate(
        (lambda x: {"logits": 3 * x}) if change == "model" else pixels,
        tf.data.Dataset.from_tensor_slices((X[::-1] if change == "data" else X, Y)).batch(4),
        kr.attacks.restarts(other, 3),
        keep=tmp_path,
        seed=6 if change == "seed" else 5,
    )
    assert other.calls


def test_nothing_is_left_half_written(tmp_path):
    judged(Draws(), tmp_path / "kept")
    assert [path.suffix for path in (tmp_path / "kept").iterdir()] == [".npz"]


def test_rounds_are_told():
    said = []
    judged(Draws(), say=said.append)
    assert "round 2 of 3, draws: accuracy" in said[2]
