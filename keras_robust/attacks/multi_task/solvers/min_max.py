"""Weights that rise where an attack does worst."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_robust.attacks.multi_task.simplex import equal_weights, projected
from keras_robust.core.config import serializable
from keras_robust.core.validation import check_number


@serializable
class MinMax:
    """Weights that descend the weighted sum, and are drawn to equality: the worst task is climbed.

    `w <- P(w + rate * (-f(x) - gamma * (w - 1 / T)))`, with the projection `P` onto the simplex;
    the first step is taken at equal weights.

    Args:
        rate: the length of a step of the weights.
        gamma: how strongly they are drawn to `1 / T`.

    Raises:
        ValueError: a negative number.

    Example:
        >>> solver, values = MinMax(rate=0.1, gamma=0.0), tf.constant([[1.0, 2.0]])
        >>> state = solver.init(tf.constant([[0.5, 0.5]]))
        >>> for _ in range(2):
        ...     weights, state = solver(None, values, None, state)
        >>> print(weights.numpy().round(3))
        [[0.55 0.45]]

    Reference: Wang et al., "Adversarial Attack Generation Empowered by Min-Max Optimization"
    (2021), Algorithm 1 and Eq. 9; gamma 3 as Bui et al. (2023), Appendix C.
    """

    rate: float = 0.025
    gamma: float = 3.0

    def __post_init__(self) -> None:
        check_number("MinMax: rate", self.rate)
        check_number("MinMax: gamma", self.gamma)

    def init(self, start: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The weights, and whether a step was taken with them."""
        return start, tf.constant(False)

    def __call__(
        self, gram: tf.Tensor, values: tf.Tensor, achieved: tf.Tensor, state: Any
    ) -> tuple[tf.Tensor, Any]:
        """A step of the weights, but before the first step of the image."""
        del gram, achieved
        weights, started = state
        drawn = self.gamma * (weights - equal_weights(weights))
        moved = projected(weights - self.rate * (values + drawn))
        weights = tf.where(started, moved, weights)
        return weights, (weights, tf.constant(True))
