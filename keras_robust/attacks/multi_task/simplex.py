"""Weights of tasks, >= 0 with sum 1: descent on the simplex, projection, quadratic programs.

All functions work on a batch of weights, `[batch, tasks]`, each row on its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

from keras_robust.core.validation import check_number

_RIDGE = 1e-12  # relative; linearly dependent gradients have many solutions of one value
_TOLERANCE = 1e-12  # of the duality gap, relative to the largest entry

# `(w, log w)` -> the derivative in `w` of what is minimized, all `[batch, tasks]`.
Slope = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
# The logits of the weights, and whether they are to be updated.
State = tuple[tf.Tensor, tf.Tensor]


def equal_weights(like: tf.Tensor) -> tf.Tensor:
    """The same weight for each task, in the shape and dtype of `like`, `[batch, tasks]`."""
    return tf.ones_like(like) / tf.cast(tf.shape(like)[1], like.dtype)


def descend_logits(alpha: tf.Tensor, slope: Slope, learning_rate: float, steps: int) -> tf.Tensor:
    """The logits `alpha` after gradient descent on an objective of `w = softmax(alpha)`."""
    for _ in range(steps):
        log_weights = tf.nn.log_softmax(alpha)
        weights = tf.exp(log_weights)
        along = slope(weights, log_weights)
        mean = tf.reduce_sum(weights * along, axis=1, keepdims=True)
        alpha -= learning_rate * weights * (along - mean)
    return alpha


def check_initial(
    owner: str, initial: tuple[float, ...] | None, used: bool = True
) -> tuple[float, ...] | None:
    """Returns initial weights as a tuple of numbers, or None.

    Raises:
        TypeError: not a sequence.
        ValueError: a weight that is not > 0, a sum other than 1, or weights that are not used.

    Example:
        >>> check_initial("MinNorm", [0.25, 0.75])
        (0.25, 0.75)
    """
    if initial is None:
        return None
    if not isinstance(initial, (tuple, list)):
        raise TypeError(f"{owner}: initial is {initial!r}; expected a tuple of weights.")
    if not used:
        raise ValueError(
            f"{owner}: exact=True with initial weights, on which the solution does not depend. "
            "Leave them out, or set first_weights='uniform' to use them at the first step."
        )
    for weight in initial:
        check_number(f"{owner}: initial weight", weight, above=0)
    weights = tuple(map(float, initial))
    if not math.isclose(sum(weights), 1, abs_tol=1e-3):
        raise ValueError(
            f"{owner}: the initial weights have the sum {sum(weights):g}; expected weights with "
            "the sum 1, one per task."
        )
    return weights


def initial_weights(start: tf.Tensor, initial: tuple[float, ...] | None) -> tf.Tensor:
    """Weights of one row for all rows of `start`, `[batch, tasks]`; `start` itself for None.

    Raises:
        ValueError: another number of weights than of tasks.
    """
    if initial is None:
        return start
    if start.shape[1] not in (None, len(initial)):
        raise ValueError(
            f"The solver has {len(initial)} initial weights for {start.shape[1]} tasks; expected "
            "one weight per task."
        )
    row = tf.constant(initial, start.dtype)
    weights = tf.broadcast_to(row / tf.reduce_sum(row), tf.shape(start))
    weights.set_shape(start.shape)
    return weights


def initial_state(
    start: tf.Tensor, first_weights: str, initial: tuple[float, ...] | None = None
) -> State:
    """The state of `descend_weights` and `solve_weights` before the first step."""
    due = tf.constant(first_weights == "solved")
    if initial is None:
        return start, due
    return tf.math.log(initial_weights(start, initial)), due


def descend_weights(
    state: State, slope: Slope, learning_rate: float, steps: int
) -> tuple[tf.Tensor, State]:
    """Weights after some steps of descent from the last ones, and the next state."""
    alpha, due = state
    alpha = tf.where(due, descend_logits(alpha, slope, learning_rate, steps), alpha)
    return tf.nn.softmax(alpha), (alpha, tf.constant(True))


def solve_weights(state: State, quadratic: tf.Tensor) -> tuple[tf.Tensor, State]:
    """Weights that minimize `w' A w`, and the next state."""
    alpha, due = state
    weights = tf.where(due, minimize_quadratic(quadratic), tf.nn.softmax(alpha))
    return weights, (alpha, tf.constant(True))


def project_onto_simplex(values: tf.Tensor, bisections: int = 20) -> tf.Tensor:
    """The closest weights to some values: `max(values - mu, 0)`, with `mu` found by bisection.

    Args:
        values: `[batch, tasks]`.
        bisections: how often the interval that contains `mu` is halved.

    Returns:
        `[batch, tasks]`, whose sum is 1 up to `tasks / 2^bisections`.

    Example:
        >>> project_onto_simplex(tf.constant([[1.0, 0.5, -3.0]])).numpy().round(4).tolist()
        [[0.75, 0.25, 0.0]]

    Reference: Wang et al., "Adversarial Attack Generation Empowered by Min-Max Optimization"
    (2021), Proposition 1.
    """
    each = 1 / tf.cast(tf.shape(values)[1], values.dtype)
    # Relative to the largest, whose rounding would otherwise hide a sum of 1. No weight is above 1:
    # with values far apart the interval is still at most of length 1.
    values -= tf.reduce_max(values, axis=1, keepdims=True)
    low = tf.maximum(tf.reduce_min(values, axis=1, keepdims=True) - each, -1)
    high = tf.zeros_like(low) - each
    for _ in range(bisections):
        middle = (low + high) / 2
        total = tf.reduce_sum(tf.maximum(values - middle, 0), axis=1, keepdims=True)
        low, high = tf.where(total > 1, middle, low), tf.where(total > 1, high, middle)
    return tf.maximum(values - (low + high) / 2, 0)


def minimize_quadratic(quadratic: tf.Tensor, linear: tf.Tensor | None = None) -> tf.Tensor:
    """The weights that minimize `w' A w / 2 + b' w`, exactly.

    An active-set method in float64, to a duality gap of 1e-12 of the largest entry, in about as
    many rounds as there are tasks. The task along which the value decreases most enters the
    support; a task whose weight reaches 0 leaves it.

    Args:
        quadratic: `A`, symmetric with eigenvalues >= 0, `[batch, tasks, tasks]`.
        linear: `b`, `[batch, tasks]`; default 0.

    Returns:
        `[batch, tasks]`, in the dtype of `A`; one of the minimizers if there are several.

    Example:
        >>> gram = tf.constant([[[1.0, 0.0], [0.0, 3.0]], [[1.0, 2.0], [2.0, 5.0]]])
        >>> minimize_quadratic(gram).numpy().round(6).tolist()
        [[0.75, 0.25], [1.0, 0.0]]

    Reference: Wolfe, "Finding the Nearest Point in a Polytope" (1976), section 4, for the quadratic
    term alone.
    """
    zeros = tf.zeros_like(quadratic[:, 0])
    a, b = _rescale(quadratic, zeros if linear is None else linear)
    tasks = tf.shape(zeros)[1]

    def slope_and_unsolved(weights: tf.Tensor, settled: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        slope = tf.linalg.matvec(a, weights) + b
        # Minus its mean, which does not change any direction on the simplex; 0 at a minimum.
        slope -= tf.reduce_sum(weights * slope, axis=1, keepdims=True)
        gap = -tf.reduce_min(slope, axis=1)
        return slope, ~settled | (gap > _TOLERANCE)

    def body(
        index: tf.Tensor,
        weights: tf.Tensor,
        settled: tf.Tensor,
        slope: tf.Tensor,
        active: tf.Tensor,
    ) -> tuple[tf.Tensor, ...]:
        enters = tf.one_hot(tf.argmin(slope, axis=1), tasks, True, False, dtype=tf.bool)
        support = (weights > 0) | (settled[:, None] & enters)
        moved, complete = _move(weights, _step_to_hull(a, slope, support), support)
        weights = tf.where(active[:, None], moved, weights)
        settled = tf.where(active, complete, settled)
        slope, unsolved = slope_and_unsolved(weights, settled)
        return index + 1, weights, settled, slope, active & unsolved

    vertex = tf.argmin(tf.linalg.diag_part(a) / 2 + b, axis=1)
    weights = tf.one_hot(vertex, tasks, dtype=tf.float64)
    weights.set_shape(zeros.shape)
    settled = tf.ones_like(vertex, tf.bool)
    start = (tf.constant(0), weights, settled, *slope_and_unsolved(weights, settled))
    # In exact arithmetic no support recurs; the bound is for rounding, which may alternate.
    _, weights, *_ = tf.while_loop(
        lambda index, *state: (index < 8 * tasks + 8) & tf.reduce_any(state[-1]), body, start
    )
    return tf.cast(weights, quadratic.dtype)


def _rescale(quadratic: tf.Tensor, linear: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Both in float64, finite, with a largest entry of 1: `tf.linalg.solve` raises at NaN."""
    a, b = (tf.cast(part, tf.float64) for part in (quadratic, linear))
    a, b = (tf.where(tf.math.is_finite(part), part, tf.zeros_like(part)) for part in (a, b))
    largest = tf.maximum(tf.reduce_max(tf.abs(a), axis=[1, 2]), tf.reduce_max(tf.abs(b), axis=1))
    return tf.math.divide_no_nan(a, largest[:, None, None]), tf.math.divide_no_nan(
        b, largest[:, None]
    )


