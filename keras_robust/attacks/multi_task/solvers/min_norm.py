"""MGDA: the minimum-norm combination of gradients."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_robust.attacks.multi_task.simplex import (
    check_initial,
    descend_weights,
    initial_state,
    solve_weights,
)
from keras_robust.attacks.multi_task.solvers.guard import guarded
from keras_robust.core.config import serializable
from keras_robust.core.validation import check_choice, check_integer, check_number


@serializable
class MinNorm:
    """Weights of the minimum-norm gradient, `min_w w' G w`, along which all tasks increase (MOO).

    Args:
        steps: gradient steps on the logits of the weights before each step of the image, >= 1; the
            logits are kept from step to step.
        learning_rate: their length.
        exact: solve the quadratic program instead, to a duality gap of 1e-12. Its solution is often
            a single task and far from the weights after a few steps: it is another attack, not a
            better approximation.
        evenness: weight of the penalty `|w - 1 / T|^2`; 0 in the paper.
        first_weights: `"solved"`, or `"uniform"` to use the initial weights, equal ones by
            default, at the first step of the image.
        initial: weights of the tasks before the first step of the image, > 0 with the sum 1;
            default equal ones.

    Example:
        >>> solver = MinNorm(exact=True)
        >>> gram = tf.constant([[[1.0, 0.0], [0.0, 3.0]]])  # orthogonal gradients
        >>> start = tf.constant([[0.5, 0.5]])
        >>> weights, _ = solver(gram, start, start > 1, solver.init(start))
        >>> weights.numpy().round(6).tolist()
        [[0.75, 0.25]]

    Reference: Desideri, "Multiple-Gradient Descent Algorithm" (2012); Bui et al., "Generating
    Adversarial Examples with Task Oriented Multi-Objective Optimization" (2023), Eq. 2 and
    Algorithm 1 with lambda 0.

    The initial weights are those of Table 24 there.

    Differs: the released code takes one step instead of ten, penalizes unequal weights, unlike the
    paper, and has equal weights at the first step:
    `MinNorm(steps=1, evenness=20.0, first_weights="uniform")`.
    """

    steps: int = 10
    learning_rate: float = 0.005
    exact: bool = False
    evenness: float = 0.0
    first_weights: str = "solved"
    initial: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        check_integer("MinNorm: steps", self.steps, 1)
        check_number("MinNorm: learning_rate", self.learning_rate)
        check_number("MinNorm: evenness", self.evenness)
        check_choice("MinNorm: first_weights", self.first_weights, ("solved", "uniform"))
        used = not self.exact or self.first_weights == "uniform"
        object.__setattr__(self, "initial", check_initial("MinNorm", self.initial, used))

    def init(self, start: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The logits of the weights, and whether they are to be updated."""
        return initial_state(start, self.first_weights, self.initial)

    @guarded
    def __call__(
        self, gram: tf.Tensor, values: tf.Tensor, achieved: tf.Tensor, state: Any
    ) -> tuple[tf.Tensor, Any]:
        """The weights after some steps, or the exact ones."""
        del values, achieved
        # On the simplex |w - 1 / T|^2 is |w|^2 up to a constant.
        quadratic = gram + self.evenness * tf.eye(tf.shape(gram)[1], dtype=gram.dtype)
        if self.exact:
            return solve_weights(state, quadratic)
        return descend_weights(
            state, lambda w, _: 2 * tf.linalg.matvec(quadratic, w), self.learning_rate, self.steps
        )
