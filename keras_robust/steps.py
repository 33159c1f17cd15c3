"""Step rules: how a gradient moves a point; pure, the state is passed in and handed back."""

from __future__ import annotations

import math
import numbers
from typing import Any, NamedTuple

import tensorflow as tf

from keras_robust.balls import clipped
from keras_robust.config import configured
from keras_robust.costs import COSTS, smoothed_gradient
from keras_robust.types import Ball, Images, PerExample, scalar, wide


class Point(NamedTuple):
    """Where an ascent stands.

    Attributes:
        index: how many steps have been taken, int32 scalar.
        x: the perturbed images.
        value: the objective at `x`, `[batch]`.
        gradient: its gradient in `x`, the shape of `x`.
    """

    index: tf.Tensor
    x: Images
    value: PerExample
    gradient: tf.Tensor


def _check_size(owner: str, size: Any) -> None:
    # 0 is allowed: it is the step that belongs to a ball of radius 0. NumPy's scalars are numbers.
    if isinstance(size, numbers.Real) and not 0 <= float(size) < math.inf:
        raise ValueError(
            f"{owner}: step size is {size!r}; expected a finite number >= 0 in the units of the "
            "images, such as 2 / 255."
        )


def _moved(ball: Ball, x: Images, x_adv: Images, size: Any, along: tf.Tensor) -> Images:
    """A step of a size along the steepest direction, projected; rounded once, by the projection."""
    return ball.project(wide(x_adv) + scalar(size, along.dtype) * ball.steepest(along), x)


@configured
class FixedStep:
    """Moves by `size` along the ball's steepest direction, then projects.

    Args:
        size: the length of a step, in the units of the images and the norm of the ball.

    Raises:
        ValueError: a negative or infinite size.

    Reference: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks" (2018),
    section 2.1.
    """

    size: Any

    def __post_init__(self) -> None:
        _check_size("FixedStep", self.size)

    def init(self, ball: Ball, x_start: Images) -> tuple[()]:
        """No state."""
        del ball, x_start
        return ()

    def update(self, ball: Ball, x: Images, point: Point, state: Any) -> tuple[Images, Any]:
        """One projected step."""
        return _moved(ball, x, point.x, self.size, wide(point.gradient)), state


@configured
class MomentumStep:
    """Moves along the steepest direction of an accumulated gradient: `v <- decay v + g / |g|_1`.

    Args:
        size: the length of a step, in the units of the images and the norm of the ball.
        decay: the weight of the accumulated gradient, >= 0; 0 is `FixedStep`.

    Raises:
        ValueError: a negative or infinite size, or a negative decay.

    Reference: Dong et al., "Boosting Adversarial Attacks with Momentum" (2018), Eq. 6.
    """

    size: Any
    decay: float = 1.0

    def __post_init__(self) -> None:
        _check_size("MomentumStep", self.size)
        if not 0 <= self.decay < math.inf:
            raise ValueError(f"MomentumStep: decay is {self.decay!r}; expected a number >= 0.")

    def init(self, ball: Ball, x_start: Images) -> Images:
        """The accumulated gradient: zero."""
        del ball
        return tf.zeros_like(wide(x_start))

    def update(self, ball: Ball, x: Images, point: Point, state: Any) -> tuple[Images, Any]:
        """One projected step along the accumulated gradient."""
        axes = list(range(1, x.shape.rank))
        gradient = wide(point.gradient)
        # Divided by its largest entry first: a sum of the huge is infinite, which is no direction.
        largest = tf.reduce_max(tf.abs(gradient), axis=axes, keepdims=True)
        gradient = tf.math.divide_no_nan(gradient, largest)
        length = tf.reduce_sum(tf.abs(gradient), axis=axes, keepdims=True)
        velocity = self.decay * state + tf.math.divide_no_nan(gradient, length)
        # A decay above 1 lets it grow without end; its direction is all that is read.
        velocity = tf.clip_by_value(velocity, velocity.dtype.min, velocity.dtype.max)
        return _moved(ball, x, point.x, self.size, velocity), velocity


@configured
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
            gradient of the smoothed cost of that kind (`keras_robust.costs`).

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
        _check_size("SoftBallStep", self.size)
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
        clean = wide(x)
        size, multiplier, radius = (
            scalar(value, clean.dtype) for value in (self.size, self.multiplier, ball.radius)
        )
        tau = 2 * size if self.tau is None else scalar(self.tau, clean.dtype)
        delta = wide(point.x) + size * ball.steepest(wide(point.gradient)) - clean
        if self.pull == "elementwise":
            outside = delta - tf.clip_by_value(delta, -radius, radius)
            rate = tf.minimum(tf.math.divide_no_nan(multiplier * size, tau), 1.0)
            delta -= rate * outside
        else:
            delta -= size * multiplier * smoothed_gradient(self.pull, delta, radius, tau)
        return clipped(ball.bounds, clean + delta, x.dtype), state


@configured
class PenalisedStep:
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
                    f"PenalisedStep: {name} is {value!r}; expected a finite number >= 0."
                )

    def init(self, ball: Ball, x_start: Images) -> tuple[()]:
        """No state."""
        del ball, x_start
        return ()

    def update(self, ball: Ball, x: Images, point: Point, state: Any) -> tuple[Images, Any]:
        """One step, clipped into the bounds; there is no ball."""
        clean, x_adv = wide(x), wide(point.x)
        size, multiplier = (scalar(value, clean.dtype) for value in (self.size, self.multiplier))
        shrunk = size / tf.cast(point.index + 1, clean.dtype) ** self.decay
        moved = x_adv + shrunk * (wide(point.gradient) - multiplier * (x_adv - clean))
        return clipped(ball.bounds, moved, x.dtype), state
