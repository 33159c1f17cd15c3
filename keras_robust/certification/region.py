"""Where a perturbed image may be: the ball around it, cut with the range of a pixel."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from keras_robust.certification.interval import Interval
from keras_robust.certification.layers.rule import Tensor, dot
from keras_robust.core.numerics import clip_rounding, scalar, upcast_half
from keras_robust.core.types import Images, PerExample
from keras_robust.core.validation import check_norm
from keras_robust.threat_models import L1Ball, L2Ball, LinfBall


class Region(NamedTuple):
    """The images that bounds hold for.

    Attributes:
        x: the clean images.
        box: the smallest and largest value of each pixel.
        ball: the threat model.
    """

    x: Images
    box: Interval
    ball: Any

    def minimum(self, rows: Tensor) -> PerExample:
        """A lower bound of `rows . x` over the region, `[batch, rows]`; exact in Linf."""
        box = self.box
        centers, radii = 0.5 * (box.lower + box.upper), 0.5 * (box.upper - box.lower)
        return dot(rows, centers) - dot(tf.abs(rows), radii)


def check_ball(ball: Any) -> None:
    """Raises unless bounds are defined in a ball.

    Raises:
        TypeError: not a threat model, one of your own, or a norm other than L1, L2 and Linf.
    """
    check_norm("A bound", ball, (1, 2, float("inf")))
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
        ValueError: images that are not floats or, in eager mode, outside the bounds or NaN.
    """
    x = tf.convert_to_tensor(x)
    if not x.dtype.is_floating:
        raise ValueError(
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
    radius = scalar(ball.radius, x.dtype)
    box = Interval(tf.maximum(x - radius, low), tf.minimum(x + radius, high), ball.bounds[0] >= 0)
    return Region(x, box, ball)
