"""An interrupted evaluation resumes where it stopped."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks.crafting.base import Attack
from keras_robust.evaluation.running import run_state

BALL = kr.LinfBall(0.1)
X = np.stack([np.linspace(0.55, 0.62, 12), np.full(12, 0.5)], axis=1).astype("float32")
Y = np.zeros(12, int)


def pixels(x):
    return {"logits": 2 * x}


@dataclasses.dataclass(frozen=True)
class Draws(Attack):
    """Moves each image by random amounts; fails at its n-th batch."""

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


def evaluated(attack, resume_dir=None, say=None, **options):
    """Three rounds of batches of 4."""
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
    attacks = kr.attacks.restarts(attack, 3)
    return kr.evaluation.evaluate(
        pixels, data, attacks, seed=5, **(options | {"resume_dir": resume_dir, "progress": say})
    )


def found(report):
    return report.worst_case_accuracy, report.confusion_adversarial


@pytest.fixture(autouse=True)
def always_saved(monkeypatch):
    monkeypatch.setattr(run_state, "SECONDS", 0.0)


@pytest.mark.parametrize(
    "at", [1, 5, *(pytest.param(call, marks=pytest.mark.slow) for call in (2, 4, 6))]
)
def test_it_ends_with_the_result_of_an_uninterrupted_one(at, tmp_path):
    uninterrupted = Draws()
    expected = evaluated(uninterrupted)
    with pytest.raises(tf.errors.OpError, match="the power failed"):
        evaluated(Draws(fails_at=at), tmp_path)
    said, rest = [], Draws()
    report = evaluated(rest, tmp_path, said.append)
    assert found(report) == found(expected)
    assert len(rest.calls) == len(uninterrupted.calls) - (at - 1)
    assert any("resumes in round" in line for line in said) == (at > 1)
    np.testing.assert_array_equal(report.examples or [], expected.examples or [])


def test_a_finished_attack_is_not_run_again(tmp_path):
    expected = evaluated(Draws(), tmp_path, radii=[0.05])
    again = Draws()
    assert found(evaluated(again, tmp_path, radii=[0.05])) == found(expected)
    assert not again.calls


@pytest.mark.parametrize("change", ["seed", "data", "ball", "model"])
def test_another_evaluation_starts_over(change, tmp_path):
    evaluated(Draws(), tmp_path)
    other = Draws(ball=kr.LinfBall(0.09)) if change == "ball" else Draws()
    kr.evaluation.evaluate(
        (lambda x: {"logits": 3 * x}) if change == "model" else pixels,
        tf.data.Dataset.from_tensor_slices((X[::-1] if change == "data" else X, Y)).batch(4),
        kr.attacks.restarts(other, 3),
        resume_dir=tmp_path,
        seed=6 if change == "seed" else 5,
    )
    assert other.calls


def test_nothing_is_left_half_written(tmp_path):
    evaluated(Draws(), tmp_path / "saved")
    assert [path.suffix for path in (tmp_path / "saved").iterdir()] == [".npz"]


def test_progress_names_the_rounds():
    said = []
    evaluated(Draws(), say=said.append)
    assert "round 2 of 3, draws: accuracy" in said[2]
