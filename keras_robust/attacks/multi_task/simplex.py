"""Weights of tasks, >= 0 with sum 1: descent on them, projection onto them, quadratics over them.

All work on many examples at once, `[batch, tasks]`, each on its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

_RIDGE = 1e-12  # relative; gradients that depend on each other have many solutions of one value
_TOLERANCE = 1e-12  # of the duality gap, relative to the largest entry


def equal_weights(like: tf.Tensor) -> tf.Tensor:
    """The same weight for each task, in the shape and dtype of `[batch, tasks]`.

    Example:
        >>> equal_weights(tf.zeros([1, 4])).numpy().tolist()
        [[0.25, 0.25, 0.25, 0.25]]
    """
    return tf.ones_like(like) / tf.cast(tf.shape(like)[1], like.dtype)


def descended(
    alpha: tf.Tensor,
    slope: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    rate: float,
    steps: int,
) -> tf.Tensor:
    """Gradient descent on the logits of the weights, `w = softmax(alpha)`.

    Args:
        alpha: the logits at the start, `[batch, tasks]`.
        slope: `(w, log w)` -> the derivative in `w` of what is minimised, `[batch, tasks]`.
        rate: the length of a step.
        steps: how many steps.

    Returns:
        The logits at the end.

    Example:
        >>> alpha = descended(tf.zeros([1, 2]), lambda w, _: tf.constant([[1.0, 3.0]]), 1.0, 1)
        >>> alpha.numpy().tolist()  # minus w * (slope - w . slope)
        [[0.5, -0.5]]
    """
    for _ in range(steps):
        log_weights = tf.nn.log_softmax(alpha)
        weights = tf.exp(log_weights)
        along = slope(weights, log_weights)
        mean = tf.reduce_sum(weights * along, axis=1, keepdims=True)
        alpha -= rate * weights * (along - mean)
    return alpha


def warm_start(start: tf.Tensor, first: str) -> tuple[tf.Tensor, tf.Tensor]:
    """The state of `stepped` and `solved`: logits, and whether weights are to be looked for."""
    return start, tf.constant(first == "solved")


def stepped(
    state: Any, slope: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], rate: float, steps: int
) -> tuple[tf.Tensor, Any]:
    """Weights after a few steps of descent from where the last ones ended, and the next state."""
    alpha, due = state
    alpha = tf.where(due, descended(alpha, slope, rate, steps), alpha)
    return tf.nn.softmax(alpha), (alpha, tf.constant(True))


def solved(state: Any, quadratic: tf.Tensor) -> tuple[tf.Tensor, Any]:
    """Weights that minimise `w' A w`, and the next state."""
    alpha, due = state
    return tf.where(due, minimum(quadratic), equal_weights(alpha)), (alpha, tf.constant(True))


def projected(values: tf.Tensor, bisections: int = 20) -> tf.Tensor:
    """The weights nearest to some values: `max(values - mu, 0)`, with `mu` found by bisection.

    Args:
        values: `[batch, tasks]`.
        bisections: how often the interval that holds `mu` is halved.

    Returns:
        `[batch, tasks]`, whose sum is 1 but for `tasks * range(values) / 2^bisections`.

    Example:
        >>> projected(tf.constant([[1.0, 0.5, -3.0]])).numpy().round(4).tolist()
        [[0.75, 0.25, 0.0]]

    Reference: Wang et al., "Adversarial Attack Generation Empowered by Min-Max Optimization"
    (2021), Proposition 1.
    """
    share = 1 / tf.cast(tf.shape(values)[1], values.dtype)
    low = tf.reduce_min(values, axis=1, keepdims=True) - share
    high = tf.reduce_max(values, axis=1, keepdims=True) - share
    for _ in range(bisections):
        middle = (low + high) / 2
        total = tf.reduce_sum(tf.maximum(values - middle, 0), axis=1, keepdims=True)
        low, high = tf.where(total > 1, middle, low), tf.where(total > 1, high, middle)
    return tf.maximum(values - (low + high) / 2, 0)


def minimum(quadratic: tf.Tensor, linear: tf.Tensor | None = None) -> tf.Tensor:
    """The weights that minimise `w' A w / 2 + b' w`, exactly.

    An active-set method: the weights of a set of tasks are those of the least value in the set's
    affine hull, where they are all positive; a task enters the set that the value falls towards
    most, and leaves it when its weight falls to 0. It ends when the duality gap, which bounds what
    is left to gain, is below 1e-12 of the largest entry, after about as many rounds as there are
    tasks; each solves one system of their size in float64. All examples are solved together, so
    that nothing depends on the number of supports, which is `2^tasks`.

    Args:
        quadratic: `A`, symmetric with eigenvalues >= 0, `[batch, tasks, tasks]`.
        linear: `b`, `[batch, tasks]`; default 0.

    Returns:
        `[batch, tasks]`, in the dtype of `A`. Where several weights have the least value, one of
        them.

    Example:
        >>> gram = tf.constant([[[1.0, 0.0], [0.0, 3.0]], [[1.0, 2.0], [2.0, 5.0]]])
        >>> minimum(gram).numpy().round(6).tolist()
        [[0.75, 0.25], [1.0, 0.0]]

    Reference: Wolfe, "Finding the Nearest Point in a Polytope" (1976), section 4, which has the
    quadratic term alone.
    """
    zeros = tf.zeros_like(quadratic[:, 0])
    a, b = _scaled(quadratic, zeros if linear is None else linear)
    tasks = tf.shape(zeros)[1]

    def opened(weights: tf.Tensor, settled: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The slope, and which examples are not at their minimum."""
        slope = tf.linalg.matvec(a, weights) + b
        # Less its mean, which matters to no way on the simplex, and is 0 at a minimum.
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
        moved, whole = _along(weights, _to_hull(a, slope, support), support)
        weights = tf.where(active[:, None], moved, weights)
        settled = tf.where(active, whole, settled)
        slope, unsolved = opened(weights, settled)
        return index + 1, weights, settled, slope, active & unsolved

    vertex = tf.argmin(tf.linalg.diag_part(a) / 2 + b, axis=1)
    weights = tf.one_hot(vertex, tasks, dtype=tf.float64)
    weights.set_shape(zeros.shape)
    settled = tf.ones_like(vertex, tf.bool)
    start = (tf.constant(0), weights, settled, *opened(weights, settled))
    # In exact arithmetic no set comes twice; the bound is for rounding, which may alternate.
    _, weights, *_ = tf.while_loop(
        lambda index, *state: (index < 8 * tasks + 8) & tf.reduce_any(state[-1]), body, start
    )
    return tf.cast(weights, quadratic.dtype)


