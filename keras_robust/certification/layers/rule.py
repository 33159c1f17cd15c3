"""What bounds need of a layer: its values, its interval, and its linear bounds, backward."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import tensorflow as tf

from keras_robust.certification.interval import Interval
from keras_robust.certification.rounding import slack

Tensor: TypeAlias = Any
Entrywise: TypeAlias = Callable[[Tensor], Tensor]  # a function of each weight
_SMALLEST = 1e-30


class Rule(abc.ABC):
    """One operation of a network, `inputs -> output`.

    Weights are read at each call, so that a rule follows its layer through training.

    Attributes:
        mixes: whether an output depends on several values of an input.
    """

    mixes: bool = False

    @abc.abstractmethod
    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """The output for given inputs, in inference mode."""

    @abc.abstractmethod
    def interval(self, inputs: Sequence[Interval]) -> Interval:
        """Bounds of the output for inputs in intervals."""

    @abc.abstractmethod
    def backward(
        self, rows: Tensor, inputs: Sequence[Interval]
    ) -> tuple[list[Tensor], Tensor | float]:
        """Bounds linear functions of the output from below by linear functions of the inputs.

        Args:
            rows: coefficients of the functions, `[batch, rows, *output]`; the batch may be 1, for
                all images alike.
            inputs: bounds of the inputs.

        Returns:
            The coefficients of each input, `[batch, rows, *input]`, and a constant `[batch, rows]`.
        """


class Affine(Rule):
    """`z = W x + b`.

    Attributes:
        fan_in: number of products in one sum; 0 if values are only moved.
        signed: whether `W` may have negative entries; if not, `of` is not applied.
    """

    fan_in: int = 0
    signed: bool = False

    @abc.abstractmethod
    def linear(self, inputs: Sequence[Tensor], of: Entrywise | None = None) -> Tensor:
        """`W x`, or with a function `of` each weight in the place of the weight."""

    def offset(self, dtype: tf.DType) -> Tensor | None:
        """`b`, to broadcast to `[batch, *output]`; None for 0."""
        del dtype
        return None

    def offset_magnitude(self, dtype: tf.DType) -> Tensor | None:
        """The sum of the absolute values that `b` is computed from; None for 0."""
        offset = self.offset(dtype)
        return None if offset is None else tf.abs(offset)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """`W x + b`."""
        return self._shifted(self.linear(inputs))

    def magnitude(self, inputs: Sequence[Interval]) -> Tensor:
        """`|W| |x| + |b|`, which rounding errors are relative to."""
        return self._magnitude([each.magnitude for each in inputs])

    def _magnitude(self, magnitudes: Sequence[Tensor]) -> Tensor:
        total = self.linear(magnitudes, tf.abs if self.signed else None)
        size = self.offset_magnitude(total.dtype)
        return total if size is None else total + size

    def interval(self, inputs: Sequence[Interval]) -> Interval:
        """The image of a box in center and radius: `W c + b +- |W| r`."""
        dtype = inputs[0].lower.dtype
        relative = slack(self.fan_in, dtype)
        if not self.signed:
            return self._interval_of_ends(inputs, relative)
        # Twice the center and twice the radius: weights are halved instead of values.
        center = self.linear([each.lower + each.upper for each in inputs], lambda w: 0.5 * w)
        radius = self.linear(
            [_twice_radius(each, relative) for each in inputs], lambda w: tf.abs(0.5 * w)
        )
        center = self._shifted(center)
        size = self.offset_magnitude(dtype)
        radius = radius if size is None else radius + relative * size
        return Interval(center - radius, center + radius)

    def _interval_of_ends(self, inputs: Sequence[Interval], relative: float) -> Interval:
        """The images of the ends, for weights that are not negative."""
        if relative:
            inputs = [each.widened(relative * each.magnitude) for each in inputs]
        lower, upper = (
            self._shifted(self.linear(list(ends)))
            for ends in zip(*((each.lower, each.upper) for each in inputs), strict=True)
        )
        nonnegative = not relative and all(each.nonnegative for each in inputs)
        return Interval(lower, upper, nonnegative and self.offset(lower.dtype) is None)

    def _shifted(self, value: Tensor) -> Tensor:
        offset = self.offset(value.dtype)
        return value if offset is None else value + offset

    def dual_radius(self, field: Tensor, p: float) -> Tensor | None:
        """How far `W x` moves if `x` moves inside an Lp ball with a radius per value.

        Args:
            field: `q` of the ball `|d / q|_p <= 1`, `[1, *input]`, for a layer with one input.
            p: 1 or 2.

        Returns:
            The dual norm of each row of `W q`, `[1, *output]`, or more; None if it is not known.
        """
        del field, p
        return None

    def backward(
        self, rows: Tensor, inputs: Sequence[Interval]
    ) -> tuple[list[Tensor], Tensor | float]:
        """`A W`, and `A b` less the rounding error.

        Any linear map is transposed by its vector-Jacobian product.
        """
        flat = tf.reshape(rows, [-1, *rows.shape[2:]])
        zeros = [
            tf.ensure_shape(
                tf.zeros([tf.shape(flat)[0], *each.shape[1:]], rows.dtype), [None, *each.shape[1:]]
            )
            for each in inputs
        ]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(zeros)
            output = self.linear(zeros)
        pulled = tape.gradient(output, zeros, output_gradients=flat)
        lead = tf.shape(rows)[:2]
        pulled = [
            tf.reshape(part, [lead[0], lead[1], *each.shape[1:]])
            for part, each in zip(pulled, inputs, strict=True)
        ]
        return pulled, self._constant(rows, inputs)

    def _constant(self, rows: Tensor, inputs: Sequence[Interval]) -> Tensor | float:
        """`A b - |A| e`, with the rounding errors `e` of the layer and of the sums here."""
        if not self.fan_in:
            return 0.0
        error = slack(self.fan_in, rows.dtype) * self.magnitude(inputs)
        offset = self.offset(rows.dtype)
        if offset is None:
            return -dot(tf.abs(rows), error)
        offset = tf.broadcast_to(offset, [1, *rows.shape[2:]])
        error += slack(offset.shape.num_elements(), rows.dtype) * tf.abs(offset)
        return dot(rows, offset) - dot(tf.abs(rows), error)


def dot(rows: Tensor, values: Tensor) -> Tensor:
    """`[batch, rows, ...]` times `[batch, ...]`: `[batch, rows]`; either batch may be 1."""
    size = rows.shape[2:].num_elements()
    lead = tf.shape(rows)[:2]
    flat = tf.reshape(rows, [lead[0], lead[1], size])
    return tf.squeeze(tf.matmul(flat, tf.reshape(values, [-1, size, 1])), axis=2)


def _twice_radius(interval: Interval, relative: float) -> Tensor:
    """Twice the radius, widened by `relative` times the magnitude."""
    if interval.nonnegative:
        return (1 + 2 * relative) * interval.upper - interval.lower
    width = interval.upper - interval.lower
    return width + (2 * relative) * interval.magnitude


def root(squares: Tensor) -> Tensor:
    """The square root, with a finite gradient at 0."""
    return tf.sqrt(tf.maximum(squares, _SMALLEST))
