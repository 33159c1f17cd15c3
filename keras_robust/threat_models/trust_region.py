"""The step along a decision boundary that ends closest to the clean image, in a trust region.

    minimize |x + d - clean|   with   normal . d = need,  |d|_2 <= radius,  low <= x + d <= high

in L1, L2 or Linf; without a loop over images, and on any device. For each norm the solutions for
all radii form one family: with `v = clean - x` and a fraction `s` in [0, 1],

- L2: `d = clip(s v + t normal)`;
- Linf: `d = clip(t normal)`, also clipped to within `(1 - s) / s |v|_inf` of `v`;
- L1: `d = clip(t normal + clip(v - t normal))`, the inner one to `+- s / (1 - s) |v|_inf`;

with a mask, `normal` is 0 outside of it, and in Linf `v` is measured, and the distance from it
multiplied, by the fractions of the pixels;

the outer clip is into the bounds, and `t` is the one with `normal . d = need`, found by Newton's
method with bracketing, since the sum is piecewise linear and grows with `t`. As `s` grows, `x + d`
approaches the clean image and `d` gets longer: the largest `s` whose `d` is feasible solves the
problem, and is found by bisection. At `s = 0` all are the shortest step.

Reference: Brendel et al., "Accurate, Reliable and Fast Robustness Evaluation" (2019), Eq. 2 and
appendix A, who solve it image by image with L-BFGS-B.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf

from keras_robust.core.numerics import broadcast_to_images, pixel_range, scalar, upcast_half
from keras_robust.core.types import Ball, Images, PerExample
from keras_robust.core.validation import check_norm
from keras_robust.threat_models.hyperplane_projection import l2_amount, project_onto_hyperplane
from keras_robust.threat_models.masks import mask_of, without_masked
from keras_robust.threat_models.norms import l2_norm

_BISECTIONS = 14  # of the fraction
_NEWTON_STEPS = 16  # for each fraction, starting at the last one's solution
_TOLERANCE = 0.01  # of the way to the plane: less than the overshoot of attacks
_ROUNDING = 1e-6  # of sums over many pixels in float32, as a fraction of a pixel's range


class _Problem(NamedTuple):
    """Flat arrays `[batch, pixels]` and `[batch, 1]`; the largest entry of a normal is 1."""

    away: tf.Tensor  # from the point to the clean image
    low: tf.Tensor  # from the point to the lower bound
    high: tf.Tensor  # from the point to the upper bound
    normal: tf.Tensor
    need: tf.Tensor  # `normal . d` for a step `d` onto the plane
    rounding: float  # of `normal . d`
    fractions: tf.Tensor | None  # of the mask, `[1, pixels]`


# (problem, fraction, t normal) -> the step, and which of its pixels change with t
_Family: TypeAlias = Callable[[_Problem, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def closest_step_on_hyperplane(
    ball: Ball,
    x: Images,
    clean: Images,
    normal: tf.Tensor,
    need: PerExample,
    radius: float | tf.Tensor,
) -> tf.Tensor:
    """The step onto a hyperplane, of limited length, that ends closest to the clean image.

    Args:
        ball: gives the norm, L1, L2 or Linf, the bounds and the mask; its radius does not matter.
        x: points inside the bounds, `[batch, ...]`.
        clean: the images to end close to.
        normal: of the plane, the shape of `x`.
        need: `normal . d` for a step `d` onto the plane, `[batch]`.
        radius: the largest length of a step, in L2; a scalar.

    Returns:
        Steps of the shape of `x`, at least float32. Where the plane is out of reach, toward its
        nearest point as far as the radius allows.

    Raises:
        TypeError: a ball of another norm.

    Example:
        >>> from keras_robust import L2Ball
        >>> x, clean = tf.constant([[0.5, 0.5]]), tf.constant([[0.9, 0.1]])
        >>> normal, need = tf.constant([[1.0, 0.0]]), tf.zeros([1])
        >>> step = closest_step_on_hyperplane(L2Ball(1.0), x, clean, normal, need, 1.0)
        >>> step.numpy().round(2).tolist()
        [[0.0, -0.4000000059604645]]

    Reference: Brendel et al. (2019), Eq. 2.
    """
    check_norm("A step along a hyperplane", ball, NORMS)
    point = upcast_half(x)
    normal, need = (tf.cast(a, point.dtype) for a in (without_masked(ball, normal), need))
    radius = scalar(radius, point.dtype)
    shortest = project_onto_hyperplane(l2_amount, ball.bounds, point, normal, -need)
    length = l2_norm(shortest)
    # The result where the plane is out of reach.
    best = shortest * broadcast_to_images(tf.minimum(tf.math.divide_no_nan(radius, length), 1), x)
    best = tf.where(broadcast_to_images(length > 0, x), best, tf.zeros_like(point))
    shape = [tf.shape(x)[0], tf.reduce_prod(tf.shape(x)[1:])]
    here, there, normal = (tf.reshape(a, shape) for a in (point, upcast_half(clean), normal))
    problem = _problem(ball.bounds, here, there, normal, need)
    mask = mask_of(ball)
    if mask is not None:
        fractions = tf.broadcast_to(mask.fractions(point.dtype), tf.shape(x)[1:])
        problem = problem._replace(fractions=tf.reshape(fractions, [1, -1]))
    step = _largest_fraction(_FAMILIES[ball.p], problem, tf.reshape(best, shape), radius)
    return tf.reshape(step, tf.shape(x))


def _problem(
    bounds: tuple[float, float],
    x: tf.Tensor,
    clean: tf.Tensor,
    normal: tf.Tensor,
    need: PerExample,
) -> _Problem:
    low, high = (scalar(bound, x.dtype) for bound in bounds)
    largest = tf.reduce_max(tf.abs(normal), axis=1, keepdims=True)
    return _Problem(
        clean - x,
        low - x,
        high - x,
        tf.math.divide_no_nan(normal, largest),
        tf.math.divide_no_nan(need[:, None], largest),
        _ROUNDING * pixel_range(bounds),
        None,
    )


def _largest_fraction(
    family: _Family, problem: _Problem, best: tf.Tensor, radius: tf.Tensor
) -> tf.Tensor:
    """Bisection of the fraction; `best` is returned where none is feasible."""
    slack = _TOLERANCE * tf.abs(problem.need) + problem.rounding

    def bisect(
        index: tf.Tensor, low: tf.Tensor, width: tf.Tensor, t: tf.Tensor, best: Any
    ) -> tuple:
        fraction = low + width
        t_next, step, missing = _on_plane(family, problem, fraction, t)
        feasible = (tf.abs(missing) <= slack) & (l2_norm(step)[:, None] <= radius)
        low, best = tf.where(feasible, fraction, low), tf.where(feasible, step, best)
        # Newton's method diverges where the fraction is too large: do not start there.
        t = tf.where(feasible & (tf.abs(missing) <= 0.1 * slack), t_next, t)
        return index + 1, low, width / 2, t, best

    zero = tf.zeros_like(problem.need)
    start = (tf.constant(0), zero, tf.constant(0.5, zero.dtype), zero, best)
    *_, best = tf.while_loop(
        lambda index, *_: index < _BISECTIONS, bisect, start, parallel_iterations=1
    )
    return best


def _on_plane(
    family: _Family, problem: _Problem, fraction: tf.Tensor, t: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Bracketed Newton: the `t` of a fraction, its step, and by how much that misses the plane."""
    width = tf.reduce_max(problem.high - problem.low, axis=1, keepdims=True)

    def newton(index: tf.Tensor, t: tf.Tensor, low: tf.Tensor, high: tf.Tensor, *_: Any) -> tuple:
        step, free = family(problem, fraction, t * problem.normal)
        missing = problem.need - tf.reduce_sum(problem.normal * step, axis=1, keepdims=True)
        low, high = tf.where(missing > 0, t, low), tf.where(missing < 0, t, high)
        slope = tf.reduce_sum(tf.where(free, problem.normal**2, 0), axis=1, keepdims=True)
        # With all pixels clipped the slope is 0, and with nearly all of them so small that a step
        # leads too far; so steps are limited, by a limit that grows.
        limit = 0.25 * width * 2.0 ** tf.cast(index, t.dtype)
        change = tf.clip_by_value(tf.math.divide_no_nan(missing, slope), -limit, limit)
        t_next = t + tf.where(slope > 0, change, tf.sign(missing) * limit)
        known = (low > -far) & (high < far)
        outside = (t_next <= low) | (t_next >= high)
        t_next = tf.where(known & outside, (low + high) / 2, t_next)
        return index + 1, tf.where(missing == 0, t, t_next), low, high, t, step, missing

    far = tf.fill(tf.shape(t), t.dtype.max)
    start = (tf.constant(0), t, -far, far, t, tf.zeros_like(problem.normal), problem.need)
    *_, t, step, missing = tf.while_loop(
        lambda index, *_: index < _NEWTON_STEPS, newton, start, parallel_iterations=1
    )
    return t, step, missing


