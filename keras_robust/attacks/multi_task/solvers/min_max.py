"""Min-max weights, which grow for the tasks of the least value."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_robust.attacks.multi_task.simplex import (
    check_initial,
    equal_weights,
    initial_weights,
    project_onto_simplex,
)
from keras_robust.attacks.multi_task.solvers.guard import guarded
from keras_robust.core.config import serializable
from keras_robust.core.validation import check_number


@serializable
class MinMax:
    """Weights by descent on the weighted sum, with a penalty on unequal weights.

    `w <- P(w + learning_rate * (-f(x) - gamma * (w - 1 / T)))`, with the projection `P` onto the
    simplex; the first step has the initial weights.

    Args:
        learning_rate: the length of a step of the weights, >= 0.
        gamma: the weight of the penalty `|w - 1 / T|^2 / 2`, >= 0.
        initial: weights of the tasks before the first step of the image, > 0 with the sum 1;
            default equal ones.

    Example:
        >>> solver, values = MinMax(learning_rate=0.1, gamma=0.0), tf.constant([[1.0, 2.0]])
        >>> state = solver.init(tf.constant([[0.5, 0.5]]))
        >>> for _ in range(2):
        ...     weights, state = solver(None, values, None, state)
        >>> print(weights.numpy().round(3))
        [[0.55 0.45]]

    Reference: Wang et al., "Adversarial Attack Generation Empowered by Min-Max Optimization"
    (2021), Algorithm 1 and Eq. 9; gamma 3 as Bui et al. (2023), Appendix C.
    """

    learning_rate: float = 0.025
    gamma: float = 3.0
    initial: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        check_number("MinMax: learning_rate", self.learning_rate)
        check_number("MinMax: gamma", self.gamma)
        object.__setattr__(self, "initial", check_initial("MinMax", self.initial))

    def init(self, start: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The weights, and whether they have been used for a step."""
        return initial_weights(start, self.initial), tf.constant(False)

    @guarded
    def __call__(
        self, gram: tf.Tensor, values: tf.Tensor, achieved: tf.Tensor, state: Any
    ) -> tuple[tf.Tensor, Any]:
        """The weights after one step, except before the first step of the image."""
        del gram, achieved
        weights, started = state
        penalty = self.gamma * (weights - equal_weights(weights))
        moved = project_onto_simplex(weights - self.learning_rate * (values + penalty))
        weights = tf.where(started, moved, weights)
        return weights, (weights, tf.constant(True))
