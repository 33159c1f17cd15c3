"""TA-MOO: the minimum-norm combination of gradients, focused on unachieved tasks."""

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
class TaskOriented:
    """Weights that minimize `w' G w + lam * Omega(w)`, small for the achieved tasks.

    `Omega(w) = sum_(achieved) w^2 + (1 - sum_(unachieved) w)^2 / unachieved` is the squared
    distance to the weights that are 0 on all achieved tasks. If all tasks are achieved only the
    first sum is left, which favors equal weights.

    Args:
        lam: the weight of `Omega`; 0 gives `MinNorm`.
        balance: the weight of a bonus on the entropy of the unachieved tasks' weights,
            `sum -w log w`, which spreads them.
        steps: gradient steps on the logits of the weights before each step of the image, >= 1; the
            logits are kept from step to step.
        learning_rate: their length.
        norm: `"all"`, or `"unachieved"` to restrict `w' G w` to the unachieved tasks.
        exact: solve the quadratic program instead, to a duality gap of 1e-12; another attack, as
            for `MinNorm`.
        first_weights: `"solved"`, or `"uniform"` to use the initial weights, equal ones by
            default, at the first step of the image.
        initial: weights of the tasks before the first step of the image, > 0 with the sum 1;
            default equal ones.
        relative: whether `G` is divided by its mean diagonal, the mean squared norm of the tasks'
            gradients. `lam` and `learning_rate` then mean the same whatever the scale of the loss,
            which otherwise decides how much `Omega` matters.

    Example:
        >>> solver, start = TaskOriented(exact=True), tf.constant([[0.5, 0.5]])
        >>> achieved = tf.constant([[True, False]])
        >>> weights, _ = solver(tf.eye(2)[None], start, achieved, solver.init(start))
        >>> print(weights.numpy().round(3))  # minimizes w1^2 + w2^2 + 100 * 2 * w1^2
        [[0.005 0.995]]

    Reference: Bui et al., "Generating Adversarial Examples with Task Oriented Multi-Objective
    Optimization" (2023), Eq. 3 to 6 and Algorithm 1.

    Differs: the defaults are the paper's. The released code has `balance=20.0` with
    `first_weights="uniform"`, and `norm="unachieved"` for transformations; the paper has the bonus
    for transformations only.
    """

    lam: float = 100.0
    balance: float = 0.0
    steps: int = 10
    learning_rate: float = 0.005
    norm: str = "all"
    exact: bool = False
    first_weights: str = "solved"
    initial: tuple[float, ...] | None = None
    relative: bool = False

    def __post_init__(self) -> None:
        check_integer("TaskOriented: steps", self.steps, 1)
        for name in ("lam", "balance", "learning_rate"):
            check_number(f"TaskOriented: {name}", getattr(self, name))
        check_choice("TaskOriented: norm", self.norm, ("all", "unachieved"))
        check_choice("TaskOriented: first_weights", self.first_weights, ("solved", "uniform"))
        used = not self.exact or self.first_weights == "uniform"
        object.__setattr__(self, "initial", check_initial("TaskOriented", self.initial, used))
        if self.exact and self.balance:
            raise ValueError(
                f"TaskOriented: exact=True with balance={self.balance:g}, whose logarithm is not "
                "quadratic. Set balance=0, or leave `exact` out."
            )

    def init(self, start: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The logits of the weights, and whether they are to be updated."""
        return initial_state(start, self.first_weights, self.initial)

    @guarded
    def __call__(
        self, gram: tf.Tensor, values: tf.Tensor, achieved: tf.Tensor, state: Any
    ) -> tuple[tf.Tensor, Any]:
        """The weights after some steps, or the exact ones."""
        del values
        done = tf.cast(achieved, gram.dtype)
        if self.relative:
            scale = tf.reduce_mean(tf.linalg.diag_part(gram), axis=1)
            gram = tf.math.divide_no_nan(gram, scale[:, None, None])
        if self.norm == "unachieved":
            gram *= (1 - done)[:, :, None] * (1 - done)[:, None, :]
        quadratic = gram + self.lam * omega_matrix(done)
        if self.exact:
            return solve_weights(state, quadratic)

        def slope(weights: tf.Tensor, log_weights: tf.Tensor) -> tf.Tensor:
            spread = self.balance * (1 - done) * (log_weights + 1)
            return 2 * tf.linalg.matvec(quadratic, weights) + spread

        return descend_weights(state, slope, self.learning_rate, self.steps)


def omega(weights: tf.Tensor, achieved: tf.Tensor) -> tf.Tensor:
    """The squared distance `[batch]` from weights to those that are 0 on all achieved tasks.

    If all tasks are achieved it is the sum of squares. Both arguments are `[batch, tasks]`.

    Example:
        >>> omega(tf.constant([[0.5, 0.25, 0.25]]), tf.constant([[True, False, False]])).numpy()
        array([0.375], dtype=float32)

    Reference: Bui et al. (2023), Theorem 1.
    """
    done = tf.cast(achieved, weights.dtype)
    missing = 1 - tf.reduce_sum((1 - done) * weights, axis=1)
    others = tf.reduce_sum(1 - done, axis=1)
    return tf.reduce_sum(done * weights**2, axis=1) + tf.math.divide_no_nan(missing**2, others)


def omega_matrix(done: tf.Tensor) -> tf.Tensor:
    """The matrix `[batch, tasks, tasks]` with `w' M w = Omega(w)` for weights on the simplex."""
    others = tf.reduce_sum(1 - done, axis=1)[:, None, None]
    product = done[:, :, None] * done[:, None, :]
    return tf.linalg.diag(done) + tf.math.divide_no_nan(product, others)