def _scaled(quadratic: tf.Tensor, linear: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Both in float64, finite, with a largest entry of 1: a linear solver raises at NaN."""
    a, b = (tf.cast(part, tf.float64) for part in (quadratic, linear))
    a, b = (tf.where(tf.math.is_finite(part), part, tf.zeros_like(part)) for part in (a, b))
    largest = tf.maximum(tf.reduce_max(tf.abs(a), axis=[1, 2]), tf.reduce_max(tf.abs(b), axis=1))
    return tf.math.divide_no_nan(a, largest[:, None, None]), tf.math.divide_no_nan(
        b, largest[:, None]
    )


def _to_hull(a: tf.Tensor, slope: tf.Tensor, support: tf.Tensor) -> tf.Tensor:
    """The way, with sum 0, to the least value in the affine hull of a set of tasks.

    A way and no point: its rounding is relative to its length, so that a second one mends the
    first where gradients depend on each other.
    """
    inside = tf.cast(support, a.dtype)
    both = inside[:, :, None] * inside[:, None, :]
    ones = tf.ones_like(slope)
    system = a * both + tf.linalg.diag(tf.where(support, _RIDGE * ones, ones))
    sides = tf.stack([inside, -slope * inside], axis=2)
    free, down = tf.unstack(tf.linalg.solve(system, sides), axis=2)
    share = tf.reduce_sum(down, axis=1) / tf.reduce_sum(free, axis=1)
    return down - share[:, None] * free


def _along(weights: tf.Tensor, way: tf.Tensor, support: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """As far along a way as weights stay >= 0, and whether that is all of it."""
    blocked = support & (weights + way <= 0)
    ratios = -tf.math.divide_no_nan(weights, way)
    step = tf.reduce_min(tf.where(blocked, ratios, tf.ones_like(ratios)), axis=1, keepdims=True)
    # The weight that stopped the step is 0 but for rounding.
    stopped = blocked & (ratios <= step)
    moved = tf.maximum(weights + step * way, 0)
    moved = tf.where(support & ~stopped, moved, tf.zeros_like(moved))
    return moved / tf.reduce_sum(moved, axis=1, keepdims=True), ~tf.reduce_any(blocked, axis=1)
