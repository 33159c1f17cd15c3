"""A small report with everything in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from keras_robust.evaluation.report import (
    Attacker,
    AttackResult,
    Check,
    Curve,
    Detection,
    ExampleImages,
    Report,
)


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
            Attacker("PGD-20", 0.9, 0.05, (0.6, 0.7), 1.0, (0.9, 1.0)),
            Attacker("PGD-20 that knows the detector", 0.25, 0.7, (0.1, 0.3), 0.5, (0.2, 0.8)),
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
