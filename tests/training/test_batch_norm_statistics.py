"""Statistics that are recomputed: those of the layers' inputs, computed directly."""

from __future__ import annotations

import random

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.training import BatchNormStatistics

BALL = kr.LinfBall(0.1)


def build(seed=0):
    """Convolution, batch norm, dropout, batch norm: the second sees what the first makes."""
    random.seed(seed)
    inputs = keras.Input((6, 6, 1))
    x = keras.layers.Conv2D(2, 3, name="conv")(inputs)
    x = keras.layers.Flatten()(keras.layers.BatchNormalization(name="first")(x))
    x = keras.layers.Dropout(0.5)(keras.layers.Dense(4, name="dense")(x))
    x = keras.layers.BatchNormalization(name="second", momentum=0.5)(x)
    logits = keras.layers.Dense(3, name="logits")(x)
    return keras.Model(inputs, {"logits": logits, "features": x})


def first_inputs(model, x):
    return model.get_layer("conv")(x).numpy().reshape(-1, 2)


@pytest.fixture
def batches(make_batch):
    x, y = make_batch(9)
    return [(x[:4], y[:4]), (x[4:], y[4:])]


def statistics(layer):
    return layer.moving_mean.numpy(), layer.moving_variance.numpy()


def test_they_are_the_means_over_the_batches(batches):
    """Of the first layer, over its inputs; of the clean images where nothing else is trained on."""
    model = kr.defenses.standard(build(), BALL)
    BatchNormStatistics(model).recompute(batches)
    inputs = [first_inputs(model.classifier, x) for x, _ in batches]
    mean, variance = statistics(model.classifier.get_layer("first"))
    np.testing.assert_allclose(mean, np.mean([i.mean(axis=0) for i in inputs], axis=0), rtol=1e-5)
    np.testing.assert_allclose(
        variance, np.mean([i.var(axis=0) for i in inputs], axis=0), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("defense", "kinds"),
    [
        ("trades", ["clean", "adversarial"]),
        pytest.param("pgd_at", ["adversarial"], marks=pytest.mark.slow),
    ],
)
def test_images_are_those_that_the_loss_reads(defense, kinds, batches):
    """Each kind counts the same. FGSM, so that the images can be crafted here again: with the
    statistics of the clean images."""
    model = getattr(kr.defenses, defense)(build(), BALL).rebuilt(attack=kr.attacks.fgsm(BALL))
    BatchNormStatistics(kr.defenses.standard(model.classifier, BALL)).recompute(batches)
    images = [
        {"clean": x, "adversarial": model.attack(model.classifier, x, y)}[kind]
        for x, y in batches
        for kind in kinds
    ]
    layer = model.classifier.get_layer("first")
    layer.moving_mean.assign([3.0, -3.0])  # what was there before does not matter
    BatchNormStatistics(model).recompute(batches)
    inputs = [first_inputs(model.classifier, x) for x in images]
    mean, variance = statistics(layer)
    np.testing.assert_allclose(mean, np.mean([i.mean(axis=0) for i in inputs], axis=0), rtol=1e-4)
    np.testing.assert_allclose(
        variance, np.mean([i.var(axis=0) for i in inputs], axis=0), rtol=1e-4
    )


def test_images_are_mixed_as_in_training(batches):
    def halved(x, y, seed):
        del seed
        return x / 2, y, y, tf.ones(tf.shape(x)[:1])

    found = []
    for mixing, factor in ((halved, 1), (None, 0.5)):
        model = kr.defenses.standard(build(), BALL, mixing=mixing)
        BatchNormStatistics(model).recompute([(factor * x, y) for x, y in batches])
        found.append(model.classifier.get_layer("first").moving_mean.numpy())
    np.testing.assert_allclose(*found, rtol=1e-6)


def test_nothing_else_changes(batches, values_of):
    """Not weights, not the seeds of dropout, not momenta, not a frozen layer."""
    model = kr.defenses.pgd_at(build(), BALL, steps=1)
    frozen, free = (model.classifier.get_layer(name) for name in ("first", "second"))
    frozen.trainable = False
    before = values_of(model)
    BatchNormStatistics(model).recompute(batches)
    changed = {
        v.path.rpartition("/")[0]
        for v, old in zip(model.variables, before, strict=True)
        if np.any(v.numpy() != old)
    }
    assert changed == {"second"}
    assert (frozen.momentum, free.momentum) == (0.99, 0.5)


def test_they_repeat_themselves(batches):
    """Also with noise that is drawn."""
    model = kr.defenses.trades(build(), BALL, steps=1)
    layer, found = model.classifier.get_layer("second"), []
    for value in (0.0, 1.0):
        layer.moving_mean.assign(tf.fill([4], value))
        BatchNormStatistics(model).recompute(batches)
        found.append(layer.moving_variance.numpy())
    np.testing.assert_array_equal(*found)


def test_there_have_to_be_batches():
    with pytest.raises(ValueError, match="no batches; expected at least one"):
        BatchNormStatistics(kr.defenses.standard(build(), BALL)).recompute([])
