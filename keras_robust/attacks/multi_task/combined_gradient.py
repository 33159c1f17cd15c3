"""The gradients of many tasks from one backward pass, and their sum as a solver weighs them.

Each task sees its own copy of the perturbed point; the gradient of the sum of all values in the
copies has in each copy the gradient of its task.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from keras_robust.attacks.crafting.gradient_ascent import (
    GradientOracle,
    noinline,
    value_and_sum_gradient,
    zero_nonfinite,
)
from keras_robust.core.numerics import upcast_half
from keras_robust.core.types import Images, PerExample, Solver

# Products of gradients beyond it are told apart no more: their sums would be infinite.
_LARGEST = 1e30

Evaluate = Callable[[Images, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


class Weighed(NamedTuple):
    """What a solver saw and said at a step, each `[tasks, batch]`.

    Attributes:
        weights: of the tasks' gradients.
        values: what is climbed.
        achieved: which goals are.
    """

    weights: tf.Tensor
    values: tf.Tensor
    achieved: tf.Tensor


class State(NamedTuple):
    """What is kept from step to step.

    Attributes:
        step: how many were weighed.
        gradients: the last finite gradient of each task, `[tasks, batch, ...]`.
        solver: the solver's own.
        weighed: the last step.
    """

    step: tf.Tensor
    gradients: tf.Tensor
    solver: Any
    weighed: Weighed


class CombinedGradient:
    """The weighted sum of the gradients of many tasks.

    The weights are solved for before the step that they are for. In the place of a gradient that is
    not finite (of some transformations) comes the last one of its task that was.

    Args:
        evaluate: `(copies [tasks, batch, ...], step) -> values, achieved`, each `[tasks, batch]`,
            each value depending on its own copy only.
        solver: weighs the gradients.
        tasks: how many there are.

    Reference: Bui et al., "Generating Adversarial Examples with Task Oriented Multi-Objective
    Optimization" (2023), Algorithm 1, lines 4 to 11; the memory of gradients, Appendix D.4.
    """

    def __init__(self, evaluate: Evaluate, solver: Solver, tasks: int | tf.Tensor):
        self._gradients = noinline(
            lambda copies, step: value_and_sum_gradient(
                lambda copies: evaluate(copies, step), copies
            )
        )
        self._solver = solver
        self._tasks = tasks

    def init(self, x_start: Images) -> State:
        """Equal weights, no gradients."""
        gradients = tf.zeros_like(upcast_half(self._copies(x_start)))
        none = tf.zeros(tf.shape(gradients)[:2], gradients.dtype)
        none.set_shape(gradients.shape[:2])
        start = tf.transpose(tf.ones_like(none) / tf.cast(self._tasks, none.dtype))
        weighed = Weighed(tf.transpose(start), none, none > 0)
        return State(tf.constant(0), gradients, self._solver.init(start), weighed)

    def __call__(self, x_adv: Images, state: State) -> tuple[PerExample, tf.Tensor, State]:
        """The weighted values, the combined gradient, and the next state."""
        (values, achieved), gradients = self._gradients(self._copies(x_adv), state.step)
        gradients = _remembered(upcast_half(gradients), state.gradients)
        values = tf.cast(values, gradients.dtype)
        # As numbers: oneDNN logs an error where truth values are transposed.
        done = tf.transpose(tf.cast(achieved, values.dtype)) > 0
        weights, solver = self._solver(gram(gradients), tf.transpose(values), done, state.solver)
        weighed = Weighed(tf.transpose(weights), values, achieved)
        after = State(state.step + 1, gradients, solver, weighed)
        # A loop's state keeps its shape, which a solver need not know.
        tf.nest.map_structure(lambda new, old: new.set_shape(old.shape), after, state)
        shares = tf.reshape(
            weighed.weights,
            tf.concat([tf.shape(values), tf.ones([x_adv.shape.rank - 1], tf.int32)], axis=0),
        )
        combined = tf.reduce_sum(shares * gradients, axis=0)
        return tf.reduce_sum(weighed.weights * values, axis=0), zero_nonfinite(combined), after

    def _copies(self, x_adv: Images) -> tf.Tensor:
        shape = tf.concat([[self._tasks], tf.shape(x_adv)], axis=0)
        copies = tf.broadcast_to(x_adv, shape)
        known = self._tasks if isinstance(self._tasks, int) else None
        copies.set_shape([known, *x_adv.shape])
        return copies


def _remembered(gradients: tf.Tensor, before: tf.Tensor) -> tf.Tensor:
    """The gradients, with those of an earlier step where a task's has what is no number."""
    axes = list(range(2, gradients.shape.rank))
    finite = tf.reduce_all(tf.math.is_finite(gradients), axis=axes, keepdims=True)
    return tf.where(finite, gradients, before)


def gram(gradients: tf.Tensor) -> tf.Tensor:
    """The products of the tasks' gradients, of each example.

    Args:
        gradients: `[tasks, batch, ...]`.

    Returns:
        `[batch, tasks, tasks]`.

    Example:
        >>> gram(tf.constant([[[1.0, 2.0]], [[3.0, 0.0]]])).numpy().tolist()
        [[[5.0, 3.0], [3.0, 9.0]]]
    """
    # The number of pixels is spelled out: -1 cannot be inferred for an empty batch.
    pixels = tf.reduce_prod(tf.shape(gradients)[2:], keepdims=True)
    flat = tf.reshape(gradients, tf.concat([tf.shape(gradients)[:2], pixels], axis=0))
    products = tf.einsum("ibp,jbp->bij", flat, flat)
    products.set_shape([gradients.shape[1], gradients.shape[0], gradients.shape[0]])
    products = tf.where(tf.math.is_nan(products), tf.zeros_like(products), products)
    return tf.clip_by_value(products, -_LARGEST, _LARGEST)


class RecordingOracle:
    """A climb of many tasks that writes down every step.

    Args:
        climb: `CombinedGradient`.
        steps: how many there will be.
    """

    def __init__(self, climb: CombinedGradient, steps: int):
        self._climb: GradientOracle = climb
        self._steps = steps

    def init(self, x_start: Images) -> tuple[State, Weighed]:
        """The climb's state, and empty pages."""
        state = self._climb.init(x_start)
        pages = [tf.tile(tf.zeros_like(part)[None], [self._steps, 1, 1]) for part in state.weighed]
        return state, Weighed(*pages)

    def __call__(self, x_adv: Images, state: Any) -> tuple[PerExample, tf.Tensor, Any]:
        """What the climb gives, which is written down."""
        before, pages = state
        value, gradient, after = self._climb(x_adv, before)
        written = [
            tf.tensor_scatter_nd_update(page, before.step[None, None], part[None])
            for page, part in zip(pages, after.weighed, strict=True)
        ]
        return value, gradient, (after, Weighed(*written))
