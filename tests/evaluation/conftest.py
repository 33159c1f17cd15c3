"""A small report with all parts, and attacks that take time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks.crafting.base import Attack
from keras_robust.evaluation import evaluator
from keras_robust.evaluation.report import Report
from keras_robust.evaluation.results.example_images import ExampleImages
from keras_robust.evaluation.results.parts import (
    AttackResult,
    Check,
    Curve,
    Detection,
    DetectorResult,
)
from keras_robust.evaluation.running.time_budget import TimeBudget


def _report(**changes: Any) -> Report:
    clean = np.random.default_rng(0).random((2, 4, 4, 1), np.float32)
    fields: dict[str, Any] = {
        "dataset": "digits",
        "model": "mlp",
        "defense": "TRADES",
        "threat_model": "Linf, radius 0.1, bounds [0, 1]",
        "radius": 0.1,
        "samples": 100,
        "seed": 7,
        "clean_accuracy": 0.96,
        "attacks": (
            AttackResult("FGSM", "one step of 0.1", 0.1, 0.81, 96, 0.4),
            AttackResult("PGD-20", "20 steps of 0.02", 0.1, 0.5, 96, 75.2),
        ),
        "worst_case_accuracy": 0.5,
        "curves": (Curve("PGD-20", (0.0, 0.1, 0.2), (0.96, 0.5, 0.1)),),
        "confusion_clean": ((48, 2), (2, 48)),
        "confusion_adversarial": ((25, 25), (25, 25)),
        "class_names": ("ant", "bee"),
        "detection": Detection(
            0.4,
            0.05,
            0.04,
            "entropy (nats)",
            (0.1, 0.2, 0.5),
            DetectorResult("PGD-20", 0.9, 0.05, (0.6, 0.7), 1.0, (0.9, 1.0)),
            DetectorResult(
                "PGD-20, adaptive (detector-aware)", 0.25, 0.7, (0.1, 0.3), 0.5, (0.2, 0.8)
            ),
        ),
        "versions": {"keras": "3.15.1", "numpy": "2.4.6"},
        "warnings": ("Only 100 images.",),
        "command": "python -m trainers.evaluate --run=runs/digits",
        "examples": ExampleImages(clean, np.clip(clean + 0.1, 0, 1), (0, 1), (0, 1), (1, 1)),
        "checks": (
            Check("steps", True, 0.0, "More steps change nothing."),
            Check("radius", False, 0.3, "At the largest radius the accuracy is 30.0%."),
        ),
    }
    return Report(**{**fields, **changes})


@pytest.fixture(scope="session")
def make_report() -> Callable[..., Report]:
    """A function that makes the report, with fields changed."""
    return _report


BALL = kr.LinfBall(0.1)


@dataclasses.dataclass
class Clock:
    """A clock that advances only while attacks run."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: Any) -> np.int64:
        self.now += float(seconds)
        return np.int64(0)


@dataclasses.dataclass(frozen=True)
class Timed(Attack):
    """Moves images of two pixels whose margin is below a multiple of the radius, and takes time.

    Of an image of margin `x_0 - x_1` the margin becomes less by twice the radius.
    """

    clock: Clock = dataclasses.field(repr=False, compare=False)
    below: float = 2.0
    seconds: float = 1.0
    name: str = "timed"
    ball: kr.LinfBall = BALL

    def craft(self, forward: Any, x: Any, y: Any, seed: Any, targets: Any) -> Any:
        zero = tf.numpy_function(self.clock.pass_by, [self.seconds], tf.int64)
        radius = tf.cast(self.ball.radius, x.dtype) + tf.cast(tf.reshape(zero, []), x.dtype)
        hit = tf.cast(x[:, :1] - x[:, 1:] < self.below * radius, x.dtype)
        return x + hit * radius * tf.constant([[-1.0, 1.0]])

    def at_radius(self, radius: Any, step_size: Any = None) -> Timed:
        return dataclasses.replace(self, ball=kr.LinfBall(radius))


class OwnBall:
    """A threat model of the user's own: not a dataclass, in a norm without a name."""

    p = None

    def __init__(self, ball: kr.LinfBall):
        self._ball = ball

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ball, name)

    def __repr__(self) -> str:
        return f"OwnBall({self._ball.radius})"

    def replace(self, **changes: Any) -> OwnBall:
        return OwnBall(self._ball.replace(**changes))


@pytest.fixture
def own_ball() -> Callable[[float], OwnBall]:
    """A function that makes such a ball of a radius."""
    return lambda radius: OwnBall(kr.LinfBall(radius))


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Timed]:
    """A function that makes timed attacks, whose clock is that of every evaluation of the test."""
    clock = Clock()
    tf.config.run_functions_eagerly(True)  # a trace would take longer than all else
    monkeypatch.setattr(evaluator, "TimeBudget", lambda seconds: TimeBudget(seconds, clock))
    return lambda **settings: Timed(clock, **settings)
