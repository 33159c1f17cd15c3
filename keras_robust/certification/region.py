"""Where a perturbed image may be: the ball around it, cut with the range of a pixel."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import tensorflow as tf

from keras_robust.certification.interval import Interval
from keras_robust.certification.layers.rule import Tensor, dot, root
from keras_robust.certification.rounding import slack
from keras_robust.core.numerics import clip_rounding, scalar, upcast_half
from keras_robust.core.types import Images
from keras_robust.core.validation import check_norm
from keras_robust.threat_models import L1Ball, L2Ball, LinfBall
from keras_robust.threat_models.masks import mask_of


class Region(NamedTuple):
    """The images that bounds hold for.

    Attributes:
        x: the clean images.
        box: the smallest and largest value of each pixel.
        field: the radius of each pixel, `[1, ...]`, 0 where it may not change: the ball is
            `|d / field|_p <= 1`.
        p: the order of the norm.
    """

    x: Images
    box: Interval
    field: Tensor
    p: float

    @property
    def is_box(self) -> bool:
        """Whether the region is all of its box, as in Linf."""
        return math.isinf(self.p)

    def minimum(self, rows: Tensor) -> Tensor:
        """A lower bound of `rows . x` over the region, `[batch, rows]`, less the rounding error.

        Exact in Linf. In L2 and L1 it is the better of two: the minimum over the ball without the
        range of a pixel, by the dual norm, and the minimum over the box of the pixels.
        """
        on_box = minimum_on(rows, self.box)
        if self.is_box:
            return on_box
        size = rows.shape[2:].num_elements()
        relative = slack(size, rows.dtype)
        scaled = tf.reshape(tf.abs(rows * self.field[:, None]), [*_lead(rows), size])
        largest = tf.reduce_max(scaled, axis=2)
        norm = largest if self.p == 1 else root(tf.reduce_sum(tf.square(scaled), axis=2))
        error = dot(tf.abs(rows), relative * tf.abs(self.x)) + relative * norm
        return tf.maximum(on_box, dot(rows, self.x) - norm - error)


def _lead(rows: Tensor) -> list[Tensor]:
    shape = tf.shape(rows)
    return [shape[0], shape[1]]


def minimum_on(rows: Tensor, interval: Interval) -> Tensor:
    """The minimum of `rows . z` for `z` in an interval, less the rounding error."""
    center = 0.5 * (interval.lower + interval.upper)
    radius = 0.5 * (interval.upper - interval.lower)
    size = rows.shape[2:].num_elements()
    radius += slack(size, rows.dtype) * interval.magnitude
    return dot(rows, center) - dot(tf.abs(rows), radius)


def check_ball(ball: Any) -> None:
    """Raises unless bounds are defined in a ball.

    Raises:
        TypeError: not a threat model, one of your own, or a norm other than L1, L2 and Linf.
    """
    check_norm("A bound", ball, (1, 2, math.inf))
    if type(ball) not in (L1Ball, L2Ball, LinfBall):
        raise TypeError(
            f"ball is {ball!r}; bounds know the balls of this package only: expected "
            "`keras_robust.LinfBall`, `L2Ball` or `L1Ball`."
        )


def region_around(x: Any, ball: Any) -> Region:
    """The region of a ball around images.

    Args:
        x: images `[batch, ...]` inside the bounds; half precision becomes float32.
        ball: the threat model.

    Raises:
        TypeError: images that are not floats.
        ValueError: in eager mode, images outside the bounds or NaN.
    """
    x = tf.convert_to_tensor(x)
    if not x.dtype.is_floating:
        raise TypeError(
            f"Images have dtype {x.dtype.name}; expected a float dtype with values in "
            f"[{ball.bounds[0]:g}, {ball.bounds[1]:g}]. Divide uint8 images by 255."
        )
    x = clip_rounding(upcast_half(x), ball.bounds)
    low, high = (scalar(bound, x.dtype) for bound in ball.bounds)
    if tf.executing_eagerly() and not bool(tf.reduce_all((low <= x) & (x <= high))):
        raise ValueError(
            f"Images have values from {float(tf.reduce_min(x)):.9g} to "
            f"{float(tf.reduce_max(x)):.9g}; expected [{low:g}, {high:g}] and no NaN. Scale the "
            "images, or give the ball other `bounds`."
        )
    field = tf.fill([1, *x.shape[1:]], scalar(ball.radius, x.dtype))
    mask = mask_of(ball)
    if mask is not None:
        mask.check(x.shape)
        field *= mask.fractions(x.dtype)
    box = Interval(tf.maximum(x - field, low), tf.minimum(x + field, high), ball.bounds[0] >= 0)
    return Region(x, box, field, ball.p)
