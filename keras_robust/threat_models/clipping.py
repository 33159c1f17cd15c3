"""Clipping into the bounds of a ball, with the rounding of half precision."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_robust.core.numerics import scalar
from keras_robust.core.types import Ball, Images
from keras_robust.threat_models.masks import restored


def clipped(
    bounds: tuple[float, float], x: Images, dtype: tf.DType, center: Images | None = None
) -> Images:
    """Rounds to the dtype of the images, then clips, so that rounding cannot leave the bounds.

    Args:
        bounds: the range of a pixel.
        x: images, float32 for a dtype of half precision.
        dtype: the dtype of the result.
        center: in half precision, pixels are rounded toward these images, of that dtype; None
            rounds to the nearest number.
    """
    if center is not None and dtype.size < 4:
        x = _rounded_toward(tf.cast(center, x.dtype), x, tf.as_dtype(dtype))
    return tf.clip_by_value(tf.cast(x, dtype), scalar(bounds[0], dtype), scalar(bounds[1], dtype))


@tf.custom_gradient
def with_gradient_of(x: Images, rounded: Images) -> tuple[Images, Any]:
    """`rounded`, which is differentiated as if it were `x`, of the same shape and dtype."""
    return tf.identity(rounded), lambda gradient: (gradient, None)


def _rounded_toward(center: Images, x: Images, dtype: tf.DType) -> Images:
    """Numbers of a half precision, as float32, next to `x` on the side of `center`."""
    # Computed rather than compared after a cast, as XLA may leave out casts to half precision.
    bits, down = tf.bitcast(x, tf.int32), x > center
    if dtype == tf.bfloat16:  # the upper half of the bits of a float32
        larger = tf.where(down == (x > 0), 0, 0xFFFF)
        rounded = tf.bitcast((bits + larger) & -0x10000, tf.float32)
    else:
        binade = tf.bitcast(bits & 0x7F800000, tf.float32)
        spacing = tf.maximum(binade * 2.0**-10, 2.0**-24)
        scaled = x / spacing
        rounded = spacing * tf.where(down, tf.floor(scaled), tf.math.ceil(scaled))
    return with_gradient_of(x, tf.where(tf.math.is_finite(x), rounded, x))


def allowed(ball: Ball, x_adv: Images, x: Images) -> Images:
    """`x_adv` clipped into the bounds of a ball, and `x` where its mask lets no pixel change.

    For points that an attack does not project onto the ball; their distance may be any.

    Args:
        ball: the threat model.
        x_adv: images, float32 where `x` has half precision.
        x: images of the dtype of the result, with clean pixels where none may change.

    Example:
        >>> from keras_robust import LinfBall
        >>> ball, x = LinfBall(0.1, mask=[0, 1]), tf.constant([[0.5, 0.5]])
        >>> allowed(ball, tf.constant([[2.0, 2.0]]), x).numpy().tolist()
        [[0.5, 1.0]]
    """
    return restored(ball, clipped(ball.bounds, x_adv, x.dtype), x)
