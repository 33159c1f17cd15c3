"""A penalty on loose interval bounds, for short ramps of certified training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import tensorflow as tf

from keras_robust.core.config import serializable
from keras_robust.core.types import Scalar
from keras_robust.core.validation import check_number

Interval: TypeAlias = Any  # with tensors `lower` and `upper`


@serializable
class BoundRegularizer:
    """Penalizes bounds that grow from layer to layer, and unequal halves of the rectifiers.

    For each rectifier with bounds `c - r <= x <= c + r` of its input, relative to `tolerance`:

    - tightness: how far the mean radius of the images over the mean of `r` lies below it;
    - balance: how far the ratio of active (`c - r > 0`) and inactive (`c + r < 0`) rectifiers lies
      below it, measured by the sums of `|c|` and by those of `(c - mean)^2`, the smaller over the
      larger. 0 where there is none of one kind.

    The mean over the rectifiers is added to the loss, `weight` times `1 - radius / largest radius`.

    Args:
        weight: lambda_0 in the paper, >= 0.
        tolerance: tau in the paper, in (0, 1].

    Raises:
        ValueError: a negative weight, or a tolerance outside its range.

    Example:
        >>> from keras_robust.certification.interval import Interval
        >>> images, wide = Interval(tf.zeros([1, 1]), tf.ones([1, 1])), tf.fill([1, 1], 4.0)
        >>> float(BoundRegularizer().penalty(images, [Interval(-wide, wide)]))  # 1 / 8 of 1 / 2
        0.75

    Reference: Shi et al., "Fast Certified Robust Training with Short Warmup" (2021), section 3.3.
    """

    weight: float = 0.5
    tolerance: float = 0.5

    def __post_init__(self) -> None:
        check_number("BoundRegularizer: weight", self.weight)
        check_number("BoundRegularizer: tolerance", self.tolerance, above=0, most=1)

    def __call__(self, images: Interval, inputs: Sequence[Interval], share: Scalar) -> tf.Tensor:
        """The weighted penalty at a share of the largest radius.

        Args:
            images: bounds of the images `[batch, ...]`.
            inputs: bounds of the inputs of each rectifier, `[batch, ...]`.
            share: the present radius divided by the largest one.
        """
        return self.weight * (1 - share) * self.penalty(images, inputs)

    def penalty(self, images: Interval, inputs: Sequence[Interval]) -> tf.Tensor:
        """The mean penalty of the rectifiers, a scalar; 0 if there are none."""
        at_start = tf.reduce_mean(images.upper - images.lower)
        parts = [self._tightness(at_start, each) + self._balance(each) for each in inputs]
        return tf.add_n(parts) / len(parts) if parts else tf.zeros_like(at_start)

    def _tightness(self, at_start: tf.Tensor, each: Interval) -> tf.Tensor:
        width = tf.reduce_mean(each.upper - each.lower)
        return self._below(_ratio(at_start, width, otherwise=1.0))

    def _balance(self, each: Interval) -> tf.Tensor:
        center = (each.lower + each.upper) / 2
        deviation = tf.square(center - tf.reduce_mean(center))
        active, inactive = each.lower > 0, each.upper < 0
        total = tf.zeros([], center.dtype)
        for values in (tf.abs(center), deviation):
            first, second = (
                tf.reduce_sum(tf.where(kind, values, 0)) for kind in (active, inactive)
            )
            smaller, larger = tf.minimum(first, second), tf.maximum(first, second)
            has_both = smaller > 0
            total += tf.where(has_both, self._below(_ratio(smaller, larger, otherwise=1.0)), 0)
        return total

    def _below(self, ratio: tf.Tensor) -> tf.Tensor:
        """How far a ratio lies below the tolerance, relative to it."""
        return tf.nn.relu(self.tolerance - ratio) / self.tolerance


def _ratio(first: tf.Tensor, second: tf.Tensor, otherwise: float) -> tf.Tensor:
    """`first / second`; a constant where `second` is 0, with a gradient of 0."""
    defined = second > 0
    return tf.where(defined, first / tf.where(defined, second, 1), otherwise)
