"""Scores against numbers derived by hand, and where naive formulas break down."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from keras_robust import losses
from keras_robust.detection.scores import entropy, mean_log_probability


def test_entropy_of_known_distributions():
    """H(1/4 x 4) = log 4; H(1/2, 1/4, 1/4, 0) = 1.5 log 2; a certain prediction has none."""
    p = [[0.25, 0.25, 0.25, 0.25], [0.5, 0.25, 0.25, 1e-30], [1.0, 1e-30, 1e-30, 1e-30]]
    scores = entropy({"logits": tf.math.log(tf.constant(p))}).numpy()
    np.testing.assert_allclose(scores, [math.log(4), 1.5 * math.log(2), 0.0], atol=1e-6)


def test_entropy_of_members_is_that_of_their_mean_probability():
    """Members (0.9, 0.1) and (0.1, 0.9) have the mean (0.5, 0.5), whose entropy is log 2."""
    members = tf.math.log([[[0.9, 0.1], [0.1, 0.9]], [[0.9, 0.1], [0.7, 0.3]]])
    scores = entropy({"logits": tf.zeros([2, 2]), "member_logits": members}).numpy()
    second = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2))
    np.testing.assert_allclose(scores, [math.log(2), second], rtol=1e-6)


def test_the_logits_of_an_ensemble_are_not_read():
    members = tf.random.stateless_normal([3, 2, 5], seed=[0, 0])
    a = entropy({"logits": tf.zeros([3, 5]), "member_logits": members})
    b = entropy({"logits": 9.0 * tf.ones([3, 5]), "member_logits": members})
    np.testing.assert_array_equal(a, b)


def test_one_member_equals_a_single_classifier():
    logits = tf.random.stateless_normal([7, 5], seed=[0, 1]) * 5
    single = entropy({"logits": logits})
    np.testing.assert_allclose(
        entropy({"logits": logits, "member_logits": logits[:, None]}), single, rtol=1e-5
    )
    np.testing.assert_allclose(single, losses.entropy(logits), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
def test_certain_predictions_have_no_entropy_and_no_nan(size):
    logits = tf.constant([[size, -size, 0.0]])
    members = tf.stack([logits, logits], axis=1)
    assert entropy({"logits": logits}).numpy().tolist() == [0.0]
    assert math.copysign(1, entropy({"logits": logits}).numpy()[0]) == 1  # no minus nothing
    outputs = {"logits": logits, "member_logits": members}
    np.testing.assert_allclose(entropy(outputs), [0.0], atol=1e-6)


def test_scores_are_float32_whatever_the_logits_are():
    for dtype in (tf.float16, tf.bfloat16, tf.float32):
        outputs = {"logits": tf.cast([[1.0, 2.0]], dtype)}
        assert entropy(outputs).dtype == tf.float32
        assert mean_log_probability(outputs).dtype == tf.float32


def test_probabilities_add_up_to_one():
    members = tf.random.stateless_normal([4, 3, 6], seed=[0, 2]) * 20
    outputs = {"logits": members[:, 0], "member_logits": members}
    total = tf.reduce_sum(tf.exp(mean_log_probability(outputs)), axis=-1)
    np.testing.assert_allclose(total, tf.ones(4), rtol=1e-5)
