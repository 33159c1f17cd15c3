"""The squared differences of logits in the gradient of the Kullback-Leibler divergence."""

from __future__ import annotations

import tensorflow as tf

from keras_robust.core.numerics import upcast_half
from keras_robust.core.types import Logits, PerExample


def pairwise_mse(logits: Logits, other: Logits, weights: tf.Tensor) -> PerExample:
    """`1/4 sum_jk w_j w_k ((z_j - z_k) - (z'_j - z'_k))^2`, of the differences of all logits.

    With the weights `softmax(z)` and no gradient through them and `z'`, its gradient is that of
    `KL(softmax(z) || softmax(z'))` in `z`.

    Args:
        logits, other: z and z', `[batch, classes]`.
        weights: probabilities of the classes, `[batch, classes]`.

    Example:
        >>> z = tf.constant([[3.0, 0.0]])
        >>> pairwise_mse(z, tf.zeros([1, 2]), tf.constant([[0.5, 0.5]])).numpy().tolist()
        [1.125]

    Reference: Cui et al., "Decoupled Kullback-Leibler Divergence Loss" (2024), Theorem 1.
    """
    difference = upcast_half(logits) - upcast_half(other)
    weights = tf.cast(weights, difference.dtype)
    # Half of the variance under the weights, whose sum of pairs is twice that.
    mean = tf.reduce_sum(weights * difference, axis=1, keepdims=True)
    return 0.5 * tf.reduce_sum(weights * tf.square(difference - mean), axis=1)
