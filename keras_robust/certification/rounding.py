"""How far float32 may be from exact arithmetic, which bounds are widened by.

An affine layer sums `n` products (its fan-in). Bounds grow outward by `slack(n)` times the sum of
the products' absolute values, `|W| |x| + |b|`, with

    slack(n) = (1 + sqrt(n)) unit,  unit = 2^-23 in float32 (2^-10 with TF32 on a GPU)

Half of it is for the sums of the model, half for those of the bounds. Rounding errors of a sum grow
as `sqrt(n)` unless they conspire, and less where it is split over vector registers; the worst case
is `n`. For a fan-in of 1,024 the slack is 3.9e-6.

Reference: Higham and Mary, "A New Approach to Probabilistic Rounding Error Analysis" (2019),
theorem 3.1.
"""

from __future__ import annotations

import math

import ml_dtypes
import tensorflow as tf

_TF32_UNIT = 2.0**-10


def slack(fan_in: int, dtype: tf.DType) -> float:
    """The relative amount by which the bounds of an affine layer are widened.

    Args:
        fan_in: number of products in one sum; 0 for a layer that only moves values.
        dtype: of the bounds.

    Example:
        >>> slack(0, tf.float32), round(slack(1024, tf.float32), 7)
        (0.0, 3.9e-06)
    """
    return (1 + math.sqrt(fan_in)) * _unit(dtype) if fan_in else 0.0


def _unit(dtype: tf.DType) -> float:
    if dtype == tf.float32 and _has_tf32():
        return _TF32_UNIT
    return float(ml_dtypes.finfo(dtype.as_numpy_dtype).eps)


def _has_tf32() -> bool:
    enabled = tf.config.experimental.tensor_float_32_execution_enabled()
    return bool(enabled and tf.config.list_physical_devices("GPU"))
