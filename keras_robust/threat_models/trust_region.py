"""The step along a decision boundary that comes nearest to the clean image, within a trust region.

    minimise |x + d - clean|   with   normal . d = need,  |d|_2 <= radius,  low <= x + d <= high

in the norm of the ball; without a loop over images, and on any device. For each norm the solutions
for all radii are one family of points: with `v = clean - x` and a share `s` in [0, 1],

- L2: `d = clip(s v + t normal)`;
- Linf: `d = clip(t normal)`, also clipped to within `(1 - s) / s |v|_inf` of `v`;
- L1: `d = clip(t normal + clip(v - t normal))`, the inner one to `+- s / (1 - s) |v|_inf`;

the outer one into the bounds, and the one `t` with `normal . d = need`, found by Newton's method
between bounds, as the sum is piecewise linear and grows with `t`. The nearer `s` is to 1, the
nearer is `x + d` to the clean image, and the longer is `d`: so the largest `s` whose `d` is
feasible solves the problem, and is found by bisection. At `s = 0` all are the shortest step.

Reference: Brendel et al., "Accurate, Reliable and Fast Robustness Evaluation" (2019), Eq. 2 and
appendix A, who solve it image by image with L-BFGS-B.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any, NamedTuple

import tensorflow as tf

from keras_robust.core.numerics import broadcast_to_images, scalar, upcast_half
from keras_robust.core.types import Images, PerExample
from keras_robust.threat_models.balls import L1Ball, L2Ball, LinfBall
from keras_robust.threat_models.hyperplane_projection import to_plane

_CUTS = 14  # bisections of the share
_NEWTON = 16  # steps of Newton's method for each, which begin where the last ones ended
_TOLERANCE = 0.01  # of the way to the plane: less than attacks go beyond it


class _Problem(NamedTuple):
    """Flat arrays: `[batch, pixels]` and `[batch, 1]`; the largest entry of a normal is 1."""

    away: tf.Tensor
    low: tf.Tensor
    high: tf.Tensor
    normal: tf.Tensor
    need: tf.Tensor


def nearest_on_plane(
    ball: Any, x: Images, clean: Images, normal: tf.Tensor, need: PerExample, radius: Any
) -> tf.Tensor:
    """The step onto a plane after which an image is as near to the clean one as can be.

    Args:
        ball: gives the norm and the bounds; its radius does not matter.
        x: points inside the bounds, `[batch, ...]`.
        clean: what they should come near to.
        normal: of the plane, the shape of `x`.
        need: `normal . d` for a step `d` onto the plane, `[batch]`.
        radius: how long a step may be, in L2; a scalar.

    Returns:
        Steps of the shape of `x`, not in half precision. Where the plane is out of reach, towards
        its nearest point as far as the radius allows.

    Raises:
        TypeError: a ball whose norm is not known here.

    Example:
        >>> x, clean = tf.constant([[0.5, 0.5]]), tf.constant([[0.9, 0.1]])
        >>> normal, on_it = tf.constant([[1.0, 0.0]]), tf.zeros([1])
        >>> nearest_on_plane(L2Ball(1.0), x, clean, normal, on_it, 1.0).numpy().round(2).tolist()
        [[0.0, -0.4000000059604645]]

    Reference: Brendel et al. (2019), Eq. 2.
    """
    point = upcast_half(x)
    normal, need = (tf.cast(a, point.dtype) for a in (normal, need))
    radius = scalar(radius, point.dtype)
    shortest = to_plane(L2Ball(0.0, ball.bounds), point, normal, -need)
    zeros = tf.zeros_like(point)
    length = ball_length(shortest, zeros)
    # Where the plane is out of reach, this is where the step ends.
    best = shortest * broadcast_to_images(tf.minimum(tf.math.divide_no_nan(radius, length), 1), x)
    best = tf.where(broadcast_to_images(length > 0, x), best, zeros)
    shape = [tf.shape(x)[0], tf.reduce_prod(tf.shape(x)[1:])]
    here, there, normal = (tf.reshape(a, shape) for a in (point, upcast_half(clean), normal))
    problem = _problem(ball, here, there, normal, need)
    step = _largest_share(ball, problem, tf.reshape(best, shape), radius)
    return tf.reshape(step, tf.shape(x))


def ball_length(step: tf.Tensor, zeros: tf.Tensor) -> PerExample:
    """The Euclidean length of steps, `[batch]`."""
    return L2Ball(0.0).distance(step, zeros)


def _problem(
    ball: Any, x: tf.Tensor, clean: tf.Tensor, normal: tf.Tensor, need: PerExample
) -> _Problem:
    low, high = (scalar(bound, x.dtype) for bound in ball.bounds)
    largest = tf.reduce_max(tf.abs(normal), axis=1, keepdims=True)
    return _Problem(
        clean - x,
        low - x,
        high - x,
        tf.math.divide_no_nan(normal, largest),
        tf.math.divide_no_nan(need[:, None], largest),
    )


def _largest_share(ball: Any, problem: _Problem, best: tf.Tensor, radius: tf.Tensor) -> tf.Tensor:
    """Bisection of the share; `best` is the step where no share is feasible."""
    # Sums over many pixels are not more exact than that in float32.
    slack = _TOLERANCE * tf.abs(problem.need) + 1e-6

    def cut(index: tf.Tensor, low: tf.Tensor, width: tf.Tensor, t: tf.Tensor, best: Any) -> tuple:
        share = low + width
        here, step, missing = _on_plane(ball, problem, share, t)
        length = ball_length(step, tf.zeros_like(step))[:, None]
        feasible = (tf.abs(missing) <= slack) & (length <= radius)
        low, best = tf.where(feasible, share, low), tf.where(feasible, step, best)
        # Not from where Newton's method ran away, as it does where a share is too large.
        t = tf.where(feasible & (tf.abs(missing) <= 0.1 * slack), here, t)
        return index + 1, low, width / 2, t, best

    zero = tf.zeros_like(problem.need)
    start = (tf.constant(0), zero, tf.constant(0.5, zero.dtype), zero, best)
    *_, best = tf.while_loop(lambda index, *_: index < _CUTS, cut, start, parallel_iterations=1)
    return best


def _on_plane(
    ball: Any, problem: _Problem, share: tf.Tensor, t: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The `t` of a share, its step, and by how much that misses the plane; guarded Newton."""
    width = tf.reduce_max(problem.high - problem.low, axis=1, keepdims=True)

    def newton(index: tf.Tensor, t: tf.Tensor, low: tf.Tensor, high: tf.Tensor, *_: Any) -> tuple:
        step, free = _member(ball, problem, share, t * problem.normal)
        missing = problem.need - tf.reduce_sum(problem.normal * step, axis=1, keepdims=True)
        low, high = tf.where(missing > 0, t, low), tf.where(missing < 0, t, high)
        slope = tf.reduce_sum(tf.where(free, problem.normal**2, 0), axis=1, keepdims=True)
        # Where all pixels stand at their ends there is no slope, and where nearly all do, one so
        # small that it leads too far: no further than a limit that grows.
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
        lambda index, *_: index < _NEWTON, newton, start, parallel_iterations=1
    )
    return t, step, missing


