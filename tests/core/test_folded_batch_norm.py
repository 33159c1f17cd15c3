"""Batch norm folded into the layer before it: the same function, of the same variables."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.core.classifier import members_of
from keras_robust.core.folded_batch_norm import FoldedLayer, folded

X = np.random.default_rng(0).random((4, 8, 8, 2)).astype("float32")


def with_statistics(model):
    """The model with statistics, scales and shifts that are not those of a new one."""
    rng = np.random.default_rng(1)
    weights = [w + rng.uniform(0.1, 0.9, w.shape).astype(w.dtype) for w in model.get_weights()]
    model.set_weights(weights)
    return model


def build(*layers):
    return with_statistics(keras.Sequential([keras.Input(X.shape[1:]), *layers]))


def folds(model):
    return sum(isinstance(layer, FoldedLayer) for layer in model.layers)


def assert_same(model, tolerance=1e-4):
    np.testing.assert_allclose(
        folded(model)(X, training=False), model(X, training=False), rtol=tolerance, atol=tolerance
    )


L = keras.layers


@pytest.mark.parametrize(
    "layers",
    [
        (L.Conv2D(3, 3), L.BatchNormalization()),
        (L.Conv2D(3, 3, strides=2, padding="same", use_bias=False), L.BatchNormalization()),
        (L.Conv2D(3, 2, dilation_rate=2), L.BatchNormalization(center=False)),
        (L.Dense(5), L.BatchNormalization(scale=False, epsilon=0.1)),
    ],
)
def test_a_pair_becomes_one_layer(layers):
    model = build(*layers, L.ReLU())
    assert folds(folded(model)) == 1
    assert_same(model)


@pytest.mark.parametrize(
    "layers",
    [
        (L.BatchNormalization(), L.Conv2D(3, 3)),
        (L.Conv2D(3, 3, activation="relu"), L.BatchNormalization()),
        (L.Conv2D(3, 3), L.BatchNormalization(axis=1)),
        (L.DepthwiseConv2D(3), L.BatchNormalization()),
        (L.Conv2D(3, 3), L.ReLU()),
    ],
)
def test_everything_else_stays(layers):
    model = build(*layers)
    assert folded(model) is model


def test_layers_that_are_used_elsewhere_stay():
    inputs = keras.Input(X.shape[1:])
    convolution, normalization = L.Conv2D(3, 3), L.BatchNormalization()
    before = convolution(inputs)
    assert_stays(keras.Model(inputs, L.Add()([normalization(before), before])))
    assert_stays(keras.Model(inputs, [normalization(before), before]))
    again = normalization(convolution(L.ReLU()(inputs)))
    assert_stays(keras.Model(inputs, L.Add()([normalization(before), again])))


def assert_stays(model):
    assert folded(model) is model


def test_it_follows_the_variables_and_leaves_the_model_alone():
    model = build(L.Conv2D(3, 3), L.BatchNormalization(), L.ReLU())
    trainable, layers = len(model.trainable_variables), list(model.layers)
    copy = folded(model)
    with_statistics(model)
    np.testing.assert_allclose(copy(X), model(X, training=False), rtol=1e-4, atol=1e-4)
    assert len(model.trainable_variables) == trainable and model.layers == layers


def test_members_of_an_ensemble_are_folded():
    ensemble = kr.models.ensemble([classifier(seed) for seed in range(2)])
    copy = folded(ensemble)
    assert [folds(member) for member in members_of(copy)] == [1, 1]
    expected, found = ensemble(X, training=False), copy(X, training=False)
    assert set(found) == set(expected)
    for key, value in found.items():
        np.testing.assert_allclose(value, expected[key], rtol=1e-4, atol=1e-4)


def classifier(seed=0):
    """A classifier with a convolution that is normalized."""
    inputs = keras.Input(X.shape[1:])
    hidden = L.ReLU()(L.BatchNormalization()(L.Conv2D(4, 3, strides=2)(inputs)))
    features = L.Flatten()(hidden)
    outputs = {"logits": L.Dense(3)(features), "features": features}
    return with_statistics(keras.Model(inputs, outputs, name=f"member_{seed}"))


def test_compiled_attacks_are_folded_and_give_the_same_verdicts(monkeypatch):
    model, calls = classifier(), []
    run = FoldedLayer.call
    monkeypatch.setattr(FoldedLayer, "call", lambda self, x: (calls.append(1), run(self, x))[1])
    y = model(X)["logits"].numpy().argmax(axis=1)
    attack = kr.attacks.pgd(kr.LinfBall(0.05), 5)
    x_adv = attack.compiled(model)(X, y)
    assert calls
    monkeypatch.undo()
    np.testing.assert_allclose(x_adv, attack(model, X, y), atol=1e-5)


def test_half_precision_stays():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = build(L.Conv2D(3, 3), L.BatchNormalization())
    assert folded(model) is model


def test_other_things_are_returned():
    assert folded(tf.identity) is tf.identity
