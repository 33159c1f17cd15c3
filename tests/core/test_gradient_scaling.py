"""Attacks find in half precision what they find in float32: gradients do not underflow."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.core.gradient_scaling import scaled_gradients

HALF = ("mixed_float16", "float16", "mixed_bfloat16")
BALL = kr.LinfBall(0.1)


def certain(policy, scale):
    """A network whose predictions are so certain that `p - y` is below the least float16."""
    keras.utils.set_random_seed(1)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = kr.models.mlp((4, 4, 1), classes=5, hidden=(32, 32))
    finally:
        keras.config.set_dtype_policy(before)
    weights = model.get_weights()
    weights[-2:] = [30 * scale * w for w in weights[-2:]]
    model.set_weights(weights)
    return model


@pytest.fixture(scope="module")
def batch():
    x = np.random.default_rng(0).random((256, 4, 4, 1), np.float32)
    y = certain("float32", 1)(x)["logits"].numpy().argmax(1)
    return x, y


def accuracy(model, attack, x, y):
    x_adv = attack.compiled(model)(x, y, seed=0)
    return np.mean(model(x_adv, training=False)["logits"].numpy().argmax(1) == y)


ATTACKS = (kr.attacks.fgsm(BALL), kr.attacks.pgd(BALL, 5, loss="kl"))


@pytest.fixture(scope="module", params=[pytest.param(1, marks=pytest.mark.slow), 8])
def in_float32(request, batch):
    """How certain the network is, and its accuracy under each attack in float32."""
    model = certain("float32", request.param)
    return request.param, [accuracy(model, attack, *batch) for attack in ATTACKS]


@pytest.mark.parametrize("policy", HALF)
def test_half_precision_is_as_weak_as_float32(policy, in_float32, batch):
    scale, expected = in_float32
    model = certain(policy, scale)
    for attack, reached in zip(ATTACKS, expected, strict=True):
        assert accuracy(model, attack, *batch) <= reached + 0.02


def test_a_function_around_a_half_precision_model(batch):
    model, attack = certain("mixed_float16", 8), kr.attacks.fgsm(BALL)
    expected = accuracy(certain("float32", 8), attack, *batch)
    x_adv = attack.compiled(lambda x: {"logits": model(x)["logits"]})(*batch)
    found = np.mean(model(x_adv)["logits"].numpy().argmax(1) == batch[1])
    assert found <= expected + 0.02


def test_the_gradient_of_float32_keeps_every_bit():
    model = certain("float32", 1)
    x = tf.constant(np.random.default_rng(0).random((16, 4, 4, 1), np.float32))

    def gradient(forward):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(
                kr.losses.cross_entropy(forward(x)["logits"], tf.zeros(16, tf.int32))
            )
        return tape.gradient(value, x).numpy()

    np.testing.assert_array_equal(gradient(scaled_gradients(model)), gradient(model))


@pytest.mark.parametrize("value", [0.0, np.inf, np.nan])
def test_scales_of_special_gradients_are_one(value):
    x = tf.ones([1, 2])
    with tf.GradientTape() as tape:
        tape.watch(x)
        logits = scaled_gradients(lambda x: {"logits": x})(x)["logits"]
        total = tf.reduce_sum(value * logits)
    np.testing.assert_array_equal(tape.gradient(total, x), np.full([1, 2], value, np.float32))


def test_the_gradient_of_a_certain_prediction_keeps_its_direction():
    """In `p_y - 1` it cancels; here it is minus the sum of the others, to the last digits."""
    logits = tf.constant([[40.0, 1.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = kr.losses.cross_entropy(logits, tf.constant([0]))
    gradient = tape.gradient(value, logits).numpy()[0].astype(float)
    others = np.exp([-39.0, -40.0])
    np.testing.assert_allclose(gradient, [-others.sum(), *others], rtol=1e-5)


def test_numpy_functions_are_models_of_gradient_free_attacks(batch):
    x, y = batch[0][:4], batch[1][:4]
    weights = np.random.default_rng(0).normal(size=(16, 5)).astype("float32")

    def forward(images):
        flat = tf.reshape(images, [-1, 16])
        logits = tf.numpy_function(lambda v: v @ weights, [flat], tf.float32)
        return {"logits": tf.ensure_shape(logits, [None, 5])}

    assert kr.attacks.square(BALL, queries=2).compiled(forward)(x, y).shape == x.shape
