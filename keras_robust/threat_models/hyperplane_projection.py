"""The nearest point of a hyperplane, in each norm and inside the bounds; and the dual norms.

Beside `balls`, this is the other place that knows of norms, for attacks that model the decision
boundary as a plane. Both functions ask the ball for its class: a ball of one's own joins by
`to_plane.register` and `dual_length.register`.

The smallest `d` with `value + normal . d = 0` and `low <= x + d <= high`. Each pixel goes against
the sign of the value times its normal; how far is

- Linf: `min(t, room)`, the same for all pixels that have the room;
- L2: `min(t |normal|, room)`, in proportion to the normal;
- L1: all the room of the pixels with the largest normal, until the plane is reached,

with the one `t` that reaches the plane. Where the bounds do not let it be reached, every pixel goes
as far as it can.

Reference: Croce and Hein, "Minimally Distorted Adversarial Examples with a Fast Adaptive Boundary
Attack" (2020), section 2.2 and appendix A.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any, NamedTuple

import tensorflow as tf

from keras_robust.core.numerics import scalar, upcast_half
from keras_robust.core.types import Images, PerExample
from keras_robust.threat_models.balls import L1Ball, L2Ball, LinfBall


@singledispatch
def dual_length(ball: Any, normal: tf.Tensor) -> PerExample:
    """The dual norm: a plane at `value` is `|value| / dual_length(normal)` away in the ball's norm.

    Args:
        ball: whose norm is meant: the dual of Linf is L1, of L2 itself, of L1 Linf.
        normal: `[batch, ...]`.

    Returns:
        `[batch]`.

    Raises:
        TypeError: a ball whose dual norm is not known here.

    Example:
        >>> normal = tf.constant([[3.0, -4.0]])
        >>> [float(dual_length(kind(0.1), normal)[0]) for kind in (LinfBall, L2Ball, L1Ball)]
        [7.0, 5.0, 4.0]
    """
    raise TypeError(
        f"{ball!r} has no dual norm; expected a LinfBall, an L2Ball or an L1Ball. For a ball of "
        "your own, see `keras_robust.threat_models.hyperplane_projection`."
    )


@dual_length.register
def _(ball: LinfBall, normal: tf.Tensor) -> PerExample:
    del ball
    return L1Ball(0.0).distance(normal, tf.zeros_like(normal))


@dual_length.register
def _(ball: L2Ball, normal: tf.Tensor) -> PerExample:
    return ball.distance(normal, tf.zeros_like(normal))


@dual_length.register
def _(ball: L1Ball, normal: tf.Tensor) -> PerExample:
    del ball
    return LinfBall(0.0).distance(normal, tf.zeros_like(normal))


class _Slope(NamedTuple):
    """A plane seen from each point, as flat arrays `[batch, pixels]` and `[batch, 1]`.

    Attributes:
        direction: the sign in which each pixel comes nearer; 0 where it makes no difference.
        rate: by how much it comes nearer for a unit of change, in [0, 1].
        room: how far it can go before it leaves the bounds.
        need: how much all of them have to bring together.
    """

    direction: tf.Tensor
    rate: tf.Tensor
    room: tf.Tensor
    need: tf.Tensor


def to_plane(ball: Any, x: Images, normal: tf.Tensor, value: PerExample) -> tf.Tensor:
    """The smallest step, in the ball's norm, onto a plane, without leaving the ball's bounds.

    Args:
        ball: gives the norm and the bounds; its radius does not matter.
        x: points inside the bounds, `[batch, ...]`.
        normal: the gradient of the linear function whose zeros are the plane, the shape of `x`.
        value: what the function is at `x`, `[batch]`.

    Returns:
        Steps `d` of the shape of `x`, not in half precision: `value + normal . d = 0`. Where the
        bounds do not allow that, the one that comes closest; where there is no normal, 0.

    Raises:
        TypeError: a ball whose norm is not known here.

    Example:
        >>> x, normal = tf.constant([[0.5, 0.5]]), tf.constant([[2.0, -1.0]])
        >>> for kind in (LinfBall, L2Ball, L1Ball):  # 0.75 has to be brought by 2 d_1 - d_2
        ...     print(to_plane(kind(0.1), x, normal, tf.constant([0.75])).numpy().round(3).tolist())
        [[-0.25, 0.25]]
        [[-0.30000001192092896, 0.15000000596046448]]
        [[-0.375, 0.0]]
    """
    point = upcast_half(x)
    # A model may compute in another dtype than that of its images.
    slope = _slope(ball.bounds, point, *(tf.cast(a, point.dtype) for a in (normal, value)))
    step = slope.direction * tf.minimum(_amount(ball, slope), slope.room)
    return tf.reshape(step, tf.shape(x))


def _slope(bounds: tuple[float, float], x: Images, normal: tf.Tensor, value: PerExample) -> _Slope:
    shape = [tf.shape(x)[0], tf.reduce_prod(tf.shape(x)[1:])]
    x, normal, value = tf.reshape(x, shape), tf.reshape(normal, shape), value[:, None]
    # The plane is the same at any scale, and squares of the huge and the tiny are no numbers.
    largest = tf.reduce_max(tf.abs(normal), axis=1, keepdims=True)
    normal = tf.math.divide_no_nan(normal, largest)
    value = tf.math.divide_no_nan(value, largest)
    direction = tf.where(value < 0, tf.sign(normal), -tf.sign(normal))
    low, high = (scalar(bound, x.dtype) for bound in bounds)
    room = tf.where(direction < 0, x - low, high - x)
    return _Slope(direction, tf.abs(normal), tf.maximum(room, 0), tf.abs(value))


@singledispatch
def _amount(ball: Any, slope: _Slope) -> tf.Tensor:
    """How far each pixel goes; what is beyond its room is cut off."""
    raise TypeError(
        f"{ball!r} has no projection onto a plane; expected a LinfBall, an L2Ball or an L1Ball. "
        "For a ball of your own, see `keras_robust.threat_models.hyperplane_projection`."
    )


@_amount.register
def _(ball: LinfBall, slope: _Slope) -> tf.Tensor:
    del ball
    return _level(slope.rate, slope.room, slope.need)


@_amount.register
def _(ball: L2Ball, slope: _Slope) -> tf.Tensor:
    del ball
    full = tf.math.divide_no_nan(slope.room, slope.rate)
    full = tf.minimum(full, full.dtype.max)  # infinity times a rate of 0 is no number
    return slope.rate * _level(slope.rate**2, full, slope.need)


@_amount.register
def _(ball: L1Ball, slope: _Slope) -> tf.Tensor:
    del ball
    order = tf.argsort(slope.rate, axis=1, direction="DESCENDING", stable=True)
    rate, room = (tf.gather(a, order, axis=1, batch_dims=1) for a in (slope.rate, slope.room))
    brought = tf.cumsum(rate * room, axis=1, exclusive=True)
    amount = tf.math.divide_no_nan(tf.maximum(slope.need - brought, 0), rate)
    return tf.gather(amount, tf.argsort(order, axis=1), axis=1, batch_dims=1)


def _level(rate: tf.Tensor, full: tf.Tensor, need: tf.Tensor) -> tf.Tensor:
    """The `t >= 0` with `sum rate min(t, full) = need`, `[batch, 1]`, or the largest `full`.

    The sum grows linearly between the values of `full`, so it is enough to find the piece.
    """
    order = tf.argsort(full, axis=1, stable=True)
    full, rate = (tf.gather(a, order, axis=1, batch_dims=1) for a in (full, rate))
    filled = tf.cumsum(rate * full, axis=1, exclusive=True)
    growing = tf.cumsum(rate, axis=1, reverse=True)
    reached = filled + growing * full
    piece = tf.reduce_sum(tf.cast(reached < need, tf.int32), axis=1, keepdims=True)
    piece = tf.minimum(piece, tf.shape(full)[1] - 1)
    filled, growing = (tf.gather(a, piece, axis=1, batch_dims=1) for a in (filled, growing))
    level = tf.math.divide_no_nan(need - filled, growing)
    return tf.where(reached[:, -1:] < need, full[:, -1:], level)
