"""Graphs for batches of any size, and graphs that are kept with a model."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.core.graphs import AnyBatch
from keras_robust.core.kept_graphs import _MOST, kept

X, Y = np.random.default_rng(0).random((4, 3)).astype("float32"), np.arange(4) % 3


def make_model():
    inputs = keras.layers.Input([3])
    hidden = keras.layers.Dense(3, activation="relu")(inputs)
    return keras.Model(inputs, {"logits": keras.layers.Dense(3)(hidden)})


@pytest.fixture
def model():
    return make_model()


def test_any_batch_is_traced_once_for_all_sizes():
    total = AnyBatch(lambda x, scale: tf.reduce_sum(x, axis=1) * scale)
    for size in (4, 3, 1, 0):
        np.testing.assert_allclose(total(X[:size], 2.0), 2 * X[:size].sum(1), rtol=1e-6)
    assert total.traces == 1
    total(X.astype("float64"), tf.constant(2.0, tf.float64))
    assert total.traces == 2


def test_any_batch_traces_each_size_of_a_function_that_needs_to_know_it():
    flat = AnyBatch(lambda x, none: tf.ones([x.shape[0], 1]) + x)
    for size in (4, 2, 4):
        np.testing.assert_allclose(flat(X[:size], None), 1 + X[:size])


def test_any_batch_raises_the_error_of_the_function():
    def fails(x):
        raise ValueError("always")

    with pytest.raises(ValueError, match="always"):
        AnyBatch(fails)(X)


def test_kept_until_the_model_changes(model):
    def key():
        return kept(model, "key", object)

    first = key()
    model.layers[1].set_weights([np.ones([3, 3]), np.ones(3)])
    model.compile("sgd")
    assert key() is first
    model.layers[1].activation = keras.activations.tanh
    second = key()
    assert second is not first
    model.layers[1].enable_lora(1)
    third = key()
    assert third is not second
    model.layers[1].table = (np.ones(2), np.ones(2))  # not compared
    assert key() is third
    model.layers[1].shift = (1, (2, 3))
    assert key() is not third


def test_the_number_of_kept_graphs_is_bounded(model):
    kept(model, "used", object)
    first = kept(model, 0, object)
    used = kept(model, "used", object)
    for number in range(1, _MOST):
        kept(model, number, object)
        assert kept(model, "used", object) is used
    assert kept(model, 0, object) is not first


def test_functions_keep_nothing():
    def forward(x):
        return {"logits": x}

    assert kept(forward, 0, object) is not kept(forward, 0, object)


def test_graphs_are_not_copied_or_saved(model, tmp_path):
    kept(model, 0, lambda: kr.attacks.fgsm(kr.LinfBall(0.1)).compiled(model))
    model.save(tmp_path / "model.keras")
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert kept(other, 0, lambda: "its own") == "its own"


def test_a_model_is_freed_with_its_graphs():
    model = make_model()
    kr.attacks.pgd(kr.LinfBall(0.1), 2).compiled(model)(X, Y)
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None
