"""Scalars keep their precision; models and functions become `Forward`s."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.core import classifier, numerics, types


@pytest.mark.parametrize("value", [0.1, 1, np.float64(0.1), np.float32(0.5)])
def test_scalar_keeps_the_precision_of_numbers(value):
    tensor = numerics.scalar(value, tf.float64)
    assert tensor.dtype == tf.float64 and tensor.shape == []
    assert float(tensor) == float(value)


def test_scalar_casts_tensors():
    assert numerics.scalar(tf.constant(0.5), tf.float64).dtype == tf.float64
    assert numerics.scalar(tf.Variable(0.5), tf.float16).dtype == tf.float16


def test_scalars_are_finite():
    assert float(numerics.scalar(1e39, tf.float32)) == tf.float32.max
    assert float(numerics.scalar(-np.inf, tf.float16)) == -65504


@pytest.mark.parametrize(
    ("given", "computed"),
    [("float16", "float32"), ("bfloat16", "float32"), ("float32", "float32"), ("float64",) * 2],
)
def test_half_precision_is_widened(given, computed):
    assert numerics.upcast_half(tf.ones([2], given)).dtype == computed


@pytest.mark.parametrize("ball", [kr.LinfBall(0.1), kr.L2Ball(0.1), kr.L1Ball(0.1)])
def test_balls_keep_the_protocol(ball):
    assert isinstance(ball, types.Ball)


def test_robust_losses_keep_the_protocol():
    assert isinstance(kr.losses.Adversarial(), types.RobustLoss)


def test_contract_of_a_classifier(tiny_classifier):
    assert set(classifier.contract_of(tiny_classifier)) == {"logits", "features"}


@pytest.mark.parametrize(
    "model",
    [
        None,
        "model",
        lambda x: x,
        keras.Sequential([keras.layers.Dense(2)]),
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]),
    ],
)
def test_no_contract(model):
    assert classifier.contract_of(model) is None


def test_forward_runs_a_keras_model_in_inference_mode(make_classifier, tiny_batch, values_of):
    """Dropout of 0.9 would differ from call to call, and batch norm would move its statistics."""
    model = make_classifier(dropout=0.9)
    before = values_of(model)
    forward = classifier.as_forward(model)
    np.testing.assert_array_equal(
        forward(tiny_batch[0])["logits"], model(tiny_batch[0], training=False)["logits"]
    )
    np.testing.assert_array_equal(
        forward(tiny_batch[0])["logits"], forward(tiny_batch[0])["logits"]
    )
    for old, new in zip(before, values_of(model), strict=True):
        np.testing.assert_array_equal(old, new)


def test_forward_passes_functions_through():
    forward = classifier.as_forward(lambda x: {"logits": 2 * x})
    assert forward(tf.constant([[1.0, 2.0]]))["logits"].numpy().tolist() == [[2.0, 4.0]]


@pytest.mark.parametrize(
    ("model", "received"),
    [
        (lambda x: x, "returned EagerTensor"),
        (lambda x: {"probabilities": x, "b": x}, r"returned \['b', 'probabilities'\]"),
        (keras.Sequential([keras.layers.Dense(2)]), "returned EagerTensor"),
    ],
)
def test_forward_refuses_other_outputs(model, received):
    with pytest.raises(TypeError, match=received + r".*expected a dictionary with 'logits'.*adapt"):
        classifier.as_forward(model)(tf.zeros([1, 3]))


def _in_numpy(x):
    """Logits of two classes, computed in NumPy."""
    flat = np.reshape(np.asarray(x), (len(x), -1))
    return np.stack([flat[:, 0], flat[:, 1]], axis=1)


@pytest.mark.parametrize(
    "function", [lambda x: {"logits": _in_numpy(x.numpy())}, lambda x: {"logits": _in_numpy(x)}]
)
def test_a_numpy_function_is_told_how_to_be_wrapped(function):
    x, y = tf.constant([[0.5, 0.4], [0.3, 0.6]]), tf.constant([0, 1])
    attack = kr.attacks.square(kr.LinfBall(0.2), queries=3)
    with pytest.raises(TypeError, match=r"computes in NumPy.*tf\.numpy_function") as caught:
        attack.compiled(function)(x, y)
    advice = str(caught.value).split("`")[1]
    wrapped = eval(advice, {"tf": tf, "function": _in_numpy, "classes": 2})
    x_adv = attack.compiled(wrapped)(x, y).numpy()
    np.testing.assert_array_equal(x_adv, attack(function, x, y))  # eager mode needs no wrapping
