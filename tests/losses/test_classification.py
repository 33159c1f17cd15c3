"""Losses against numbers on paper, their gradients against formulas, and what leaves them alone."""

from __future__ import annotations

import math

import hypothesis
import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf

from keras_robust import losses

logit_rows = arrays.arrays(
    np.float64, (1, 5), elements=st.floats(-20, 20, allow_subnormal=False, width=32)
)


def of(*rows):
    return tf.constant(rows, tf.float64)


def log_of(*rows):
    """Logits whose softmax is the given probabilities."""
    return tf.math.log(of(*rows))


def softmax(row):
    return np.exp(row - row.max()) / np.exp(row - row.max()).sum()


def gradient(loss, *logits):
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(*logits)
    return [g.numpy() for g in tape.gradient(value, logits)]


# Values.


def test_cross_entropy():
    """-log(1/2) and -log(1/5)."""
    logits = log_of([0.2, 0.3, 0.5], [0.2, 0.3, 0.5])
    np.testing.assert_allclose(losses.cross_entropy(logits, [2, 0]), [math.log(2), math.log(5)])


def test_kl_divergence():
    """1/2 log(1/2 / 1/4) + 1/2 log(1/2 / 3/4) = 1/2 log(4/3); the other way 3/4 log 3 - log 2."""
    p, q = log_of([0.5, 0.5]), log_of([0.25, 0.75])
    np.testing.assert_allclose(losses.kl_divergence(p, q), [math.log(4 / 3) / 2])
    np.testing.assert_allclose(losses.kl_divergence(q, p), [0.75 * math.log(3) - math.log(2)])


def test_entropy():
    """2 (1/4 log 4) + 1/2 log 2 = 3/2 log 2; log 3 for the uniform; 0 for the certain."""
    logits = of([0.0, 0.0, math.log(2)], [7.0, 7.0, 7.0], [0.0, 800.0, 0.0])
    expected = [1.5 * math.log(2), math.log(3), 0]
    np.testing.assert_allclose(losses.entropy(logits), expected, atol=1e-15)


def test_margin():
    logits = of([2.0, 5.0, 1.0], [2.0, 5.0, 1.0], [-7.0, -9.0, -8.0])
    np.testing.assert_allclose(losses.margin(logits, [0, 1, 0]), [3, -3, -1])


def test_targeted_margin_depends_on_the_target_only():
    """Target 2 trails the best other, 5, by 4, whatever the label; target 1 leads 2 by 3."""
    logits = of([2.0, 5.0, 1.0], [2.0, 5.0, 1.0])
    np.testing.assert_allclose(losses.targeted_margin(logits, [0, 1], [2, 2]), [-4, -4])
    np.testing.assert_allclose(losses.targeted_margin(logits, [0, 2], [1, 1]), [3, 3])


def test_dlr():
    """(5 - 3) / (5 - 1) where the label is second; (3 - 5) / (5 - 1) where it is first."""
    logits = of([5.0, 3.0, 1.0, 0.0], [5.0, 3.0, 1.0, 0.0])
    np.testing.assert_allclose(losses.dlr(logits, [1, 0]), [0.5, -0.5])


def test_targeted_dlr():
    """(0 - 5) / (5 - (1 + 0) / 2) = -10/9; (3 - 5) / 4.5 = -4/9."""
    logits = of([5.0, 3.0, 1.0, 0.0], [5.0, 3.0, 1.0, 0.0])
    np.testing.assert_allclose(losses.targeted_dlr(logits, [0, 0], [3, 1]), [-10 / 9, -4 / 9])


def test_boosted_cross_entropy():
    """-log 1/2 - log(1 - 0.3), but for the published offset of 1e-4."""
    value = losses.boosted_cross_entropy(log_of([0.5, 0.3, 0.2]), [0])
    np.testing.assert_allclose(value, [math.log(2) - math.log(1.0001 - 0.3 + 1e-12)], rtol=1e-12)
    np.testing.assert_allclose(value, [math.log(2) - math.log(0.7)], atol=2e-4)


