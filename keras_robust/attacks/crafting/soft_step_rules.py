"""Step rules without a hard ball: a pull, or a price, holds the images instead of a projection.

What comes out is inside the bounds, and may be outside the ball.
"""

from __future__ import annotations

import math
import numbers
from typing import Any

import tensorflow as tf

from keras_robust.attacks.crafting.step_rules import Point, check_size
from keras_robust.core.config import serializable
from keras_robust.core.numerics import scalar, upcast_half
from keras_robust.core.types import Ball, Images
from keras_robust.threat_models.balls import clipped
from keras_robust.threat_models.transport_cost import COSTS, smoothed_gradient


@serializable
class SoftBallStep:
    """Moves by `size` along the ball's steepest direction, then is pulled back, not projected.

    Inside the ball nothing holds a point, or little; outside of it the multiplier and the
    temperature say how far it is drawn back in each step. With `tau = size` and a multiplier of 1,
    the elementwise pull is the projection onto a Linf ball; a larger multiplier would overshoot it,
    and is taken for 1 there.

    Args:
        size: the length of a step, in the units of the images.
        multiplier: of the pull, the dual variable lambda; a number or a scalar tensor, >= 0.
        tau: the temperature, > 0; default `2 * size`.
        pull: `"elementwise"` draws each pixel that left the radius back towards it, by
            `multiplier * size / tau` of what is outside. `"l1"`, `"l2"` and `"linf"` follow the
            gradient of the smoothed cost of that kind (`keras_robust.threat_models.transport_cost`).

    Raises:
        ValueError: a size or a multiplier below 0, a temperature that is not > 0, another pull.

    Reference: Bui et al., "A Unified Wasserstein Distributional Robustness Framework for
    Adversarial Training" (2022), Algorithm 1.

    Differs: clips into the bounds after every step, not after the last alone, so that gradients
    are those of images.
    """

    size: Any
    multiplier: Any = 1.0
    tau: Any = None
    pull: str = "elementwise"

    def __post_init__(self) -> None:
        check_size("SoftBallStep", self.size)
        if isinstance(self.multiplier, numbers.Real) and not 0 <= float(self.multiplier) < math.inf:
            raise ValueError(
                f"SoftBallStep: multiplier is {self.multiplier!r}; expected a finite number >= 0."
            )
        if isinstance(self.tau, numbers.Real) and not 0 < float(self.tau) < math.inf:
            raise ValueError(f"SoftBallStep: tau is {self.tau!r}; expected a finite number > 0.")
        if self.pull not in ("elementwise", *COSTS):
            raise ValueError(
                f"SoftBallStep: pull is {self.pull!r}; expected 'elementwise', "
                f"{', '.join(map(repr, COSTS))}."
            )

    def init(self, ball: Ball, x_start: Images) -> tuple[()]:
        """No state."""
        del ball, x_start
        return ()

    def update(self, ball: Ball, x: Images, point: Point, state: Any) -> tuple[Images, Any]:
        """One step out, one pull back."""
        clean = upcast_half(x)
        size, multiplier, radius = (
            scalar(value, clean.dtype) for value in (self.size, self.multiplier, ball.radius)
        )
        tau = 2 * size if self.tau is None else scalar(self.tau, clean.dtype)
        delta = upcast_half(point.x) + size * ball.steepest(upcast_half(point.gradient)) - clean
        if self.pull == "elementwise":
            outside = delta - tf.clip_by_value(delta, -radius, radius)
            rate = tf.minimum(tf.math.divide_no_nan(multiplier * size, tau), 1.0)
            delta -= rate * outside
        else:
            delta -= size * multiplier * smoothed_gradient(self.pull, delta, radius, tau)
        return clipped(ball.bounds, clean + delta, x.dtype), state


@serializable
class PenalizedStep:
    """Gradient ascent on the objective less `multiplier * ||x_adv - x||^2 / 2`, without a sign.

    Args:
        size: the length of the first step, times the gradient.
        multiplier: gamma of the paper, >= 0.
        decay: steps shrink as `size / (t + 1) ** decay`.

    Raises:
        ValueError: a number below 0.

    Reference: Sinha et al., "Certifying Some Distributional Robustness with Principled Adversarial
    Training" (2018), Eq. 2b and Algorithm 1.
    """

    size: Any
    multiplier: Any
    decay: float = 0.5

    def __post_init__(self) -> None:
        for name in ("size", "multiplier", "decay"):
            value = getattr(self, name)
            if isinstance(value, numbers.Real) and not 0 <= float(value) < math.inf:
                raise ValueError(
                    f"PenalizedStep: {name} is {value!r}; expected a finite number >= 0."
                )

    def init(self, ball: Ball, x_start: Images) -> tuple[()]:
        """No state."""
        del ball, x_start
        return ()

    def update(self, ball: Ball, x: Images, point: Point, state: Any) -> tuple[Images, Any]:
        """One step, clipped into the bounds; there is no ball."""
        clean, x_adv = upcast_half(x), upcast_half(point.x)
        size, multiplier = (scalar(value, clean.dtype) for value in (self.size, self.multiplier))
        shrunk = size / tf.cast(point.index + 1, clean.dtype) ** self.decay
        moved = x_adv + shrunk * (upcast_half(point.gradient) - multiplier * (x_adv - clean))
        return clipped(ball.bounds, moved, x.dtype), state
