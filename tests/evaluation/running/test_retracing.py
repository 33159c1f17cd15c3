"""An evaluation of many attacks, and of many models, traces each once, without a warning."""

from __future__ import annotations

import logging

import keras
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


class Counter(keras.layers.Layer):
    """Counts how often it is called in Python, so by traces of a compiled evaluation."""

    calls = 0

    def call(self, x):
        Counter.calls += 1
        return x


@pytest.fixture(scope="module")
def counting():
    inputs = keras.layers.Input([3])
    outputs = keras.layers.Dense(5, use_bias=False)(Counter()(inputs))
    return keras.Model(inputs, {"logits": outputs})


def calls(work):
    """The calls of the model in Python during some work."""
    before = Counter.calls
    work()
    return Counter.calls - before


def test_a_model_is_traced_in_one_evaluation_only(counting):
    predicted = counting(X)["logits"].numpy().argmax(axis=1)

    def evaluate(count=5, **options):
        data = tf.data.Dataset.from_tensor_slices((X, predicted)).batch(count)
        kr.evaluation.evaluate(counting, data, attack, **options)

    attack = kr.attacks.pgd(BALL, 3)
    assert calls(evaluate) > 0
    # Another last batch, other seeds and radii.
    assert calls(lambda: evaluate(7, seed=2**40, radii=[0.02, 0.2])) == 0
    attack = kr.attacks.pgd(BALL, 3)
    craft = attack.compiled(counting)
    given = [(X[:2], Y[:2], np.int64(3)), (X, Y.astype("int32"), 3, 0.05), (X, Y, (1, 2))]
    for one in given:
        assert calls(lambda one=one: craft(*one)) == 0


def test_traces_do_not_grow_with_targets_and_restarts(counting):
    targeted = kr.attacks.pgd(BALL, 2, targeted=True)

    def combined(targets, runs):
        attacks = [
            kr.attacks.multi_targeted(targeted, targets),
            kr.attacks.restarts(kr.attacks.pgd(BALL, 2), runs),
        ]
        return calls(lambda: kr.attacks.worst_of(*attacks).compiled(counting)(X, Y))

    assert combined(2, 2) == combined(4, 6)


@pytest.mark.slow
def test_traces_do_not_grow_with_classes():
    attack = kr.attacks.multi_targeted(kr.attacks.pgd(BALL, 2, targeted=True))
    inputs = keras.layers.Input([3])
    hidden = Counter()(inputs)
    models = [
        keras.Model(inputs, {"logits": keras.layers.Dense(count)(hidden)}) for count in (5, 200)
    ]
    few, many = (calls(lambda model=model: attack.compiled(model)(X, Y)) for model in models)
    assert few == many > 0


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
