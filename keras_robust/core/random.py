"""Stateless random numbers that are the same in a graph, under XLA and on every device.

TensorFlow leaves the generator to the device, and XLA turns its bits into floats in a way of its
own. Here the generator is Philox by name, and floats are made of its integers as TensorFlow's
kernels for the CPU make them: integers are equal everywhere, uniform numbers as well, and normal
ones up to rounding.
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

_ALGORITHM = "philox"
_MANTISSA, _ONE = 0x7FFFFF, 0x3F800000  # of a float32: its mantissa, and 1.0


def fold_in(seed: tf.Tensor, data: Any) -> tf.Tensor:
    """A new seed from a seed `[2]` and an integer."""
    return tf.random.experimental.stateless_fold_in(seed, data, alg=_ALGORITHM)


def split(seed: tf.Tensor, count: int | tf.Tensor) -> tf.Tensor:
    """New seeds `[count, 2]` from a seed `[2]`."""
    return tf.random.split(seed, count, alg=_ALGORITHM)


def integers(shape: Any, seed: tf.Tensor, most: int, dtype: tf.DType = tf.int32) -> tf.Tensor:
    """Integers that are uniform in `[0, most)`."""
    return tf.random.stateless_uniform(shape, seed, 0, most, dtype, alg=_ALGORITHM)


def uniform(
    shape: Any,
    seed: tf.Tensor,
    low: float = 0.0,
    high: float = 1.0,
    dtype: tf.DType = tf.float32,
) -> tf.Tensor:
    """Numbers that are uniform in `[low, high)`.

    Args:
        shape: of the result.
        seed: an int tensor of shape `[2]`.
        low, high: the ends.
        dtype: float32; others are drawn by TensorFlow, and are not the same under XLA.

    Example:
        >>> seed = tf.constant([7, 0])
        >>> compiled = tf.function(uniform, jit_compile=True)
        >>> bool(tf.reduce_all(compiled([9], seed) == uniform([9], seed)))
        True
    """
    if dtype != tf.float32:
        return tf.random.stateless_uniform(shape, seed, low, high, dtype, alg=_ALGORITHM)
    return _unit(_bits(shape, seed)) * (high - low) + low


def normal(shape: Any, seed: tf.Tensor, dtype: tf.DType = tf.float32) -> tf.Tensor:
    """Standard normal numbers, by the transform of Box and Muller; arguments as of `uniform`."""
    if dtype != tf.float32:
        return tf.random.stateless_normal(shape, seed, dtype=dtype, alg=_ALGORITHM)
    size = tf.reduce_prod(shape)
    pairs = _unit(_bits([(size + 1) // 2, 2], seed))
    length = tf.sqrt(-2.0 * tf.math.log(tf.maximum(pairs[:, 0], 1e-7)))
    angle = 2.0 * math.pi * pairs[:, 1]
    both = tf.stack([tf.sin(angle) * length, tf.cos(angle) * length], axis=1)
    return tf.reshape(tf.reshape(both, [-1])[:size], shape)


def _bits(shape: Any, seed: tf.Tensor) -> tf.Tensor:
    """Integers of 32 random bits."""
    return tf.random.stateless_uniform(shape, seed, None, None, tf.int32, alg=_ALGORITHM)


def _unit(bits: tf.Tensor) -> tf.Tensor:
    """Floats in `[0, 1)` whose mantissas are the low bits."""
    mantissa = tf.bitwise.bitwise_and(bits, _MANTISSA)
    return tf.bitcast(tf.bitwise.bitwise_or(mantissa, _ONE), tf.float32) - 1.0
