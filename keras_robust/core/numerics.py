"""Conversions of dtype and shape that keep precision."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import tensorflow as tf

from keras_robust.core.types import Images, PerExample


def scalar(value: Any, dtype: tf.DType) -> tf.Tensor:
    """Converts a number or scalar tensor to a dtype; Python numbers keep their full precision.

    Numbers are clipped to the range of the dtype, because infinity times 0 is NaN.

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
    """Casts half precision to float32, for sums and squares of many pixels; others are unchanged.

    Example:
        >>> [upcast_half(tf.zeros([2], dtype)).dtype.name for dtype in ("float16", "float64")]
        ['float32', 'float64']
    """
    x = tf.convert_to_tensor(x)
    return tf.cast(x, tf.float32) if x.dtype.size < 4 else x


def broadcast_to_images(value: PerExample, like: Images) -> tf.Tensor:
    """Reshapes one value per example, `[batch]`, to broadcast over the images `like`.

    Example:
        >>> broadcast_to_images(tf.constant([1.0, 2.0]), tf.zeros([2, 8, 8, 3])).shape.as_list()
        [2, 1, 1, 1]
    """
    return tf.reshape(value, [-1] + [1] * (like.shape.rank - 1))


def clip_rounding(x: Images, bounds: tuple[float, float]) -> Images:
    """Clips what lies a few units in the last place outside the bounds; leaves the rest alone.

    Example:
        >>> x = tf.constant([0.5, 1.0000001, 1.001])
        >>> clip_rounding(x, (0.0, 1.0)).numpy().tolist() == [0.5, 1.0, x.numpy()[2]]
        True
    """
    finite = [abs(bound) for bound in bounds if math.isfinite(bound)]
    slack = scalar(4 * float(_eps(x.dtype)) * max(finite, default=0.0), x.dtype)
    least, most = (scalar(bound, x.dtype) for bound in bounds)
    is_near = (x >= least - slack) & (x <= most + slack)
    return tf.where(is_near, tf.clip_by_value(x, least, most), x)


def pixel_range(bounds: tuple[float, float]) -> float:
    """The width of a pixel's range; 1 where it has no end.

    Settings that are fractions of it are the same for images in [0, 1] and in [0, 255].

    Example:
        >>> pixel_range((-1.0, 1.0)), pixel_range((0.0, math.inf))
        (2.0, 1.0)
    """
    width = float(bounds[1]) - float(bounds[0])
    return width if math.isfinite(width) else 1.0


def _eps(dtype: tf.DType) -> float:
    """The distance from 1 to the next number of a dtype."""
    return float(ml_dtypes.finfo(dtype.as_numpy_dtype).eps)