def test_boosted_cross_entropy_of_a_confident_misclassification_is_finite():
    """-log p_y = 200, and -log(1.0001 - 1 + 1e-12) = 9.21 caps the other term."""
    logits = of([0.0, 200.0, 0.0])
    value = losses.boosted_cross_entropy(logits, [0])
    np.testing.assert_allclose(value, [200 - math.log(1e-4 + 1e-12)], rtol=1e-9)
    assert np.isfinite(gradient(lambda z: losses.boosted_cross_entropy(z, [0]), logits)).all()


# Gradients: with p, q the softmax of the two logits and e_k the unit vectors.

P, Q = np.array([0.3, -1.2, 2.0, 0.4]), np.array([1.0, 0.0, -0.5, 0.2])


def test_gradient_of_cross_entropy():
    """p - e_y."""
    (found,) = gradient(lambda z: losses.cross_entropy(z, [1]), of(P))
    np.testing.assert_allclose(found[0], softmax(P) - np.eye(4)[1], rtol=1e-12)


def test_gradient_of_kl_flows_through_both_arguments():
    """In the second, q - p; in the first, p (log p/q - KL)."""
    first, second = gradient(losses.kl_divergence, of(P), of(Q))
    p, q = softmax(P), softmax(Q)
    ratio = np.log(p / q)
    np.testing.assert_allclose(second[0], q - p, rtol=1e-12)
    np.testing.assert_allclose(first[0], p * (ratio - p @ ratio), rtol=1e-12)


def test_gradient_of_entropy():
    """-p (log p + H)."""
    (found,) = gradient(losses.entropy, of(P))
    p = softmax(P)
    np.testing.assert_allclose(found[0], -p * (np.log(p) - p @ np.log(p)), rtol=1e-12)


def test_gradient_of_margin():
    """e_k - e_y with k the best other: 3 for label 2, 2 for label 1."""
    for label, best in ((2, 3), (1, 2)):
        (found,) = gradient(lambda z, y=label: losses.margin(z, [y]), of(P))
        np.testing.assert_array_equal(found[0], np.eye(4)[best] - np.eye(4)[label])


def test_gradient_of_boosted_cross_entropy():
    """p - e_y + p_k (e_k - p) / (1.0001 - p_k), k the best other class: here y = 0, k = 2."""
    (found,) = gradient(lambda z: losses.boosted_cross_entropy(z, [0]), of(P))
    p, e = softmax(P), np.eye(4)
    expected = p - e[0] + p[2] * (e[2] - p) / (1.0001 - p[2])
    np.testing.assert_allclose(found[0], expected, rtol=1e-9)


@pytest.mark.parametrize(
    "loss",
    [
        lambda z: losses.dlr(z, [0]),
        lambda z: losses.targeted_dlr(z, [0], [3]),
        lambda z: losses.kl_divergence(z, z),
        lambda z: losses.boosted_cross_entropy(z, [0]),
        losses.entropy,
    ],
)
def test_tied_logits_are_finite(loss):
    assert np.isfinite(loss(tf.ones([1, 5], tf.float16))).all()
    for dtype in (tf.float32, tf.float64):
        logits = tf.ones([1, 5], dtype)
        assert np.isfinite(loss(logits)).all()
        assert np.isfinite(gradient(loss, logits)).all()


@pytest.mark.parametrize("far", [1e3, 1e30])
def test_far_apart_logits_are_finite(far):
    logits = tf.constant([[far, 0.0, -far]])
    for value in (
        losses.cross_entropy(logits, [1]),
        losses.entropy(logits),
        losses.kl_divergence(logits, -logits),
        losses.boosted_cross_entropy(logits, [1]),
        losses.dlr(logits, [1]),
    ):
        assert np.isfinite(value).all()


# What does not change a loss, and what it must agree with.


@hypothesis.given(logits=logit_rows, shift=st.floats(-30, 30), scale=st.floats(0.1, 10))
def test_dlr_ignores_shift_and_scale(logits, shift, scale):
    descending = np.sort(logits[0])[::-1]
    hypothesis.assume(descending[0] - descending[2] > 1e-3)
    changed = logits * scale + shift
    for loss in (lambda z: losses.dlr(z, [1]), lambda z: losses.targeted_dlr(z, [1], [4])):
        np.testing.assert_allclose(loss(changed), loss(logits), rtol=1e-6, atol=1e-6)