def _step_to_hull(a: tf.Tensor, slope: tf.Tensor, support: tf.Tensor) -> tf.Tensor:
    """The step, of sum 0, to the least value in the affine hull of a support.

    A step rather than a point: its rounding is relative to its length, so that a second step
    corrects the first if gradients are linearly dependent.
    """
    inside = tf.cast(support, a.dtype)
    both = inside[:, :, None] * inside[:, None, :]
    ones = tf.ones_like(slope)
    system = a * both + tf.linalg.diag(tf.where(support, _RIDGE * ones, ones))
    sides = tf.stack([inside, -slope * inside], axis=2)
    free, down = tf.unstack(tf.linalg.solve(system, sides), axis=2)
    ratio = tf.reduce_sum(down, axis=1) / tf.reduce_sum(free, axis=1)
    return down - ratio[:, None] * free


def _move(weights: tf.Tensor, step: tf.Tensor, support: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The weights after as much of a step as keeps them >= 0, and whether that is all of it."""
    blocked = support & (weights + step <= 0)
    ratios = -tf.math.divide_no_nan(weights, step)
    length = tf.reduce_min(tf.where(blocked, ratios, tf.ones_like(ratios)), axis=1, keepdims=True)
    # The weight that limits the step is 0 up to rounding.
    stopped = blocked & (ratios <= length)
    moved = tf.maximum(weights + length * step, 0)
    moved = tf.where(support & ~stopped, moved, tf.zeros_like(moved))
    return moved / tf.reduce_sum(moved, axis=1, keepdims=True), ~tf.reduce_any(blocked, axis=1)
