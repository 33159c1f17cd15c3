"""Elementwise functions that do not decrease."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from keras_robust.certification.interval import Interval
from keras_robust.certification.layers.rule import Rule, Tensor, dot
from keras_robust.certification.rounding import slack


class Lines(NamedTuple):
    """Two lines around a function on an interval: `slope x + intercept`, elementwise."""

    lower_slope: Tensor
    lower_intercept: Tensor
    upper_slope: Tensor
    upper_intercept: Tensor


class Activation(Rule):
    """A function of each value that does not decrease.

    Args:
        function: the function.
        lines: two lines around it on an interval.
        nonnegative: whether its values are >= 0.
        error: whether it is computed with rounding errors, of values up to 1.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        lines: Callable[[Interval], Lines],
        nonnegative: bool = False,
        error: bool = False,
    ) -> None:
        self.function = function
        self.lines = lines
        self.nonnegative = nonnegative
        self.error = error

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """The function."""
        return self.function(inputs[0])

    def interval(self, inputs: Sequence[Interval]) -> Interval:
        """Its values at the ends."""
        (each,) = inputs
        if self.nonnegative and each.nonnegative and self.function is tf.nn.relu:
            return each
        ends = Interval(self.function(each.lower), self.function(each.upper), self.nonnegative)
        return ends.widened(slack(1, each.lower.dtype)) if self.error else ends

    def backward(self, rows: Tensor, inputs: Sequence[Interval]) -> tuple[list[Tensor], Tensor]:
        """The lower line where the coefficient is positive, the upper one where it is negative."""
        lines = self.lines(inputs[0])
        positive, negative = tf.nn.relu(rows), tf.minimum(rows, 0)
        pulled = positive * lines.lower_slope[:, None] + negative * lines.upper_slope[:, None]
        lower, upper = lines.lower_intercept, lines.upper_intercept
        relative = slack(lower.shape[1:].num_elements(), rows.dtype)
        lower, upper = lower - relative * tf.abs(lower), upper + relative * tf.abs(upper)
        return [pulled], dot(positive, lower) + dot(negative, upper)


def relu() -> Activation:
    """Rectified linear units."""
    return leaky_relu(0.0)


def leaky_relu(negative_slope: float) -> Activation:
    """`max(x, negative_slope x)`, for a slope in [0, 1]."""

    def function(x: Tensor) -> Tensor:
        return tf.maximum(x, negative_slope * x)

    def lines(interval: Interval) -> Lines:
        return _rectifier_lines(interval, negative_slope)

    if negative_slope == 0:
        return Activation(tf.nn.relu, lines, nonnegative=True)
    return Activation(function, lines)


def _rectifier_lines(interval: Interval, negative_slope: float) -> Lines:
    """The chord above; below the line through 0 with the slope of the larger side.

    Reference: Zhang et al., "Efficient Neural Network Robustness Certification with General
    Activation Functions" (2018), section 3.3: CROWN-Ada.
    """
    lower, upper = interval.lower, interval.upper
    crosses = (lower < 0) & (upper > 0)
    one, flat = tf.ones_like(lower), tf.fill(tf.shape(lower), tf.cast(negative_slope, lower.dtype))
    stable = tf.where(lower >= 0, one, flat)
    # Divided where the interval crosses 0 only, so that the gradient is finite elsewhere.
    width = tf.where(crosses, upper - lower, one)
    chord = (upper - negative_slope * lower) / width
    upper_slope = tf.where(crosses, chord, stable)
    height = (negative_slope - chord) * lower + slack(1, lower.dtype) * tf.maximum(upper, -lower)
    zero = tf.zeros_like(lower)
    upper_intercept = tf.where(crosses, height, zero)
    lower_slope = tf.where(crosses, tf.where(upper > -lower, one, flat), stable)
    return Lines(lower_slope, zero, upper_slope, upper_intercept)


def clipped_relu(max_value: float) -> Activation:
    """`min(max(x, 0), max_value)`, such as ReLU6."""

    def function(x: Tensor) -> Tensor:
        return tf.clip_by_value(x, 0.0, max_value)

    def derivative(x: Tensor) -> Tensor:
        return tf.cast((x > 0) & (x < max_value), x.dtype)

    def lines(interval: Interval) -> Lines:
        rectified = _rectifier_lines(interval, 0.0)
        clipped = _parallel_lines(function, derivative)(interval)
        below = interval.upper <= max_value
        return Lines(*(tf.where(below, a, b) for a, b in zip(rectified, clipped, strict=True)))

    return Activation(function, lines, nonnegative=True)


def sigmoid() -> Activation:
    """The logistic function."""

    def derivative(x: Tensor) -> Tensor:
        return tf.sigmoid(x) * tf.sigmoid(-x)

    return Activation(tf.sigmoid, _parallel_lines(tf.sigmoid, derivative), error=True)


def tanh() -> Activation:
    """The hyperbolic tangent."""

    def derivative(x: Tensor) -> Tensor:
        return 4 * tf.sigmoid(2 * x) * tf.sigmoid(-2 * x)

    return Activation(tf.tanh, _parallel_lines(tf.tanh, derivative), error=True)


def _parallel_lines(
    function: Callable[[Tensor], Tensor], derivative: Callable[[Tensor], Tensor]
) -> Callable[[Interval], Lines]:
    """Lines through the ends of an interval, with the smaller slope of both.

    For a function whose derivative has no local minimum inside, so that it is nowhere smaller than
    at one of the ends.
    """

    def lines(interval: Interval) -> Lines:
        lower, upper = interval.lower, interval.upper
        slope = tf.minimum(derivative(lower), derivative(upper))
        below, above = function(lower) - slope * lower, function(upper) - slope * upper
        error = slack(1, lower.dtype) * (1 + slope * interval.magnitude)
        return Lines(slope, below - error, slope, above + error)

    return lines