@hypothesis.given(logits=logit_rows, shift=st.floats(-30, 30))
def test_the_others_ignore_shift(logits, shift):
    for loss in (
        lambda z: losses.cross_entropy(z, [1]),
        lambda z: losses.margin(z, [1]),
        lambda z: losses.targeted_margin(z, [1], [2]),
        lambda z: losses.boosted_cross_entropy(z, [1]),
        lambda z: losses.kl_divergence(z, logits[:, ::-1].copy()),
        losses.entropy,
    ):
        np.testing.assert_allclose(loss(logits + shift), loss(logits), rtol=1e-9, atol=1e-9)


@hypothesis.given(logits=logit_rows, label=st.integers(0, 4))
def test_margin_and_dlr_are_positive_where_the_prediction_is_wrong(logits, label):
    hypothesis.assume(len(np.unique(logits)) == 5)
    wrong = logits.argmax() != label
    assert (losses.margin(logits, [label]).numpy()[0] > 0) == wrong
    assert (losses.dlr(logits, [label]).numpy()[0] > 0) == wrong
    reached = logits.argmax() == label
    assert (losses.targeted_margin(logits, [0], [label]).numpy()[0] > 0) == reached


@hypothesis.given(logits=logit_rows, other=logit_rows)
def test_ranges(logits, other):
    assert -1e-12 <= losses.entropy(logits).numpy()[0] <= math.log(5) + 1e-12
    assert losses.kl_divergence(logits, other).numpy()[0] >= -1e-12
    assert losses.kl_divergence(logits, logits).numpy()[0] == 0
    assert losses.cross_entropy(logits, [3]).numpy()[0] >= 0
    assert -1 - 1e-9 <= losses.dlr(logits, [int(logits.argmax())]).numpy()[0] <= 0


@hypothesis.given(logits=logit_rows, label=st.integers(0, 4))
def test_boosted_is_at_least_the_cross_entropy(logits, label):
    plain = losses.cross_entropy(logits, [label]).numpy()[0]
    assert losses.boosted_cross_entropy(logits, [label]).numpy()[0] >= plain - 1.1e-4


# Types and shapes.

LOSSES = {
    "cross_entropy": lambda z: losses.cross_entropy(z, [0, 1]),
    "kl_divergence": lambda z: losses.kl_divergence(z, 2 * z),
    "entropy": losses.entropy,
    "margin": lambda z: losses.margin(z, [0, 1]),
    "targeted_margin": lambda z: losses.targeted_margin(z, [0, 1], [1, 2]),
    "dlr": lambda z: losses.dlr(z, [0, 1]),
    "targeted_dlr": lambda z: losses.targeted_dlr(z, [0, 1], [1, 2]),
    "boosted_cross_entropy": lambda z: losses.boosted_cross_entropy(z, [0, 1]),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
@pytest.mark.parametrize(
    ("given", "computed"),
    [
        (tf.float16, tf.float32),
        (tf.bfloat16, tf.float32),
        (tf.float32, tf.float32),
        (tf.float64, tf.float64),
    ],
    ids=lambda dtype: dtype.name,
)
def test_half_precision_is_computed_in_float32(loss, given, computed):
    logits = tf.constant([[0.5, -1.0, 2.0, 0.25], [1.0, 0.0, 3.0, -0.5]], given)
    value = loss(logits)
    assert value.dtype == computed and value.shape == [2]
    np.testing.assert_allclose(value, loss(tf.cast(logits, tf.float64)), rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_labels_of_both_types(dtype):
    logits = tf.constant([[1.0, 2.0, 3.0, 4.0]])
    labels = np.array([1], dtype)
    for loss in (losses.cross_entropy, losses.margin, losses.dlr, losses.boosted_cross_entropy):
        assert loss(logits, labels).shape == [1]


def test_too_few_classes():
    with pytest.raises(
        ValueError, match=r"DLR loss received logits of 2 classes; expected at least 3.*margin"
    ):
        losses.dlr(tf.zeros([1, 2]), [0])
    with pytest.raises(
        ValueError, match=r"targeted DLR loss received logits of 3 classes.*at least 4"
    ):
        losses.targeted_dlr(tf.zeros([1, 3]), [0], [1])
