"""Projection onto an L1 ball around 0, and onto its intersection with a box."""

from __future__ import annotations

import tensorflow as tf


def onto_ball(delta: tf.Tensor, radius: tf.Tensor) -> tf.Tensor:
    """Projects `[batch, d]` onto the L1 ball of a scalar radius >= 0, of the same dtype.

    Example:
        >>> onto_ball(tf.constant([[2.0, 1.5]]), tf.constant(1.0)).numpy().tolist()
        [[0.75, 0.25]]

    Reference: Duchi et al., "Efficient Projections onto the L1-Ball" (2008), Figure 1.
    """
    size = tf.abs(delta)
    # The threshold is at least the excess of the largest entry over the radius. Subtracting that
    # first changes the rounding only: sums of huge entries would cancel.
    largest = tf.reduce_max(size, axis=1, keepdims=True)
    size = tf.where(largest > radius, tf.maximum(size - largest + radius, 0), size)
    descending = tf.sort(size, axis=1, direction="DESCENDING")
    rank = tf.range(1, tf.shape(delta)[1] + 1)
    excess = (tf.cumsum(descending, axis=1) - radius) / tf.cast(rank, delta.dtype)
    kept = tf.reduce_sum(tf.cast(descending > excess, tf.int32), axis=1)
    last = tf.maximum(kept - 1, 0)
    threshold = tf.maximum(tf.gather(excess, last, axis=1, batch_dims=1), 0)[:, None]
    return tf.sign(delta) * tf.maximum(size - threshold, 0)


def onto_ball_and_box(
    delta: tf.Tensor, radius: tf.Tensor, low: tf.Tensor, high: tf.Tensor
) -> tf.Tensor:
    """Projects onto the L1 ball intersected with the box `[low, high]`.

    The entries are `clip(t - gap, 0, room)`, with `gap` the difference of an entry to the largest,
    `room` its distance from the box, and one `t` for all. Their sum is piecewise linear in `t`,
    with breakpoints where an entry starts to grow or reaches the box.

    Args:
        delta, low, high: `[batch, d]`; `low <= 0 <= high`.
        radius: a scalar of their dtype, >= 0.

    Example:
        >>> one = tf.ones([1, 2])
        >>> onto_ball_and_box(2 * one, tf.constant(1.0), -one, [[0.25, 1.0]]).numpy().tolist()
        [[0.25, 0.75]]

    Reference: Croce and Hein, "Mind the Box: L1-APGD for Sparse Adversarial Attacks on Image
    Classifiers" (2021), Proposition 3.1.
    """
    size = tf.abs(delta)
    # No entry exceeds the radius, which keeps all sums finite.
    room = tf.clip_by_value(tf.where(delta > 0, high, -low), 0, radius)
    largest = tf.reduce_max(size, axis=1, keepdims=True)
    gap = largest - size
    breakpoints = tf.concat([gap, gap + room], axis=1)
    order = tf.argsort(breakpoints, axis=1)
    breakpoints = tf.gather(breakpoints, order, axis=1, batch_dims=1)
    change = tf.where(order < tf.shape(delta)[1], 1, -1)
    growing = tf.cast(tf.cumsum(change, axis=1), delta.dtype)
    sums = tf.cumsum(growing[:, :-1] * (breakpoints[:, 1:] - breakpoints[:, :-1]), axis=1)
    # The last breakpoint at which the sum is below the radius.
    before = tf.reduce_sum(tf.cast(sums < radius, tf.int32), axis=1)
    last = tf.gather(breakpoints, before, axis=1, batch_dims=1)[:, None]
    full = gap + room <= last
    grows = ~full & (gap <= last)
    count = tf.reduce_sum(tf.cast(grows, delta.dtype), axis=1, keepdims=True)
    filled = tf.reduce_sum(tf.where(full, room, tf.zeros_like(room)), axis=1, keepdims=True)
    gaps = tf.reduce_sum(tf.where(grows, gap, tf.zeros_like(gap)), axis=1, keepdims=True)
    t = tf.where(count > 0, (radius - filled + gaps) / tf.maximum(count, 1), largest)
    # Beyond `largest`, entries would exceed their own values: the point is inside the ball.
    grown = tf.minimum(t, largest) - gap
    return tf.sign(delta) * tf.maximum(tf.minimum(grown, room), 0)
