"""The gradients of all tasks from one backward pass, and their weighted sum.

Each task sees its own copy of the perturbed point; the gradient of the sum of all values in a copy
is that of its task.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from keras_robust.attacks.crafting.gradient_ascent import (
    noinline,
    value_and_sum_gradient,
    zero_nonfinite,
)
from keras_robust.core.numerics import upcast_half
from keras_robust.core.types import Ball, Images, PerExample, Solver
from keras_robust.threat_models.masks import without_masked

# Products of gradients are clipped to it, as their sums would be infinite.
_LARGEST = 1e30

Evaluate = Callable[[Images, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


class StepRecord(NamedTuple):
    """Inputs and result of a solver at one step, each `[tasks, batch]`.

    Attributes:
        weights: the weights of the tasks' gradients.
        values: the tasks' losses; the last finite ones.
        achieved: which tasks are achieved, bool.
    """

    weights: tf.Tensor
    values: tf.Tensor
    achieved: tf.Tensor


class CombinedState(NamedTuple):
    """The state of `CombinedGradient`.

    Attributes:
        step: the number of steps so far.
        gradients: the last finite gradient of each task, `[tasks, batch, ...]`.
        solver: the solver's state.
        record: the last step.
    """

    step: tf.Tensor
    gradients: tf.Tensor
    solver: Any
    record: StepRecord


class CombinedGradient:
    """The weighted sum of the gradients of several tasks, as a `GradientOracle`.

    The weights are solved for before the step that uses them. A gradient or a value that is not
    finite (of some transformations) is replaced by the last finite one of its task, the gradient
    only with `memory`.

    Args:
        evaluate: `(copies [tasks, batch, ...], step) -> values, achieved`, each `[tasks, batch]`,
            each value depending on its own copy only.
        solver: weighs the gradients.
        tasks: the number of tasks.
        ball: the threat model of the copies, whose mask the gradients follow.
        pixel_range: the solver sees gradients times it, so that it solves the same problem in any
            units of the images.
        memory: whether a gradient that is not finite is replaced by the last finite one of its
            task; else its entries that are not finite count as 0.

    Reference: Bui et al., "Generating Adversarial Examples with Task Oriented Multi-Objective
    Optimization" (2023), Algorithm 1, lines 4 to 11; the memory of gradients, Appendix D.4.
    """

    def __init__(
        self,
        evaluate: Evaluate,
        solver: Solver,
        tasks: int | tf.Tensor,
        ball: Ball | None = None,
        pixel_range: float = 1.0,
        memory: bool = True,
    ):
        self._gradients = noinline(
            lambda copies, step: value_and_sum_gradient(
                lambda copies: evaluate(copies, step), copies
            )
        )
        self._solver = solver
        self._tasks, self._ball, self._pixel_range = tasks, ball, pixel_range
        self._memory = memory

    def init(self, x_start: Images) -> CombinedState:
        """Equal weights and zero gradients."""
        gradients = tf.zeros_like(upcast_half(self._copies(x_start)))
        zeros = tf.zeros(tf.shape(gradients)[:2], gradients.dtype)
        zeros.set_shape(gradients.shape[:2])
        unknown = zeros + float("nan")  # a task has no finite value yet
        start = tf.transpose(tf.ones_like(zeros) / tf.cast(self._tasks, zeros.dtype))
        record = StepRecord(tf.transpose(start), unknown, zeros > 0)
        return CombinedState(tf.constant(0), gradients, self._solver.init(start), record)

    def __call__(
        self, x_adv: Images, state: CombinedState
    ) -> tuple[PerExample, tf.Tensor, CombinedState]:
        """The weighted values, the combined gradient, and the next state."""
        (values, achieved), gradients = self._gradients(self._copies(x_adv), state.step)
        gradients = without_masked(self._ball, upcast_half(gradients))
        if self._memory:
            gradients = _replace_nonfinite(gradients, state.gradients)
        else:
            gradients = zero_nonfinite(gradients)
        values = tf.cast(values, gradients.dtype)
        # As numbers, because oneDNN logs an error when booleans are transposed.
        done = tf.transpose(tf.cast(achieved, values.dtype)) > 0
        known = tf.where(tf.math.is_finite(values), values, state.record.values)
        products = gram(self._pixel_range * gradients)
        weights, solver = self._solver(products, tf.transpose(known), done, state.solver)
        record = StepRecord(tf.transpose(weights), known, achieved)
        after = CombinedState(state.step + 1, gradients, solver, record)
        # A loop's state keeps its static shape, which a solver may lose.
        tf.nest.map_structure(lambda new, old: new.set_shape(old.shape), after, state)
        factors = tf.reshape(
            record.weights,
            tf.concat([tf.shape(values), tf.ones([x_adv.shape.rank - 1], tf.int32)], axis=0),
        )
        combined = tf.reduce_sum(factors * gradients, axis=0)
        return tf.reduce_sum(record.weights * values, axis=0), zero_nonfinite(combined), after

    def _copies(self, x_adv: Images) -> tf.Tensor:
        shape = tf.concat([[self._tasks], tf.shape(x_adv)], axis=0)
        copies = tf.broadcast_to(x_adv, shape)
        known = self._tasks if isinstance(self._tasks, int) else None
        copies.set_shape([known, *x_adv.shape])
        return copies


def _replace_nonfinite(gradients: tf.Tensor, before: tf.Tensor) -> tf.Tensor:
    """The gradients; of a task with a non-finite entry those of the step before."""
    axes = list(range(2, gradients.shape.rank))
    finite = tf.reduce_all(tf.math.is_finite(gradients), axis=axes, keepdims=True)
    return tf.where(finite, gradients, before)


def gram(gradients: tf.Tensor) -> tf.Tensor:
    """The Gram matrices `[batch, tasks, tasks]` of gradients `[tasks, batch, ...]`.

    Example:
        >>> gram(tf.constant([[[1.0, 2.0]], [[3.0, 0.0]]])).numpy().tolist()
        [[[5.0, 3.0], [3.0, 9.0]]]
    """
    # The number of pixels is explicit: -1 cannot be inferred for an empty batch.
    pixels = tf.reduce_prod(tf.shape(gradients)[2:], keepdims=True)
    flat = tf.reshape(gradients, tf.concat([tf.shape(gradients)[:2], pixels], axis=0))
    products = tf.einsum("ibp,jbp->bij", flat, flat)
    products.set_shape([gradients.shape[1], gradients.shape[0], gradients.shape[0]])
    products = tf.where(tf.math.is_nan(products), tf.zeros_like(products), products)
    return tf.clip_by_value(products, -_LARGEST, _LARGEST)
