"""Losses on logits, one value per example.

They take unnormalized logits `[batch, classes]` and integer labels `[batch]`, and return `[batch]`.
Half-precision logits are computed in float32; float64 stays float64. Larger values are worse for
the classifier: attacks maximize what defenses minimize.
"""

from __future__ import annotations

import math

import tensorflow as tf

from keras_robust.core.labels import of_other_classes
from keras_robust.core.numerics import upcast_half
from keras_robust.core.types import Labels, Logits, PerExample
from keras_robust.losses.label_smoothing import present_smoothing

# Added to denominators that vanish when logits are tied (the constant of the official AutoAttack).
_TIE = 1e-12


def _at(values: tf.Tensor, labels: Labels) -> PerExample:
    return tf.gather(values, labels, axis=1, batch_dims=1)


def _best_other(values: tf.Tensor, labels: Labels) -> PerExample:
    """The largest value of a class other than the label."""
    return tf.reduce_max(of_other_classes(values, labels), axis=1)


def _descending(logits: Logits, least: int, name: str) -> tf.Tensor:
    if logits.shape[-1] is not None and logits.shape[-1] < least:
        raise ValueError(
            f"{name} received logits of {logits.shape[-1]} classes; expected at least {least}. "
            "Use the margin loss instead."
        )
    return tf.math.top_k(logits, k=least).values


def negative_log_likelihood(logits: Logits, labels: Labels) -> PerExample:
    """Minus the log-probability of the label, `-log p_y`, whatever `smoothed_labels` says.

    Computed as `log(1 + sum_{k != y} exp(z_k - z_y))`, whose gradient keeps its direction however
    certain the prediction is; in `p_y - 1` it would cancel.

    Example:
        >>> print(f"{negative_log_likelihood(tf.zeros([1, 2]), tf.constant([1]))[0]:.4f}")
        0.6931
    """
    logits = upcast_half(logits)
    others = tf.reduce_logsumexp(of_other_classes(logits, labels), axis=-1)
    return tf.nn.softplus(others - _of_label(logits, labels))


def cross_entropy(logits: Logits, labels: Labels) -> PerExample:
    """Cross-entropy of the softmax and the label, `-log p_y`.

    In the context `smoothed_labels(alpha)`, that of the soft label `(1 - alpha) * one_hot(y) +
    alpha / classes`: `-log p_y + alpha * (z_y - mean_k z_k)`.

    Example:
        >>> print(f"{cross_entropy(tf.zeros([1, 2]), tf.constant([1]))[0]:.4f}")
        0.6931
    """
    logits = upcast_half(logits)
    loss = negative_log_likelihood(logits, labels)
    alpha = present_smoothing()
    if not alpha:
        return loss
    return loss + alpha * (_of_label(logits, labels) - tf.reduce_mean(logits, axis=-1))


def _of_label(logits: Logits, labels: Labels) -> tf.Tensor:
    """The logit of the label, `[...]` of logits `[..., classes]`."""
    return tf.gather(logits, labels, axis=-1, batch_dims=logits.shape.rank - 1)


def kl_divergence(logits: Logits, other: Logits) -> PerExample:
    """`KL(softmax(logits) || softmax(other))`, differentiable in both arguments.

    Example:
        >>> kl_divergence(tf.constant([[1.0, 0.0]]), tf.constant([[1.0, 0.0]])).numpy().tolist()
        [0.0]
    """
    log_p = tf.nn.log_softmax(upcast_half(logits))
    log_q = tf.nn.log_softmax(upcast_half(other))
    return tf.reduce_sum(tf.exp(log_p) * (log_p - log_q), axis=1)


def entropy(logits: Logits) -> PerExample:
    """Entropy of the softmax in nats: from 0 (certain) to `log(classes)` (uniform).

    Example:
        >>> print(f"{entropy(tf.zeros([1, 10]))[0]:.4f}")
        2.3026
    """
    log_p = tf.nn.log_softmax(upcast_half(logits))
    return -tf.reduce_sum(tf.exp(log_p) * log_p, axis=-1)


def log_mean_probability(member_logits: Logits) -> Logits:
    """The logarithm of the members' mean softmax, `log (1/M) sum_m softmax(z_m)`.

    Computed by log-sum-exp, so that small probabilities do not underflow.

    Args:
        member_logits: `[..., members, classes]`.

    Returns:
        `[..., classes]`.

    Example:
        >>> certain = tf.constant([[[9.0, -9.0], [-9.0, 9.0]]])
        >>> tf.exp(log_mean_probability(certain)).numpy().round(3).tolist()
        [[0.5, 0.5]]
    """
    members = tf.nn.log_softmax(upcast_half(member_logits))
    return tf.reduce_logsumexp(members, axis=-2) - math.log(members.shape[-2])