@singledispatch
def _member(
    ball: Any, problem: _Problem, share: tf.Tensor, along: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """A step of the family, and which of its pixels move with `along`, which is `t normal`."""
    raise TypeError(
        f"{ball!r} has no steps along a plane; expected a LinfBall, an L2Ball or an L1Ball. For a "
        "ball of your own, see `keras_robust.threat_models.trust_region`."
    )


@_member.register
def _(
    ball: L2Ball, problem: _Problem, share: tf.Tensor, along: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    del ball
    return _clip(share * problem.away + along, problem.low, problem.high)


@_member.register
def _(
    ball: LinfBall, problem: _Problem, share: tf.Tensor, along: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    del ball
    reach = (1 - share) / share * _largest(problem.away)
    low = tf.maximum(problem.low, problem.away - reach)
    high = tf.minimum(problem.high, problem.away + reach)
    return _clip(along, low, high)


@_member.register
def _(
    ball: L1Ball, problem: _Problem, share: tf.Tensor, along: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    del ball
    reach = share / (1 - share) * _largest(problem.away)
    left, arrived = _clip(problem.away - along, -reach, reach)
    step, inside = _clip(along + left, problem.low, problem.high)
    return step, inside & ~arrived


def _largest(away: tf.Tensor) -> tf.Tensor:
    return tf.reduce_max(tf.abs(away), axis=1, keepdims=True)


def _clip(step: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The clipped step, and where it was not clipped."""
    return tf.clip_by_value(step, low, high), (step > low) & (step < high)
