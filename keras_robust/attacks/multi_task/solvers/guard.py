"""A guard for solvers: what is not finite in one task must not spread to the others."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

SolverCall = Callable[..., tuple[tf.Tensor, Any]]


def guarded(call: SolverCall) -> SolverCall:
    """Decorates the `__call__` of a solver, which then sees finite products and values only.

    A product that is not finite counts as 0, as of a gradient of zeros; a value that is not finite
    as the mean of the example's other values, which neither raises nor lowers its task.
    """

    @functools.wraps(call)
    def finite_call(
        self: Any, gram: tf.Tensor, values: tf.Tensor, achieved: tf.Tensor, state: Any
    ) -> tuple[tf.Tensor, Any]:
        if gram is not None:
            gram = tf.where(tf.math.is_finite(gram), gram, tf.zeros_like(gram))
        return call(self, gram, None if values is None else finite_values(values), achieved, state)

    return finite_call


def finite_values(values: tf.Tensor) -> tf.Tensor:
    """Values `[batch, tasks]`; one that is not finite is the mean of the others, or 1.

    Example:
        >>> finite_values(tf.constant([[float("nan"), 1.0, 3.0]])).numpy().tolist()
        [[2.0, 1.0, 3.0]]
    """
    finite = tf.math.is_finite(values)
    count = tf.reduce_sum(tf.cast(finite, values.dtype), axis=1, keepdims=True)
    known = tf.where(finite, values, tf.zeros_like(values))
    # Divided before the sum, which could overflow.
    mean = tf.reduce_sum(tf.math.divide_no_nan(known, count), axis=1, keepdims=True)
    return tf.where(finite, values, tf.where(count > 0, mean, tf.ones_like(mean)))
