"""Records of a multi-task attack: weights, losses, successes and gradient norms of each step."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from keras_robust.attacks.crafting.gradient_ascent import GradientOracle
from keras_robust.attacks.multi_task.combined_gradient import CombinedGradient, CombinedState
from keras_robust.core.numerics import upcast_half
from keras_robust.core.types import Images, PerExample


class Trace(NamedTuple):
    """A multi-task attack step by step.

    Row `t` of `losses` and `achieved` belongs to the point after `t` steps, the last one to the
    result; row `t` of the others belongs to the step from there. Gradients are those that the
    attack uses: masked, and without non-finite entries; their L2 norms are in the units of the
    loss per unit of a pixel.

    Attributes:
        images: the perturbed images, `[batch, ...]`.
        weights: weights of the tasks, `[steps, tasks, batch]`; groups instead of images if they
            share a perturbation.
        losses: the tasks' losses, `[steps + 1, tasks, batch]`.
        achieved: which tasks are achieved, `[steps + 1, tasks, batch]`.
        gradient_norms: norms of the tasks' gradients, `[steps, tasks, batch]`.
        combined_norms: norms of their weighted sum, `[steps, batch]`.
    """

    images: Images
    weights: tf.Tensor
    losses: tf.Tensor
    achieved: tf.Tensor
    gradient_norms: tf.Tensor
    combined_norms: tf.Tensor


class Records(NamedTuple):
    """The records of the steps so far, each `[steps, ...]`; rows of later steps are 0.

    Attributes:
        weights, values, achieved: of `StepRecord`.
        gradient_norms, combined_norms: of `Trace`.
    """

    weights: tf.Tensor
    values: tf.Tensor
    achieved: tf.Tensor
    gradient_norms: tf.Tensor
    combined_norms: tf.Tensor


class RecordingOracle:
    """Wraps a `CombinedGradient` and records every step.

    Args:
        oracle: the gradient to record.
        steps: the number of steps.
    """

    def __init__(self, oracle: CombinedGradient, steps: int):
        self._oracle: GradientOracle = oracle
        self._steps = steps

    def init(self, x_start: Images) -> tuple[CombinedState, Records]:
        """The oracle's state, and records filled with zeros."""
        state = self._oracle.init(x_start)
        first = (*state.record, state.record.weights, state.record.weights[0])
        return state, Records(*(self._zeros(part) for part in first))

    def _zeros(self, part: tf.Tensor) -> tf.Tensor:
        multiples = [self._steps, *[1] * part.shape.rank]
        return tf.tile(tf.zeros_like(part)[None], multiples)

    def __call__(self, x_adv: Images, state: Any) -> tuple[PerExample, tf.Tensor, Any]:
        """The oracle's result; the step is added to the records."""
        before, records = state
        value, gradient, after = self._oracle(x_adv, before)
        row = (*after.record, _norms(after.gradients, 2), _norms(gradient, 1))
        updated = [
            tf.tensor_scatter_nd_update(record, before.step[None, None], part[None])
            for record, part in zip(records, row, strict=True)
        ]
        return value, gradient, (after, Records(*updated))


def _norms(gradients: tf.Tensor, leading: int) -> tf.Tensor:
    """L2 norms over all axes but the leading ones; scaled first, as squares could overflow."""
    gradients = upcast_half(gradients)
    axes = list(range(leading, gradients.shape.rank))
    largest = tf.reduce_max(tf.abs(gradients), axis=axes, keepdims=True)
    scaled = tf.math.divide_no_nan(gradients, largest)
    length = tf.sqrt(tf.reduce_sum(scaled**2, axis=axes))
    return length * tf.reshape(largest, tf.shape(length))
