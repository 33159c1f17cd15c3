"""Interval bounds: margins of small networks against what is known of them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr

RADIUS = 0.05
BOUNDS = kr.certification.ibp(kr.LinfBall(RADIUS))


@pytest.fixture(scope="module")
def network():
    """Convolution, batch norm with random statistics, ReLU, a dense layer with its activation."""
    rng = np.random.default_rng(0)
    images = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", bias_initializer="normal")(images)
    norm = keras.layers.BatchNormalization(name="norm")
    x = keras.layers.ReLU()(norm(x))
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(x))
    x = keras.layers.Dense(7, activation="relu")(x)
    model = keras.Model(images, {"logits": keras.layers.Dense(3)(x), "features": x})
    norm.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in norm.get_weights()])
    return model


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(1)
    return tf.constant(rng.random((5, 6, 6, 2)), tf.float32), np.arange(5) % 3


def true_margins(model, x, y):
    logits = model(x, training=False)["logits"].numpy()
    return np.take_along_axis(logits, y[:, None], axis=1) - logits


def test_no_image_in_the_ball_is_below_the_margins(network, batch):
    x, y = batch
    margins = BOUNDS(network, x, y).numpy()
    assert margins.shape == (5, 3) and np.all(margins[np.arange(5), y] == 0)
    for seed in range(100):
        inside = BOUNDS.ball.sample(x, tf.constant([seed, 0]))
        assert np.all(true_margins(network, inside, y) >= margins)


def test_radius_zero_gives_the_margins_of_the_logits(network, batch):
    x, y = batch
    margins = BOUNDS.at_radius(0.0)(network, x, y).numpy()
    np.testing.assert_allclose(margins, true_margins(network, x, y), atol=1e-4)


def test_training_takes_the_statistics_of_the_clean_batch(network, batch):
    x, y = batch
    before = network.get_layer("norm").get_weights()
    margins = BOUNDS.at_radius(0.0)(network, x, y, training=True).numpy()
    np.testing.assert_array_equal(before, network.get_layer("norm").get_weights())
    dropout = next(each for each in network.layers if isinstance(each, keras.layers.Dropout))
    rate, dropout.rate = dropout.rate, 0.0
    logits = network(x, training=True)["logits"].numpy()
    dropout.rate = rate
    network.get_layer("norm").set_weights(before)
    np.testing.assert_allclose(margins, logits[np.arange(5), y][:, None] - logits, atol=3e-4)


def test_the_loss_has_a_gradient_for_every_weight(network, batch):
    x, y = batch
    with tf.GradientTape() as tape:
        worst = kr.certification.worst_logits(BOUNDS(network, x, y, training=True))
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, worst)
    gradients = tape.gradient(loss, network.trainable_variables)
    assert all(np.all(np.isfinite(g)) and np.any(g != 0) for g in gradients)
