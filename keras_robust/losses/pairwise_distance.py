"""Distances and similarities between all pairs of two batches of latent vectors.

What is kept is a number for each pair, never a vector: memory grows with the number of pairs, not
with that times the size of a latent.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from keras_robust.core.numerics import upcast_half

# Vectors shorter than this count as zero, and vectors closer than this as equal: there the length
# has no direction, and its gradient is 0.
_TINY = 1e-12


def unit(z: tf.Tensor) -> tf.Tensor:
    """Vectors of length 1, in float32 at least; zero vectors stay zero, with a gradient of 0.

    Args:
        z: `[rows, d]`.

    Example:
        >>> unit(tf.constant([[3.0, 4.0], [0.0, 0.0]])).numpy().round(1).tolist()
        [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    z = upcast_half(z)
    square = tf.reduce_sum(tf.square(z), axis=1, keepdims=True)
    some = (square > _TINY**2) | tf.math.is_nan(square)  # what is no number stays none
    return tf.where(some, z * tf.math.rsqrt(tf.where(some, square, 1.0)), 0.0)


def distances(kind: str, z: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """The distance of each vector from each of the others.

    Args:
        kind: `"l1"` is the sum of the differences, `"l2"` the Euclidean length, `"linf"` the
            largest difference.
        z: `[rows, d]`.
        others: `[columns, d]`.

    Returns:
        `[rows, columns]`. Where two vectors are equal the gradient is 0.

    Example:
        >>> z, others = tf.constant([[0.0, 0.0]]), tf.constant([[3.0, -4.0], [0.0, 0.0]])
        >>> [distances(kind, z, others).numpy().tolist() for kind in ("l1", "l2", "linf")]
        [[[7.0, 0.0]], [[5.0, 0.0]], [[4.0, 0.0]]]
    """
    z, others = upcast_half(z), upcast_half(others)
    if kind == "l2":
        return _euclidean(z, others)
    return _entrywise(tf.reduce_sum if kind == "l1" else tf.reduce_max, z, others)


def _euclidean(z: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    # From their common middle the squares are small, and lose less when they are subtracted.
    middle = tf.stop_gradient(tf.reduce_mean(others, axis=0))
    z, others = z - middle, others - middle
    lengths = tf.reduce_sum(tf.square(z), axis=1)[:, None] + tf.reduce_sum(tf.square(others), 1)
    square = lengths - 2 * tf.matmul(z, others, transpose_b=True)
    # What is left of equal vectors is rounding, of either sign.
    apart = square > 8 * lengths * _epsilon(z.dtype) + _TINY**2
    return tf.where(apart, tf.sqrt(tf.where(apart, square, 1.0)), 0.0)


def _epsilon(dtype: tf.DType) -> float:
    return float(tf.experimental.numpy.finfo(dtype.as_numpy_dtype).eps)


def _entrywise(reduce: Callable, z: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """A distance made of absolute differences, which are computed again for the gradient."""

    @tf.custom_gradient
    def pairs(z: tf.Tensor, others: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return (
                _entrywise_gradient(reduce, z, others, upstream),
                _entrywise_gradient(reduce, others, z, tf.transpose(upstream)),
            )

        return tf.map_fn(lambda row: reduce(tf.abs(row - others), axis=1), z), gradient

    return pairs(z, others)


def _entrywise_gradient(
    reduce: Callable, z: tf.Tensor, others: tf.Tensor, upstream: tf.Tensor
) -> tf.Tensor:
    """The gradient in `z`: the sign of each difference, for a maximum that of the largest."""

    def of_row(row_and_upstream: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        row, weight = row_and_upstream
        apart = row - others
        slope = tf.sign(apart)
        if reduce is tf.reduce_max:  # entries that tie share it
            size = tf.abs(apart)
            largest = tf.cast(size == tf.reduce_max(size, axis=1, keepdims=True), row.dtype)
            slope *= largest / tf.reduce_sum(largest, axis=1, keepdims=True)
        return tf.linalg.matvec(slope, weight, transpose_a=True)

    return tf.map_fn(of_row, (z, upstream), fn_output_signature=z.dtype)
