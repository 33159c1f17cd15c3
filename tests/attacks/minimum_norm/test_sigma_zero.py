"""sigma-zero where the fewest pixels are known, a step by hand, and its settings."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks import sigma_zero
from tests.attacks.linear_model import FEWEST, SPARSE_IMAGES, sparse, two


def test_the_fewest_pixels_of_a_linear_model():
    ball = kr.L0Ball(4, bounds=(-1.0, 1.0))
    x_adv = sigma_zero(ball, 100).compiled(sparse)(SPARSE_IMAGES, tf.zeros([3], tf.int32))
    np.testing.assert_array_equal(ball.distance(x_adv, SPARSE_IMAGES), FEWEST)


def test_a_step_by_hand():
    """z = (x_1, x_2) at (0.7, 0.3): Adam's first step is the rate, 0.45, in the sign of the
    gradient; both pixels pass the threshold of 0.4, and none that of 0.5."""
    x, y = tf.constant([[0.7, 0.3]], tf.float64), tf.constant([0])
    for threshold, expected in ((0.4, [[0.25, 0.75]]), (0.5, [[0.7, 0.3]])):
        attack = sigma_zero(kr.L0Ball(2), 1, learning_rate=0.45, threshold=threshold)
        np.testing.assert_allclose(attack(two, x, y), expected, rtol=1e-6)


@pytest.mark.slow
def test_a_pixel_of_several_channels_counts_once():
    """The first pixel alone changes the class, or two of its channels."""
    weights = tf.reshape(1 - 0.05 * tf.range(12.0), [2, 2, 3])

    def model(x):
        score = tf.reduce_sum(x * weights, axis=[1, 2, 3]) - 1.5
        return {"logits": tf.stack([tf.zeros_like(score), score], axis=1)}

    x, y = tf.zeros([1, 2, 2, 3]), tf.constant([0])
    for ball, fewest in ((kr.L0Ball(4), 1), (kr.L0Ball(12, per_channel=True), 2)):
        found = ball.distance(sigma_zero(ball, 100).compiled(model)(x, y), x)
        assert found.numpy().tolist() == [fewest]


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"ball": kr.L1Ball(1.0)}, TypeError, "sigma-zero is defined in L0; ball is L1Ball"),
        ({"steps": -1}, ValueError, "steps is -1"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate is 0.0"),
        ({"sigma": 0.0}, ValueError, "sigma is 0.0"),
        ({"threshold": 1.5}, ValueError, "threshold is 1.5"),
        ({"threshold_rate": -1.0}, ValueError, "threshold_rate is -1.0"),
    ],
)
def test_bad_settings(settings, error, match):
    with pytest.raises(error, match=match):
        sigma_zero(**{"ball": kr.L0Ball(5), **settings})
