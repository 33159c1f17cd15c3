"""How the radius of certified training grows."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_robust.core.config import serializable
from keras_robust.core.types import Ball
from keras_robust.core.validation import check_ball, check_choice, check_integer, check_number

# Of a smooth ramp: the share of its steps that follow a power of the time, and the power.
_CURVED, _POWER = 0.25, 4


@serializable
class RadiusRamp:
    """The radius of training: 0 at first, then growing up to `radius`, where it stays.

    Args:
        radius: the largest radius, in the units of the images.
        warmup_steps: number of first steps with radius 0.
        ramp_steps: number of steps over which the radius grows.
        shape: `"linear"`; or `"smooth"`, which starts as the fourth power of the time, and is
            linear after a quarter of the steps, without a jump of its slope.

    Raises:
        ValueError: a negative number, or another shape.

    Example:
        >>> ramp = RadiusRamp(0.4, warmup_steps=10, ramp_steps=100, shape="linear")
        >>> [round(float(ramp.share(step)), 2) for step in (0, 9, 59, 109, 500)]
        [0.0, 0.0, 0.5, 1.0, 1.0]

    Reference: Gowal et al., "On the Effectiveness of Interval Bound Propagation for Training
    Verifiably Robust Models" (2018), section 4 (linear); Xu et al., "Automatic Perturbation
    Analysis for Scalable Certified Robustness and Beyond" (2020), and Shi et al., "Fast Certified
    Robust Training with Short Warmup" (2021) (smooth).
    """

    radius: float
    warmup_steps: int = 0
    ramp_steps: int = 0
    shape: str = "smooth"

    def __post_init__(self) -> None:
        check_number("RadiusRamp: radius", self.radius)
        check_integer("RadiusRamp: warmup_steps", self.warmup_steps)
        check_integer("RadiusRamp: ramp_steps", self.ramp_steps)
        check_choice("RadiusRamp: shape", self.shape, ("smooth", "linear"))

    @classmethod
    def beyond(cls, ball: Ball, radius: float | None, *steps_and_shape: Any) -> RadiusRamp:
        """A ramp up to `radius`, at least that of the ball; by default 1.1 times as large.

        Raises:
            TypeError: not a threat model.
            ValueError: a smaller radius, or as for the class.
        """
        least = check_ball(ball)
        if radius is not None:
            check_number("train_radius", radius, least, hint=", the radius of the ball")
        return cls(1.1 * least if radius is None else radius, *steps_and_shape)

    def share(self, step: int | tf.Tensor) -> tf.Tensor:
        """The radius at a step, counted from 0, divided by the largest one; float32, in [0, 1]."""
        done = tf.cast(step, tf.float32) + 1 - self.warmup_steps
        time = tf.clip_by_value(done / max(self.ramp_steps, 1), 0.0, 1.0)
        if self.shape == "linear":
            return time
        # The curve `time ** power`, then its tangent, both scaled so that the end is 1.
        slope = _POWER * _CURVED ** (_POWER - 1)
        end = _CURVED**_POWER + slope * (1 - _CURVED)
        line = _CURVED**_POWER + slope * (time - _CURVED)
        # Rounding may leave the end a little above 1.
        return tf.minimum(tf.where(time < _CURVED, time**_POWER, line) / end, 1.0)
