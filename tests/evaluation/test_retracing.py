"""An evaluation of many attacks, and of many models, traces each once, without a warning."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr

X, Y = np.random.default_rng(0).random((12, 3)).astype("float32"), np.arange(12) % 3
BALL = kr.LinfBall(0.1)


@pytest.fixture
def warned():
    """The warnings of TensorFlow, as they are logged by default."""
    found = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: found.append(record.getMessage())
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)
    logger.setLevel(level)


def model(x):
    return {"logits": 3 * x}


@pytest.mark.slow
def test_several_attacks_and_the_checks(warned):
    attacks = [kr.attacks.pgd(BALL, steps) for steps in range(1, 8)]
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(5)
    kr.evaluation.evaluate(model, data, attacks, radii=[0.01, 0.05, 0.2], checks=True)
    assert not warned


def test_several_models(warned):
    for _ in range(7):
        kr.evaluation.evaluate(model, (X, Y), kr.attacks.fgsm(BALL))
    assert not warned


@pytest.mark.slow
def test_other_measurements(warned):
    for steps in range(1, 8):
        attack = kr.attacks.pgd(BALL, steps)
        kr.evaluation.black_box({"a": model, "b": model}, (X, Y), attack)
        embedded = lambda x: {"logits": 3 * x, "features": x}  # noqa: E731
        kr.evaluation.latents(embedded, (X, Y), attack)
        kr.evaluation.success_rates(
            embedded, X, X, Y, kr.attacks.multi_task(BALL, tasks="universal")
        )
        kr.detection.EntropyDetector(model).calibrate((X, Y), 0.1)
    assert not warned
