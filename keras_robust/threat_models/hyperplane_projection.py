"""Projection onto a hyperplane inside the bounds, in L1, L2 and Linf.

The smallest `d` with `value + normal . d = 0` and `low <= x + d <= high`. Each pixel moves against
the sign of the value times its normal, by

- Linf: `min(t, room)`, the same for all pixels that have the room;
- L2: `min(t |normal|, room)`, in proportion to the normal;
- L1: all the room of the pixels with the largest normal, until the plane is reached,

with the one `t` that reaches the plane. If the bounds keep the plane out of reach, every pixel
moves as far as it can.

Reference: Croce and Hein, "Minimally Distorted Adversarial Examples with a Fast Adaptive Boundary
Attack" (2020), section 2.2 and appendix A.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from keras_robust.core.numerics import scalar, upcast_half
from keras_robust.core.types import Images, PerExample


class Slope(NamedTuple):
    """A hyperplane seen from each point, as flat arrays `[batch, pixels]` and `[batch, 1]`."""

    direction: tf.Tensor  # the sign in which each pixel approaches it; 0 where its normal is 0
    rate: tf.Tensor  # by how much a unit of change approaches it, in [0, 1]
    room: tf.Tensor  # how far each pixel can move before it leaves the bounds
    need: tf.Tensor  # the total to be covered


def project_onto_hyperplane(
    amount: Callable[[Slope], tf.Tensor],
    bounds: tuple[float, float],
    x: Images,
    normal: tf.Tensor,
    value: PerExample,
) -> tf.Tensor:
    """The smallest step onto a hyperplane within the bounds.

    Args:
        amount: gives the norm: `linf_amount`, `l2_amount` or `l1_amount`.
        bounds, x, normal, value: as for `keras_robust.types.Ball.project_onto_hyperplane`.

    Example:
        >>> x, normal = tf.constant([[0.5, 0.5]]), tf.constant([[2.0, -1.0]])
        >>> for amount in (linf_amount, l2_amount, l1_amount):  # 2 d_1 - d_2 = -0.75
        ...     step = project_onto_hyperplane(amount, (0, 1), x, normal, tf.constant([0.75]))
        ...     print(step.numpy().round(3).tolist())
        [[-0.25, 0.25]]
        [[-0.30000001192092896, 0.15000000596046448]]
        [[-0.375, 0.0]]
    """
    point = upcast_half(x)
    # A model may compute in another dtype than that of its images.
    slope = _slope(bounds, point, *(tf.cast(a, point.dtype) for a in (normal, value)))
    step = slope.direction * tf.minimum(amount(slope), slope.room)
    return tf.reshape(step, tf.shape(x))


def _slope(bounds: tuple[float, float], x: Images, normal: tf.Tensor, value: PerExample) -> Slope:
    shape = [tf.shape(x)[0], tf.reduce_prod(tf.shape(x)[1:])]
    x, normal, value = tf.reshape(x, shape), tf.reshape(normal, shape), value[:, None]
    # The plane is the same at any scale; squares of the unscaled normal may overflow or underflow.
    largest = tf.reduce_max(tf.abs(normal), axis=1, keepdims=True)
    normal = tf.math.divide_no_nan(normal, largest)
    value = tf.math.divide_no_nan(value, largest)
    direction = tf.where(value < 0, tf.sign(normal), -tf.sign(normal))
    low, high = (scalar(bound, x.dtype) for bound in bounds)
    room = tf.where(direction < 0, x - low, high - x)
    return Slope(direction, tf.abs(normal), tf.maximum(room, 0), tf.abs(value))


def linf_amount(slope: Slope, fractions: tf.Tensor | None = None) -> tf.Tensor:
    """How far each pixel moves in Linf, before it is cut to its room.

    With `fractions` `[1, pixels]` in [0, 1], a pixel moves `fraction * t`.
    """
    if fractions is None:
        return _level(slope.rate, slope.room, slope.need)
    full = tf.math.divide_no_nan(slope.room, fractions)
    full = tf.minimum(full, full.dtype.max)  # infinity times a rate of 0 is NaN
    return fractions * _level(fractions * slope.rate, full, slope.need)


def l2_amount(slope: Slope) -> tf.Tensor:
    """How far each pixel moves in L2, before it is cut to its room."""
    full = tf.math.divide_no_nan(slope.room, slope.rate)
    full = tf.minimum(full, full.dtype.max)  # infinity times a rate of 0 is NaN
    return slope.rate * _level(slope.rate**2, full, slope.need)


def l1_amount(slope: Slope) -> tf.Tensor:
    """How far each pixel moves in L1, before it is cut to its room."""
    order = tf.argsort(slope.rate, axis=1, direction="DESCENDING", stable=True)
    rate, room = (tf.gather(a, order, axis=1, batch_dims=1) for a in (slope.rate, slope.room))
    covered = tf.cumsum(rate * room, axis=1, exclusive=True)
    amount = tf.math.divide_no_nan(tf.maximum(slope.need - covered, 0), rate)
    return tf.gather(amount, tf.argsort(order, axis=1), axis=1, batch_dims=1)


def _level(rate: tf.Tensor, full: tf.Tensor, need: tf.Tensor) -> tf.Tensor:
    """The `t >= 0` with `sum rate min(t, full) = need`, `[batch, 1]`, or the largest `full`.

    Newton's method from 0: the sum is concave and linear in pieces, so that no step leads beyond
    the solution, each ends in a later piece, and the last one is exact. A few steps do, where
    sorting the pixels takes as long as a third of a gradient of a small network.
    """
    covered, none = rate * full, tf.zeros_like(rate)

    def body(level: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        is_open = full > level
        growing = tf.reduce_sum(tf.where(is_open, rate, none), axis=1, keepdims=True)
        filled = tf.reduce_sum(tf.where(is_open, none, covered), axis=1, keepdims=True)
        level_next = tf.math.divide_no_nan(need - filled, growing)
        # What is left to cover may be a rounding error below 0.
        level_next = tf.maximum(level, level_next)
        return level_next, tf.reduce_any(level_next > level)

    start = tf.zeros_like(need)
    level, _ = tf.while_loop(
        lambda _, moves: moves, body, (start, tf.constant(True)), parallel_iterations=1
    )
    largest = tf.reduce_max(full, axis=1, keepdims=True)
    reached = tf.reduce_sum(covered, axis=1, keepdims=True) >= need
    return tf.where(reached, tf.minimum(level, largest), largest)
