"""Choosing pixels for L0: images as `[batch, pixels, values]`, and the largest of the pixels.

A pixel is a position of an image `[height, width, channels]` with all its channels; elsewhere, and
where `per_channel` holds, it is a single value.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_robust.core.numerics import upcast_half
from keras_robust.core.types import Images


def values_per_pixel(x: Images, per_channel: bool = False) -> int | tf.Tensor:
    """The number of values of a pixel: the channels of images `[batch, height, width, channels]`.

    Example:
        >>> values_per_pixel(tf.zeros([2, 4, 4, 3])), values_per_pixel(tf.zeros([2, 48]))
        (3, 1)
    """
    if per_channel or x.shape.rank != 4:
        return 1
    channels = x.shape[-1]
    return tf.shape(x)[-1] if channels is None else channels


def counts_channels(ball: Any) -> bool:
    """Whether a ball in L0, of the package or your own, counts each channel of a pixel."""
    return bool(getattr(ball, "per_channel", False))


def as_pixels(x: Images, per_channel: bool = False) -> tf.Tensor:
    """Reshapes images to `[batch, pixels, values]`, at least float32.

    Example:
        >>> as_pixels(tf.zeros([2, 4, 4, 3])).shape.as_list()
        [2, 16, 3]
    """
    x = upcast_half(x)
    values = values_per_pixel(x, per_channel)
    return tf.reshape(x, [tf.shape(x)[0], tf.reduce_prod(tf.shape(x)[1:]) // values, values])


def largest(score: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Marks exactly the `count` largest entries of each row; of equal ones the first.

    Args:
        score: `[batch, pixels]`.
        count: an int32 scalar, or one per row, `[batch]`.

    Returns:
        bool, the shape of `score`.

    Example:
        >>> largest(tf.constant([[1.0, 3.0, 3.0]] * 2), tf.constant([1, 2])).numpy().tolist()
        [[False, True, False], [False, True, True]]
    """
    order = tf.argsort(score, axis=1, direction="DESCENDING", stable=True)
    rank = tf.argsort(order, axis=1, stable=True)
    return rank < tf.reshape(count, [-1, 1])


def onto_ball_and_box(
    delta: tf.Tensor, count: tf.Tensor, low: tf.Tensor, high: tf.Tensor
) -> tf.Tensor:
    """Keeps the `count` pixels that bring a clipped perturbation closest to `delta`; 0 elsewhere.

    Args:
        delta: a perturbation as pixels, `[batch, pixels, values]`.
        count: the number of pixels: an int32 scalar, or one per image, `[batch]`.
        low, high: the box, of a shape that broadcasts; `low <= 0 <= high`.

    Example:
        >>> delta = tf.constant([[[3.0], [-0.5], [0.4]]])
        >>> onto_ball_and_box(delta, tf.constant(2), -1.0, 1.0).numpy()[0, :, 0].tolist()
        [1.0, -0.5, 0.0]

    Reference: Croce and Hein, "Sparse and Imperceivable Adversarial Attacks" (2019), section 4.1.
    """
    inside, gain = clipped_gain(delta, low, high)
    return tf.where(largest(gain, count)[..., None], inside, tf.zeros_like(inside))


def clipped_gain(delta: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """A perturbation clipped into a box, and how much closer to it each pixel comes if it moves.

    Args:
        delta, low, high: as for `onto_ball_and_box`.

    Returns:
        The clipped perturbation, and `|delta|^2 - |delta - clipped|^2` of each pixel, in units of
        the largest entry of the image, `[batch, pixels]`.
    """
    inside = tf.clip_by_value(delta, low, high)
    # Without the squares, which may overflow.
    scale = tf.reduce_max(tf.abs(delta), axis=[1, 2], keepdims=True)
    twice = tf.math.divide_no_nan(delta, scale) + tf.math.divide_no_nan(delta - inside, scale)
    return inside, tf.reduce_sum(inside * twice, axis=2)
