"""Stateless random numbers that are the same in a graph, under XLA and on every device.

TensorFlow leaves the generator to the device, and XLA turns its bits into floats in a way of its
own. Here the generator is Philox by name, and floats are made of its integers as TensorFlow's
kernels for the CPU make them: integers are equal everywhere, uniform numbers as well, and normal
ones up to rounding.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

_ALGORITHM = "philox"
_MANTISSA, _ONE = 0x7FFFFF, 0x3F800000  # of a float32: its mantissa, and 1.0
_PER_COUNT = 4  # numbers that Philox makes of one value of its counter


def fold_in(seed: tf.Tensor, data: Any) -> tf.Tensor:
    """A new seed from a seed `[2]` and an integer."""
    return tf.random.experimental.stateless_fold_in(seed, data, alg=_ALGORITHM)


def split(seed: tf.Tensor, count: int | tf.Tensor) -> tf.Tensor:
    """New seeds `[count, 2]` from a seed `[2]`."""
    return tf.random.split(seed, count, alg=_ALGORITHM)


def integers(shape: Any, seed: tf.Tensor, most: int, dtype: tf.DType = tf.int32) -> tf.Tensor:
    """Integers that are uniform in `[0, most)`."""
    return tf.random.stateless_uniform(shape, seed, 0, most, dtype, alg=_ALGORITHM)


def bits(shape: Any, seed: tf.Tensor) -> tf.Tensor:
    """Integers of 32 random bits, int32."""
    return tf.random.stateless_uniform(shape, seed, None, None, tf.int32, alg=_ALGORITHM)


def permutation(count: int | tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """The numbers from 0 to `count - 1` in a random order."""
    return tf.random.experimental.stateless_shuffle(tf.range(count), seed, alg=_ALGORITHM)


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
    unit = _unit(bits(shape, seed))
    if (low, high) == (0.0, 1.0):
        return unit
    least, most = tf.cast(low, dtype), tf.cast(high, dtype)
    return unit * (most - least) + least


def normal(shape: Any, seed: tf.Tensor, dtype: tf.DType = tf.float32) -> tf.Tensor:
    """Standard normal numbers, by the transform of Box and Muller; arguments as of `uniform`."""
    if dtype != tf.float32:
        return tf.random.stateless_normal(shape, seed, dtype=dtype, alg=_ALGORITHM)
    shape = tf.convert_to_tensor(shape, tf.int32)
    size = tf.reduce_prod(shape)
    pairs = _unit(bits([(size + 1) // 2, 2], seed))
    length = tf.sqrt(-2.0 * tf.math.log(tf.maximum(pairs[:, 0], 1e-7)))
    angle = 2.0 * math.pi * pairs[:, 1]
    both = tf.stack([tf.sin(angle) * length, tf.cos(angle) * length], axis=1)
    return tf.reshape(tf.reshape(both, [-1])[:size], shape)


def gamma(shape: Any, seed: tf.Tensor, alpha: float, dtype: tf.DType = tf.float64) -> tf.Tensor:
    """Draws from the gamma distribution of a shape parameter; not under XLA."""
    key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=seed)
    draws = tf.raw_ops.StatelessRandomGammaV3(
        shape=shape,
        key=key,
        counter=counter,
        alg=tf.random.Algorithm.PHILOX.value,
        alpha=tf.fill(shape, tf.constant(alpha, dtype)),
    )
    return tf.maximum(draws, float(np.finfo(dtype.as_numpy_dtype).tiny))


def key_of(seed: tf.Tensor) -> tf.Tensor:
    """The key of the generator for a seed, `[1]` uint64; see `numbered_normal`."""
    return tf.raw_ops.StatelessRandomGetKeyCounter(seed=seed)[0]


def numbered_normal(key: tf.Tensor, first: tf.Tensor, count: tf.Tensor, size: int) -> tf.Tensor:
    """Standard normal noise of the samples `first`, `first + 1`, ..., `[count, size]` float32.

    A sample does not depend on the others that are drawn with it: each has its own part of the
    counter of the generator.

    Args:
        key: `[1]` uint64, of `key_of`.
        first: the number of the first sample, uint64.
        count: how many samples to draw.
        size: the length of a sample.
    """
    blocks = -(-size // _PER_COUNT)
    counter = tf.stack([first * blocks, tf.zeros_like(first)])
    noise = tf.raw_ops.StatelessRandomNormalV2(
        shape=tf.stack([count, blocks * _PER_COUNT]),
        key=key,
        counter=counter,
        alg=tf.random.Algorithm.PHILOX.value,
    )
    return noise[:, :size]


def _unit(words: tf.Tensor) -> tf.Tensor:
    """Floats in `[0, 1)` whose mantissas are the low bits."""
    mantissa = tf.bitwise.bitwise_and(words, _MANTISSA)
    return tf.bitcast(tf.bitwise.bitwise_or(mantissa, _ONE), tf.float32) - 1.0
