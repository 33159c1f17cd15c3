"""Step rules: how a gradient moves a point; pure, the state is passed in and handed back."""

from __future__ import annotations

import math
import numbers
from typing import Any, NamedTuple

import tensorflow as tf

from keras_robust.core.config import serializable
from keras_robust.core.numerics import scalar, upcast_half
from keras_robust.core.types import Ball, Images, PerExample
from keras_robust.core.validation import check_ball


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


def check_size(owner: str, size: Any) -> None:
    """Refuses a number that is no length of a step; a tensor is taken as it is."""
    # 0 is allowed: it is the step that belongs to a ball of radius 0. NumPy's scalars are numbers.
    if isinstance(size, numbers.Real) and not 0 <= float(size) < math.inf:
        raise ValueError(
            f"{owner}: step size is {size!r}; expected a finite number >= 0 in the units of the "
            "images, such as 2 / 255."
        )


def _moved(ball: Ball, x: Images, x_adv: Images, size: Any, along: tf.Tensor) -> Images:
    """A step of a size along the steepest direction, projected; rounded once, by the projection."""
    return ball.project(upcast_half(x_adv) + scalar(size, along.dtype) * ball.steepest(along), x)


def default_step_size(ball: Ball, count: int, step_size: Any) -> Any:
    """The length of each of so many steps, by default `2.5 radius / count`; refuses no length."""
    radius = check_ball(ball)
    if step_size is None:
        # Madry et al.: 2.5 radii in all, so that the far side of the ball can be reached.
        return 2.5 * radius / max(count, 1)
    if isinstance(step_size, numbers.Real) and not float(step_size) > 0:
        raise ValueError(f"step_size is {step_size!r}; expected a number > 0, such as 2 / 255.")
    return step_size


@serializable
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
        check_size("FixedStep", self.size)

    def init(self, ball: Ball, x_start: Images) -> tuple[()]:
        """No state."""
        del ball, x_start
        return ()

    def update(self, ball: Ball, x: Images, point: Point, state: Any) -> tuple[Images, Any]:
        """One projected step."""
        return _moved(ball, x, point.x, self.size, upcast_half(point.gradient)), state


@serializable
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
        check_size("MomentumStep", self.size)
        if not 0 <= self.decay < math.inf:
            raise ValueError(f"MomentumStep: decay is {self.decay!r}; expected a number >= 0.")

    def init(self, ball: Ball, x_start: Images) -> Images:
        """The accumulated gradient: zero."""
        del ball
        return tf.zeros_like(upcast_half(x_start))

    def update(self, ball: Ball, x: Images, point: Point, state: Any) -> tuple[Images, Any]:
        """One projected step along the accumulated gradient."""
        axes = list(range(1, x.shape.rank))
        gradient = upcast_half(point.gradient)
        # Divided by its largest entry first: a sum of the huge is infinite, which is no direction.
        largest = tf.reduce_max(tf.abs(gradient), axis=axes, keepdims=True)
        gradient = tf.math.divide_no_nan(gradient, largest)
        length = tf.reduce_sum(tf.abs(gradient), axis=axes, keepdims=True)
        velocity = self.decay * state + tf.math.divide_no_nan(gradient, length)
        # A decay above 1 lets it grow without end; its direction is all that is read.
        velocity = tf.clip_by_value(velocity, velocity.dtype.min, velocity.dtype.max)
        return _moved(ball, x, point.x, self.size, velocity), velocity