def margin(logits: Logits, labels: Labels) -> PerExample:
    """The largest other logit minus the label's; positive if and only if misclassified.

    Example:
        >>> margin(tf.constant([[2.0, 5.0, 1.0]]), tf.constant([0])).numpy().tolist()
        [3.0]

    Reference: Carlini and Wagner, "Towards Evaluating the Robustness of Neural Networks" (2017),
    objective f6 without its floor.
    """
    logits = upcast_half(logits)
    return _best_other(logits, labels) - _at(logits, labels)


def misclassified(logits: Logits, labels: Labels) -> tf.Tensor:
    """Whether the prediction differs from the label, bool `[batch]`; False for non-finite logits.

    Of tied logits the first is predicted.

    Example:
        >>> logits, labels = tf.constant([[1.0, 1.0], [0.0, 1.0]]), tf.constant([0, 0])
        >>> misclassified(logits, labels).numpy().tolist()
        [False, True]
    """
    finite = tf.reduce_all(tf.math.is_finite(logits), axis=1)
    return finite & tf.not_equal(tf.argmax(logits, axis=1, output_type=labels.dtype), labels)


def targeted_margin(logits: Logits, labels: Labels, targets: Labels) -> PerExample:
    """The target's logit minus the largest other one; positive if and only if it is predicted.

    Example:
        >>> z = tf.constant([[2.0, 5.0, 1.0]])
        >>> targeted_margin(z, tf.constant([0]), tf.constant([1])).numpy().tolist()
        [3.0]
    """
    del labels
    logits = upcast_half(logits)
    return _at(logits, targets) - _best_other(logits, targets)


def dlr(logits: Logits, labels: Labels) -> PerExample:
    """Difference of logits ratio, `-(z_y - max_{i != y} z_i) / (z_(1) - z_(3))`.

    Unlike the cross-entropy it does not change when the logits are shifted or scaled.

    Raises:
        ValueError: fewer than 3 classes.

    Example:
        >>> dlr(tf.constant([[4.0, 2.0, 0.0]]), tf.constant([0])).numpy().tolist()
        [-0.5]

    Reference: Croce and Hein, "Reliable Evaluation of Adversarial Robustness" (2020), Eq. 6.
    """
    logits = upcast_half(logits)
    top = _descending(logits, 3, "The DLR loss")
    return margin(logits, labels) / (top[:, 0] - top[:, 2] + _TIE)


def targeted_dlr(logits: Logits, labels: Labels, targets: Labels) -> PerExample:
    """Targeted DLR, `-(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2)`.

    Raises:
        ValueError: fewer than 4 classes.

    Example:
        >>> z = tf.constant([[4.0, 2.0, 1.0, 1.0]])
        >>> targeted_dlr(z, tf.constant([0]), tf.constant([2])).numpy().tolist()
        [-1.0]

    Reference: Croce and Hein (2020), Eq. 7.
    """
    logits = upcast_half(logits)
    top = _descending(logits, 4, "The targeted DLR loss")
    ahead = _at(logits, targets) - _at(logits, labels)
    return ahead / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + _TIE)


def boosted_cross_entropy(logits: Logits, labels: Labels) -> PerExample:
    """MART's boosted cross-entropy, `-log p_y - log(1 - max_{k != y} p_k)`.

    `smoothed_labels` smooth the first term; the second one compares with the label itself.

    Example:
        >>> z = tf.constant([[0.0, 0.0]])
        >>> print(f"{boosted_cross_entropy(z, tf.constant([0]))[0]:.3f}")
        1.386

    Reference: Wang et al., "Improving Adversarial Robustness Requires Revisiting Misclassified
    Examples" (MART, 2020), Eq. 10.
    """
    logits = upcast_half(logits)
    # 1.0001 and 1e-12 keep the logarithm finite for a confident misclassification; constants of
    # the published implementation, which change the value by less than 2e-4 if the label is
    # predicted.
    runner_up = _best_other(tf.nn.softmax(logits), labels)
    return cross_entropy(logits, labels) - tf.math.log(1.0001 - runner_up + 1e-12)


def member_cross_entropies(member_logits: Logits, y: Labels) -> tf.Tensor:
    """Cross-entropy of each member's softmax and the label; see `cross_entropy`.

    Args:
        member_logits: `[..., batch, members, classes]`.
        y: labels `[batch]`.

    Returns:
        `[..., batch, members]`.

    Example:
        >>> member_cross_entropies(tf.zeros([4, 3, 10]), tf.zeros([4], tf.int32)).shape.as_list()
        [4, 3]
    """
    labels = tf.broadcast_to(y[:, None], tf.shape(member_logits)[:-1])
    return cross_entropy(member_logits, labels)
