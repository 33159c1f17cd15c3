"""TODO keras_robust.core.numerics."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_robust.core.types import Images, PerExample


def scalar(value: Any, dtype: tf.DType) -> tf.Tensor:
    """A number, or a scalar tensor, in a dtype; Python numbers keep their full precision.

    A number beyond the largest of the dtype becomes the largest: infinity times 0 is no number.

    Example:
        >>> float(scalar(0.1, tf.float64))
        0.1
        >>> float(scalar(1e6, tf.float16))
        65504.0
    """
    if tf.is_tensor(value):
        return tf.cast(value, dtype)
    largest = float(tf.as_dtype(dtype).max)
    # tf.cast would round a Python float to float32 first.
    return tf.constant(min(max(float(value), -largest), largest), dtype)


def upcast_half(x: tf.Tensor) -> tf.Tensor:
    """Half precision as float32, in which sums and squares of many pixels are safe; others as is.

    Example:
        >>> upcast_half(tf.zeros([2], tf.float16)).dtype.name, upcast_half(tf.zeros([2], tf.float64)).dtype.name
        ('float32', 'float64')
    """
    x = tf.convert_to_tensor(x)
    return tf.cast(x, tf.float32) if x.dtype.size < 4 else x


def broadcast_to_images(value: PerExample, like: Images) -> tf.Tensor:
    """One value per example, `[batch]`, in the shape that broadcasts over the images `like`.

    Example:
        >>> broadcast_to_images(tf.constant([1.0, 2.0]), tf.zeros([2, 8, 8, 3])).shape.as_list()
        [2, 1, 1, 1]
    """
    return tf.reshape(value, [-1] + [1] * (like.shape.rank - 1))