def _l2_family(
    problem: _Problem, fraction: tf.Tensor, along: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    return _clip(fraction * problem.away + along, problem.low, problem.high)


def _linf_family(
    problem: _Problem, fraction: tf.Tensor, along: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    if problem.fractions is None:
        distance = (1 - fraction) / fraction * _largest(problem.away)
    else:
        length = _largest(tf.math.divide_no_nan(problem.away, problem.fractions))
        distance = (1 - fraction) / fraction * length * problem.fractions
    low = tf.maximum(problem.low, problem.away - distance)
    high = tf.minimum(problem.high, problem.away + distance)
    return _clip(along, low, high)


def _l1_family(
    problem: _Problem, fraction: tf.Tensor, along: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    limit = fraction / (1 - fraction) * _largest(problem.away)
    remaining, arrived = _clip(problem.away - along, -limit, limit)
    step, inside = _clip(along + remaining, problem.low, problem.high)
    return step, inside & ~arrived


_FAMILIES: dict[float | None, _Family] = {
    1.0: _l1_family,
    2.0: _l2_family,
    math.inf: _linf_family,
}
NORMS = (1.0, 2.0, math.inf)


def _largest(away: tf.Tensor) -> tf.Tensor:
    return tf.reduce_max(tf.abs(away), axis=1, keepdims=True)


def _clip(step: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The clipped step, and where it was not clipped."""
    return tf.clip_by_value(step, low, high), (step > low) & (step < high)
