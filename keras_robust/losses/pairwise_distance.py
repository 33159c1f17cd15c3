"""Distances between all pairs of two batches of latent vectors.

Memory is one number per pair: differences of vectors are recomputed for the gradient, not stored.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from keras_robust.core.numerics import upcast_half

# Vectors shorter than this count as zero, and vectors closer than this as equal; the gradient of
# the length is then 0.
_TINY = 1e-12


def unit(z: tf.Tensor) -> tf.Tensor:
    """Normalizes vectors to length 1, at least float32; zero vectors stay zero, with zero gradient.

    Args:
        z: `[rows, d]`.

    Example:
        >>> unit(tf.constant([[3.0, 4.0], [0.0, 0.0]])).numpy().round(1).tolist()
        [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    z = upcast_half(z)
    square = tf.reduce_sum(tf.square(z), axis=1, keepdims=True)
    nonzero = (square > _TINY**2) | tf.math.is_nan(square)  # NaN stays NaN
    return tf.where(nonzero, z * tf.math.rsqrt(tf.where(nonzero, square, 1.0)), 0.0)


def distances(kind: str, z: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """The distance of each vector from each of the others.

    Args:
        kind: `"l1"` is the sum of the differences, `"l2"` the Euclidean length, `"linf"` the
            largest difference.
        z: `[rows, d]`.
        others: `[columns, d]`.

    Returns:
        `[rows, columns]`. The gradient is 0 for two equal vectors.

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
    # Centered vectors have smaller squares, whose difference loses fewer digits.
    center = tf.stop_gradient(tf.reduce_mean(others, axis=0))
    z, others = z - center, others - center
    lengths = tf.reduce_sum(tf.square(z), axis=1)[:, None] + tf.reduce_sum(tf.square(others), 1)
    square = lengths - 2 * tf.matmul(z, others, transpose_b=True)
    # For equal vectors the difference is a rounding error, of either sign.
    different = square > 8 * lengths * _epsilon(z.dtype) + _TINY**2
    return tf.where(different, tf.sqrt(tf.where(different, square, 1.0)), 0.0)


def _epsilon(dtype: tf.DType) -> float:
    return float(tf.experimental.numpy.finfo(dtype.as_numpy_dtype).eps)


def _entrywise(reduce: Callable, z: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """A distance that reduces absolute differences, which are recomputed for the gradient."""

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
    """The gradient in `z`: the sign of each difference; for a maximum, of the largest one."""

    def of_row(row_and_upstream: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        row, weight = row_and_upstream
        difference = row - others
        slope = tf.sign(difference)
        if reduce is tf.reduce_max:  # tied entries share the gradient
            size = tf.abs(difference)
            largest = tf.cast(size == tf.reduce_max(size, axis=1, keepdims=True), row.dtype)
            slope *= largest / tf.reduce_sum(largest, axis=1, keepdims=True)
        return tf.linalg.matvec(slope, weight, transpose_a=True)

    return tf.map_fn(of_row, (z, upstream), fn_output_signature=z.dtype)
