"""The shortest combination of gradients: MGDA."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_robust.attacks.multi_task.simplex import solved, stepped, warm_start
from keras_robust.core.config import serializable
from keras_robust.core.validation import check_choice, check_integer, check_number


@serializable
class MinNorm:
    """Weights of the shortest combined gradient, `min_w w' G w`, along which all tasks rise (MOO).

    Args:
        steps: gradient steps on the logits of the weights before each step of the image; the
            logits are kept from step to step.
        rate: their length.
        exact: solve the quadratic program instead, to a duality gap of 1e-12. After so few steps
            the weights are far from its solution, which often is a single task: it is another
            attack, not a better approximation of this one.
        even: weight of `|w - 1 / T|^2`; 0 in the paper.
        first: `"solved"`, or `"uniform"` to take the first step of the image at equal weights.

    Raises:
        ValueError: a negative number, no steps, another `first`.

    Example:
        >>> solver = MinNorm(exact=True)
        >>> gram = tf.constant([[[1.0, 0.0], [0.0, 3.0]]])  # of gradients at a right angle
        >>> start = tf.constant([[0.5, 0.5]])
        >>> weights, _ = solver(gram, start, start > 1, solver.init(start))
        >>> weights.numpy().round(6).tolist()
        [[0.75, 0.25]]

    Reference: Desideri, "Multiple-Gradient Descent Algorithm" (2012); Bui et al., "Generating
    Adversarial Examples with Task Oriented Multi-Objective Optimization" (2023), Eq. 2 and
    Algorithm 1 with lambda 0.

    Differs: the released code takes one step instead of ten, with a weight of 20 on evenness, which
    the paper has not, after a first step at equal weights:
    `MinNorm(steps=1, even=20.0, first="uniform")`.
    """

    steps: int = 10
    rate: float = 0.005
    exact: bool = False
    even: float = 0.0
    first: str = "solved"

    def __post_init__(self) -> None:
        check_integer("MinNorm: steps", self.steps, 1)
        check_number("MinNorm: rate", self.rate)
        check_number("MinNorm: even", self.even)
        check_choice("MinNorm: first", self.first, ("solved", "uniform"))

    def init(self, start: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The logits of the weights, and whether they are to be moved."""
        return warm_start(start, self.first)

    def __call__(
        self, gram: tf.Tensor, values: tf.Tensor, achieved: tf.Tensor, state: Any
    ) -> tuple[tf.Tensor, Any]:
        """The weights after a few steps, or those of the solution."""
        del values, achieved
        # On the simplex |w - 1 / T|^2 is |w|^2 but for a constant.
        quadratic = gram + self.even * tf.eye(tf.shape(gram)[1], dtype=gram.dtype)
        if self.exact:
            return solved(state, quadratic)
        return stepped(
            state, lambda w, _: 2 * tf.linalg.matvec(quadratic, w), self.rate, self.steps
        )
