"""Scores against numbers derived by hand, and where naive formulas break down."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from keras_robust import losses
from keras_robust.losses.uncertainty import (
    SCORES,
    disagreement,
    entropy,
    get,
    least_confidence,
    mean_log_probability,
    member_entropy,
)


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


def of_members(*probabilities):
    """Outputs of one image, from the members' probabilities."""
    members = tf.math.log(tf.constant([probabilities], tf.float32))
    return {"logits": members[:, 0], "member_logits": members}


def test_least_confidence_is_of_the_mean():
    """Members (0.9, 0.1) and (0.5, 0.5): the mean (0.7, 0.3)."""
    np.testing.assert_allclose(least_confidence(of_members([0.9, 0.1], [0.5, 0.5])), [0.3], 1e-5)
    alone = least_confidence({"logits": tf.math.log([[0.2, 0.8]])})
    np.testing.assert_allclose(alone, [0.2], rtol=1e-5)


def test_entropy_is_what_members_lack_and_what_they_disagree_on():
    """The mean has H = log 2 in both; of equal members all is their own, of sure ones nothing."""
    half = math.log(2)
    for members, own, between in (
        (([0.5, 0.5], [0.5, 0.5]), half, 0.0),
        (([1 - 1e-7, 1e-7], [1e-7, 1 - 1e-7]), 0.0, half),
    ):
        np.testing.assert_allclose(member_entropy(of_members(*members)), [own], atol=1e-5)
        np.testing.assert_allclose(disagreement(of_members(*members)), [between], atol=1e-5)
    members = {"member_logits": 3 * tf.random.stateless_normal([9, 3, 5], [0, 3])}
    np.testing.assert_allclose(
        member_entropy(members) + disagreement(members), entropy(members), rtol=1e-5
    )


def test_disagreement_keeps_its_digits():
    """Of members 1e-3 on both sides of a half: (1e-3)^2 / (2 * 0.5), for each of two classes."""
    close = of_members([0.501, 0.499], [0.499, 0.501])
    np.testing.assert_allclose(disagreement(close), [2e-6], rtol=2e-2)
    assert float(disagreement(of_members([0.3, 0.7], [0.3, 0.7]))[0]) == 0


def test_a_single_classifier_has_no_members():
    outputs = {"logits": tf.constant([[0.3, 0.1]])}
    np.testing.assert_array_equal(member_entropy(outputs), entropy(outputs))
    with pytest.raises(ValueError, match=r"outputs \['logits'\]; expected those of an ensemble"):
        disagreement(outputs)


def test_scores_by_name():
    outputs = of_members([0.9, 0.1], [0.2, 0.8])
    for name, score in SCORES.items():
        assert get(name) is score
        found = score.of(outputs)
        assert found.shape == [1] and found.dtype == tf.float32 and 0 < found[0] <= math.log(2)
    with pytest.raises(ValueError, match="no score 'max'; expected one of entropy, least_conf"):
        get("max")
