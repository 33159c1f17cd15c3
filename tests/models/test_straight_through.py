"""BPDA: forward one function, backward another; in models that are attacked, saved and loaded."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.models import straight_through


@keras.saving.register_keras_serializable("tests")
def quantized(x):
    """Four levels; without a gradient."""
    return tf.round(3 * x) / 3


def doubled(x):
    return 2 * x


def test_forward_is_the_function_and_backward_another():
    x = tf.constant([[0.2, 0.9]])
    for backward, slope in ((None, 1.0), (doubled, 2.0)):
        layer = straight_through(quantized, backward)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        np.testing.assert_array_equal(y, quantized(x))
        np.testing.assert_array_equal(tape.gradient(y, x), [[slope, slope]])


def test_a_function_of_numpy_goes_through():
    layer = straight_through(lambda x: tf.numpy_function(np.floor, [x], x.dtype))
    assert tf.function(layer)(tf.constant([[0.2, 1.9]])).numpy().tolist() == [[0, 1]]


@pytest.fixture(scope="module")
def model():
    """Linear logits of quantized images: the gradient of rounding is 0 everywhere."""
    inputs = keras.Input((2,))
    logits = keras.layers.Dense(2, use_bias=False)
    model = keras.Model(inputs, {"logits": logits(straight_through(quantized)(inputs))})
    logits.set_weights([np.array([[0.0, 1.0], [1.0, 0.0]], "float32")])
    return model


def test_an_attack_by_gradients_works_on_it(model):
    """Logits (b, a) of quantized (a, b): label 0 falls where b falls and a grows."""
    x, y = np.array([[0.5, 0.6]], "float32"), np.array([0])
    attack = kr.attacks.pgd(kr.LinfBall(0.3), 5, initialization="none")
    found = attack(model, x, y).numpy()
    np.testing.assert_allclose(found, [[0.8, 0.3]], atol=1e-6)

    with pytest.raises(ValueError, match="by a differentiable path"):
        attack(lambda x: {"logits": tf.reverse(quantized(x), [1])}, x, y)


def test_it_is_saved_with_the_model(model, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = np.random.default_rng(0).random((4, 2)).astype("float32")
    np.testing.assert_array_equal(loaded(x)["logits"], model(x)["logits"])


def test_what_cannot_be_is_refused():
    with pytest.raises(TypeError, match="function is 3; expected a function of images"):
        straight_through(3)
    with pytest.raises(ValueError, match=r"returns the shape \(2, 1\); expected \(2, 3\)"):
        straight_through(lambda x: x[:, :1])(tf.zeros([2, 3]))
