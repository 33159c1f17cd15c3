"""An evaluation warns of models at chance, random models, and first layers of another range."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.evaluation import evaluate
from keras_robust.evaluation.running.model_warnings import chance_warnings, range_warnings

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.random((60, 4)).astype("float32"), RANDOM.integers(0, 4, 60)
BALL = kr.LinfBall(0.01)
PGD = kr.attacks.pgd(BALL, 2)


def sees_the_label(x):
    return {"logits": 4 * tf.one_hot(Y, 4)[: tf.shape(x)[0]] + x}


def found(model, attack=PGD):
    return [*evaluate(model, (X, Y), attack).warnings]


@pytest.mark.parametrize(
    ("right", "images", "classes", "warns"),
    [
        (98, 1000, 10, True), (115, 1000, 10, True), (117, 1000, 10, False), (0, 5, 10, True),
        (6, 7, 2, False), (1, 1, 2, False), (2, 2, 2, False), (3, 6, 2, True), (20, 100, 10, False),
        (10, 100, 100, False), (2, 100, 100, True),
    ],
)  # fmt: skip
def test_chance(right, images, classes, warns):
    warnings = chance_warnings(np.arange(images) < right, classes)
    assert bool(warnings) == warns
    if warns:
        assert "is not above chance" in warnings[0] and f"{classes} classes" in warnings[0]


def test_a_model_at_chance_is_in_the_report():
    assert any(
        "not above chance (25.0% with 4 classes)" in text for text in found(lambda x: {"logits": x})
    )
    assert not found(sees_the_label)


def dense(*layers):
    return keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(3)])


NORMALIZED = keras.layers.Normalization(mean=127.0, variance=5000.0)


@pytest.mark.parametrize(
    ("layers", "bounds", "warns"),
    [
        ([keras.layers.Rescaling(1 / 255)], (0, 1), True),
        ([keras.layers.Rescaling(1 / 127.5, -1)], (0, 1), True),
        ([keras.layers.Rescaling(1 / 255)], (0, 255), False),
        ([keras.layers.Rescaling(255.0), keras.layers.Rescaling(1 / 255)], (0, 1), False),
        ([keras.layers.Rescaling(255.0)], (0, 1), False),
        ([keras.layers.Rescaling(2.0, -1)], (0, 1), False),
        ([NORMALIZED], (0, 1), True),
        ([keras.layers.Rescaling(255.0), NORMALIZED], (0, 1), False),
        ([keras.layers.Normalization(mean=0.5, variance=0.08)], (0, 1), False),
        ([keras.layers.Normalization(mean=0.5, variance=0.08)], (0, 255), True),
        ([keras.layers.Reshape((2, 2)), keras.layers.Rescaling(1 / 255)], (0, 1), True),
        ([keras.layers.Dense(2), keras.layers.Rescaling(1 / 255)], (0, 1), False),
        ([], (0, 1), False),
    ],
)
def test_the_range_of_the_first_layers(layers, bounds, warns):
    warnings = range_warnings(dense(*layers), bounds)
    assert bool(warnings) == warns
    if warns:
        assert "map the pixel range" in warnings[0] and "preprocess" in warnings[0]
    nested = keras.Sequential([keras.Input((4,)), dense(*layers)])
    assert range_warnings(nested, bounds) == warnings


def test_an_adapted_model_of_another_range_is_in_the_report():
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(4)]
    model = keras.Sequential([keras.Input((2, 2, 1)), *layers])
    x = X.reshape(-1, 2, 2, 1)
    for given, warns in (
        (kr.models.adapt(model), True),
        (kr.models.adapt(model, preprocess=keras.layers.Rescaling(255.0)), False),
    ):
        report = evaluate(given, (x, Y), PGD)
        assert any("map the pixel range" in text for text in report.warnings) == warns


def noisy(x):
    return {"logits": sees_the_label(x)["logits"] + tf.random.normal([tf.shape(x)[0], 4])}


def test_a_random_model_is_named_with_the_attacks_that_do_not_average():
    (text,) = (text for text in found(noisy) if "is random" in text)
    assert "of the predictions change" in text and "standard deviations" in text
    assert "not averaged over passes by PGD-2" in text and "EOT" in text


def test_attacks_that_average_are_not_blamed():
    attack = kr.attacks.apgd(BALL, steps=2, eot_iter=2)
    (text,) = (text for text in found(noisy, attack) if "is random" in text)
    assert "average gradients over passes (EOT)" in text and "not averaged" not in text
    several = {"averaged": kr.attacks.restarts(attack, 2), "single": PGD}
    (text,) = (text for text in found(noisy, several) if "is random" in text)
    assert "not averaged over passes by PGD-2, which" in text


def test_dropout_at_inference_is_random():
    class Always(keras.layers.Dropout):
        def call(self, inputs, training=None):
            return super().call(inputs, training=True)

    model = keras.Sequential([keras.Input((2, 2, 1)), Always(0.5), keras.layers.Flatten()])
    model.add(keras.layers.Dense(4))
    report = evaluate(kr.models.adapt(model), (X.reshape(-1, 2, 2, 1), Y), PGD)
    assert any("The model is random" in text for text in report.warnings)


def test_a_certain_model_is_not_random():
    assert not any("random" in text for text in found(lambda x: {"logits": x}))
