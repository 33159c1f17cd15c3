"""CAGrad: the direction near the mean gradient with the best worst-case improvement."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from keras_robust.attacks.multi_task.simplex import equal_weights, minimize_quadratic
from keras_robust.attacks.multi_task.solvers.guard import guarded
from keras_robust.core.config import serializable
from keras_robust.core.validation import check_integer, check_number

_SMALL = 1e-8  # of the published implementation


@serializable
class CAGrad:
    """Maximizes the worst-case improvement in a ball around the mean gradient.

    With the mean `g_0`, `c = alpha |g_0|` and `w` that minimizes `g_w . g_0 + c |g_w|`, it is
    `(g_0 + c g_w / |g_w|) / (1 + alpha^2)`. Its weights need not sum to 1.

    The problem of the weights is convex but not quadratic. It is solved as a sequence of quadratic
    ones, with `|g_w|` replaced by `(|g_w|^2 / s + s) / 2` at the previous `s = |g_w|`; the value
    never increases.

    Args:
        alpha: the ball's radius relative to the mean's length, >= 0.
        rounds: the largest number of quadratic problems, >= 1; 100 reach a precision of 1e-12.
            It stops once no weight changes.

    Example:
        >>> gram = tf.constant([[[1.0, 0.0], [0.0, 1.0]]])  # two orthogonal gradients
        >>> weights, _ = CAGrad(alpha=0.5)(gram, tf.zeros([1, 2]), None, ())
        >>> print(weights.numpy().round(3))  # 1.5 / 1.25 times the mean
        [[0.6 0.6]]

    Reference: Liu et al., "Conflict-Averse Gradient Descent for Multi-Task Learning" (2021),
    Algorithm 1; alpha and the divisor as Bui et al. (2023), section 4.5.
    """

    alpha: float = 0.5
    rounds: int = 100

    def __post_init__(self) -> None:
        check_number("CAGrad: alpha", self.alpha)
        check_integer("CAGrad: rounds", self.rounds, 1)

    def init(self, start: tf.Tensor) -> Any:
        """An empty state."""
        del start
        return ()

    @guarded
    def __call__(
        self, gram: tf.Tensor, values: tf.Tensor, achieved: tf.Tensor, state: Any
    ) -> tuple[tf.Tensor, Any]:
        """The weights of the direction."""
        del achieved
        mean = equal_weights(values)
        to_mean = tf.linalg.matvec(gram, mean)
        radius = self.alpha * tf.sqrt(tf.reduce_mean(gram, axis=[1, 2]) + _SMALL) + _SMALL

        def length(weights: tf.Tensor) -> tf.Tensor:
            square = tf.reduce_sum(weights * tf.linalg.matvec(gram, weights), axis=1)
            return tf.sqrt(tf.maximum(square, 0) + _SMALL)

        settled = 2 * np.finfo(gram.dtype.as_numpy_dtype).eps

        def body(
            index: tf.Tensor, weights: tf.Tensor, moving: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            curvature = radius / length(weights)
            solved = minimize_quadratic(curvature[:, None, None] * gram, to_mean)
            return index + 1, solved, tf.reduce_any(tf.abs(solved - weights) > settled)

        _, weights, _ = tf.while_loop(
            lambda index, _, moving: (index < self.rounds) & moving,
            body,
            (tf.constant(0), mean, tf.constant(True)),
        )
        factor = (radius / length(weights))[:, None]
        return (mean + factor * weights) / (1 + self.alpha**2), state
