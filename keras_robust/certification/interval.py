"""Intervals: elementwise bounds of a tensor."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf


class Interval(NamedTuple):
    """Elementwise bounds `[batch, ...]`; the batch may be 1, for all images alike.

    Args:
        lower, upper: the bounds.
        nonnegative: whether `lower` is known to be >= 0, which saves work.
    """

    lower: tf.Tensor
    upper: tf.Tensor
    nonnegative: bool = False

    @property
    def magnitude(self) -> tf.Tensor:
        """The largest absolute value."""
        if self.nonnegative:
            return self.upper
        return tf.maximum(tf.abs(self.lower), tf.abs(self.upper))

    @property
    def shape(self) -> tf.TensorShape:
        """`[batch, ...]`."""
        return self.lower.shape

    def widened(self, amount: tf.Tensor | float) -> Interval:
        """The interval, larger by `amount` on either side."""
        return Interval(self.lower - amount, self.upper + amount)

    def intersection(self, other: Interval) -> Interval:
        """The values in both intervals; NaN stays."""
        lower = tf.maximum(self.lower, other.lower)
        upper = tf.minimum(self.upper, other.upper)
        return Interval(lower, upper, self.nonnegative or other.nonnegative)
