"""Step rules: how a gradient moves a point. Pure: the state is passed in and returned.

`FixedStep` and `MomentumStep` project onto the ball. `SoftBallStep` and `PenalizedStep` penalize
the distance instead, and `UnprojectedStep` does not limit it: their results are inside the bounds
and may be outside the ball. Settings out of range raise ValueError. The rules of APGD are in
`adaptive_step_rules`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import tensorflow as tf

from keras_robust.core.config import OMIT_NONE, serializable
from keras_robust.core.numerics import pixel_range, scalar, upcast_half
from keras_robust.core.types import Ball, Images, PerExample, Scalar
from keras_robust.core.validation import check_ball, check_choice, check_number, is_number
from keras_robust.threat_models.clipping import allowed
from keras_robust.threat_models.masks import in_fractions, mask_of, pixels_of
from keras_robust.threat_models.transport_cost import COSTS, PIXELWISE, smoothed_gradient

__all__ = [
    "FixedStep",
    "MeanGradientStep",
    "MomentumStep",
    "PenalizedStep",
    "Point",
    "SoftBallStep",
    "UnprojectedStep",
]

_PENALTIES = ("elementwise", *COSTS, PIXELWISE)


def __dir__() -> list[str]:
    return __all__


class Point(NamedTuple):
    """The present point of a gradient ascent.

    Attributes:
        index: the number of steps taken, int32 scalar.
        x: the perturbed images.
        value: the objective at `x`, `[batch]`.
        gradient: its gradient in `x`, of the shape of `x`.
    """

    index: tf.Tensor
    x: Images
    value: PerExample
    gradient: tf.Tensor


def check_step_size(owner: str, size: Scalar) -> None:
    """Raises unless `size` is a finite number >= 0, or a tensor.

    0 is the step of a ball of radius 0.
    """
    if is_number(size):
        check_number(f"{owner}: step size", size, hint=" in the units of the images, e.g. 2 / 255")


def _projected_step(ball: Ball, x: Images, x_adv: Images, size: Scalar, along: tf.Tensor) -> Images:
    """A step along the steepest direction, projected; rounded once, by the projection."""
    return ball.project(upcast_half(x_adv) + scalar(size, along.dtype) * ball.steepest(along), x)


def default_step_size(ball: Ball, steps: int, step_size: Scalar | None) -> Scalar:
    """`step_size`, or `2.5 radius / steps` if it is None.

    Raises:
        TypeError: `ball` is not a threat model.
        ValueError: a step size that is not a finite number > 0.
    """
    radius = check_ball(ball)
    if step_size is None:
        # Madry et al.: 2.5 radii in all, enough to cross the ball.
        return 2.5 * radius / max(steps, 1)
    if is_number(step_size):
        check_number("step_size", step_size, above=0, hint=", e.g. 2 / 255")
    return step_size


@serializable
class FixedStep:
    """Moves by `size` along the ball's steepest direction, then projects.

    Args:
        size: the length of a step, in the units of the images and the norm of the ball.

    Reference: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks" (2018),
    section 2.1.
    """

    size: Scalar

    def __post_init__(self) -> None:
        check_step_size("FixedStep", self.size)

    def init(self, ball: Ball, x_start: Images) -> Any:
        """An empty state."""
        del ball, x_start
        return ()

    def update(self, ball: Ball, x: Images, point: Point, state: Any) -> tuple[Images, Any]:
        """One projected step."""
        gradient = upcast_half(point.gradient)
        return _projected_step(ball, x, point.x, self.size, gradient), state


@serializable
class UnprojectedStep:
    """Moves by `size` along the ball's steepest direction and clips into the bounds only.

    For training: its results may be outside the ball.

    Args:
        size: the length of a step, in the units of the images and the norm of the ball.

    Reference: de Jorge et al., "Make Some Noise: Reliable and Efficient Single-Step Adversarial
    Training" (2022), Algorithm 1.
    """

    size: Scalar

    def __post_init__(self) -> None:
        check_step_size("UnprojectedStep", self.size)

    def init(self, ball: Ball, x_start: Images) -> Any:
        """An empty state."""
        del ball, x_start
        return ()

    def update(self, ball: Ball, x: Images, point: Point, state: Any) -> tuple[Images, Any]:
        """One step, clipped into the bounds; the ball's radius is not used."""
        gradient = upcast_half(point.gradient)
        step = scalar(self.size, gradient.dtype) * ball.steepest(gradient)
        return allowed(ball, upcast_half(point.x) + step, x), state


@serializable
class MeanGradientStep:
    """Moves along the gradient over the mean of its absolute entries, then projects.

    Unlike the steepest direction of a sparse ball, it moves all pixels; the projection chooses.

    Args:
        size: how far a value with the mean gradient moves, as a fraction of the range of a pixel.

    Reference: Croce and Hein, "Sparse and Imperceivable Adversarial Attacks" (2019), section 4.1.
    """

    size: Scalar

    def __post_init__(self) -> None:
        check_step_size("MeanGradientStep", self.size)

    def init(self, ball: Ball, x_start: Images) -> Any:
        """An empty state."""
        del ball, x_start
        return ()

    def update(self, ball: Ball, x: Images, point: Point, state: Any) -> tuple[Images, Any]:
        """One projected step."""
        gradient = mean_normalized(ball, upcast_half(point.gradient))
        largest = gradient.dtype.max
        # Huge steps stay finite: an infinite size times a gradient of 0 would not be a number.
        size = tf.minimum(scalar(self.size, gradient.dtype) * pixel_range(ball.bounds), largest)
        step = tf.clip_by_value(size * gradient, -largest, largest)
        return ball.project(upcast_half(point.x) + step, x), state


def mean_normalized(ball: Ball, gradient: tf.Tensor) -> tf.Tensor:
    """A gradient, at least float32, over the mean of its absolute entries that are not masked."""
    axes = list(range(1, gradient.shape.rank))
    # Divided by its largest entry first, as the sum of huge entries would be infinite.
    largest = tf.reduce_max(tf.abs(gradient), axis=axes, keepdims=True)
    gradient = tf.math.divide_no_nan(gradient, largest)
    total = tf.reduce_sum(tf.abs(gradient), axis=axes, keepdims=True)
    mean = total / tf.cast(pixels_of(ball, gradient), gradient.dtype)
    return tf.math.divide_no_nan(gradient, mean)


@serializable
class MomentumStep:
    """Moves along the steepest direction of an accumulated gradient: `v <- decay v + g / |g|_1`.

    Args:
        size: the length of a step, in the units of the images and the norm of the ball.
        decay: the weight of the accumulated gradient, >= 0; 0 gives `FixedStep`.
        nesterov: take the gradient where the accumulated one leads, at `x + size decay v`, with `v`
            in units of the mean of its absolute entries.

    Reference: Dong et al., "Boosting Adversarial Attacks with Momentum" (2018), Eq. 6; Lin et al.,
    "Nesterov Accelerated Gradient and Scale Invariance for Adversarial Attacks" (2020), Eq. 6.
    """

    size: Scalar
    decay: float = 1.0
    nesterov: bool | None = dataclasses.field(default=None, metadata=OMIT_NONE)

    def __post_init__(self) -> None:
        check_step_size("MomentumStep", self.size)
        check_number("MomentumStep: decay", self.decay)

    def init(self, ball: Ball, x_start: Images) -> Any:
        """The accumulated gradient: zero."""
        del ball
        return tf.zeros_like(upcast_half(x_start))

    def update(self, ball: Ball, x: Images, point: Point, state: Any) -> tuple[Images, Any]:
        """One projected step along the accumulated gradient."""
        axes = list(range(1, x.shape.rank))
        gradient = upcast_half(point.gradient)
        # Divided by its largest entry first, as the sum of huge entries would be infinite.
        largest = tf.reduce_max(tf.abs(gradient), axis=axes, keepdims=True)
        gradient = tf.math.divide_no_nan(gradient, largest)
        length = tf.reduce_sum(tf.abs(gradient), axis=axes, keepdims=True)
        velocity = self.decay * state + tf.math.divide_no_nan(gradient, length)
        # With a decay above 1 it grows exponentially; only its direction is used.
        velocity = tf.clip_by_value(velocity, velocity.dtype.min, velocity.dtype.max)
        return _projected_step(ball, x, point.x, self.size, velocity), velocity

    def lookahead(self, ball: Ball, x: Images, x_adv: Images, state: Any) -> Images:
        """Where the gradient of the next step is taken."""
        if not self.nesterov:
            return x_adv
        pixels = tf.cast(pixels_of(ball, state), state.dtype)
        ahead = scalar(self.size, state.dtype) * self.decay * pixels * state
        return allowed(ball, upcast_half(x_adv) + ahead, x)


@serializable
class SoftBallStep:
    """Moves along the steepest direction or the gradient, then back toward the ball, not onto it.

    A point inside the ball is moved back little or not at all; outside, the multiplier and the
    temperature determine how far. With `tau = size` and a multiplier of 1, the elementwise form is
    the projection onto a Linf ball; a larger multiplier would overshoot, and acts like 1 there.

    Args:
        size: the length of a step, in the units of the images.
        multiplier: the dual variable lambda, a number >= 0 or a scalar tensor.
        tau: the temperature, > 0; default `2 * size`.
        penalty: `"elementwise"` moves each pixel outside the radius back, by `multiplier * size /
            tau` of its excess. `"l1"`, `"l2"` and `"linf"` follow the gradient of the smoothed cost
            of that norm (`keras_robust.threat_models.transport_cost`). `"pixelwise"` is the paper's
            L2 cost with the radius of each pixel: every pixel moves back by `multiplier * size` of
            its change, divided by `tau` where it is outside. With a mask, changes count in units of
            its fractions, and the mean of `"l1"` is that of the pixels that may change.
        push: `"steepest"` moves along the steepest direction, the sign of the gradient in a Linf
            ball; `"gradient"` along the gradient itself, times the pixel range, so that images
            with a small gradient hardly move.

    Reference: Bui et al., "A Unified Wasserstein Distributional Robustness Framework for
    Adversarial Training" (2022), Algorithm 1; the pixelwise cost and the push by the gradient,
    Appendix G.

    Differs: clips into the bounds after every step, not after the last one only, so that gradients
    are taken at valid images.
    """

    size: Scalar
    multiplier: Scalar = 1.0
    tau: Scalar | None = None
    penalty: str = "elementwise"
    push: str = "steepest"

    def __post_init__(self) -> None:
        check_step_size("SoftBallStep", self.size)
        if is_number(self.multiplier):
            check_number("SoftBallStep: multiplier", self.multiplier)
        if is_number(self.tau):
            check_number("SoftBallStep: tau", self.tau, above=0)
        check_choice("SoftBallStep: penalty", self.penalty, _PENALTIES)
        check_choice("SoftBallStep: push", self.push, ("steepest", "gradient"))

    def init(self, ball: Ball, x_start: Images) -> Any:
        """An empty state."""
        del ball, x_start
        return ()

    def update(self, ball: Ball, x: Images, point: Point, state: Any) -> tuple[Images, Any]:
        """One step along the gradient and one step back, clipped into the bounds."""
        clean = upcast_half(x)
        size, gradient = scalar(self.size, clean.dtype), upcast_half(point.gradient)
        if self.push == "steepest":
            direction = ball.steepest(gradient)
        else:
            direction = pixel_range(ball.bounds) * gradient
        delta = upcast_half(point.x) + size * direction - clean
        return allowed(ball, clean + delta - self.pull(ball, x, delta), x), state

    def pull(self, ball: Ball, x: Images, delta: tf.Tensor) -> tf.Tensor:
        """The move back from a perturbation, to be subtracted from it.

        Args:
            ball: the threat model.
            x: clean images.
            delta: the perturbation, at least float32.
        """
        size, multiplier, radius = (
            scalar(value, delta.dtype) for value in (self.size, self.multiplier, ball.radius)
        )
        tau = 2 * size if self.tau is None else scalar(self.tau, delta.dtype)
        mask = mask_of(ball)
        fractions = 1 if mask is None else mask.fractions(delta.dtype)
        if self.penalty == "elementwise":
            limit = radius * fractions
            outside = delta - tf.clip_by_value(delta, -limit, limit)
            return tf.minimum(tf.math.divide_no_nan(multiplier * size, tau), 1.0) * outside
        pixels = None if mask is None else pixels_of(ball, x)
        units = in_fractions(ball, delta)
        back = smoothed_gradient(self.penalty, units, radius, tau, pixels)
        return size * multiplier * fractions * back


@serializable
class PenalizedStep:
    """Gradient ascent on the objective minus `multiplier * ||x_adv - x||^2 / 2`, without a sign.

    Args:
        size: the length of the first step, times the gradient.
        multiplier: the penalty, >= 0; twice the paper's gamma, which has no half.
        decay: the steps shrink as `size / (t + 1) ** decay`.

    Reference: Sinha et al., "Certifying Some Distributional Robustness with Principled Adversarial
    Training" (2018), Eq. 2b and Algorithm 1.
    """

    size: Scalar
    multiplier: Scalar
    decay: float = 0.5

    def __post_init__(self) -> None:
        check_step_size("PenalizedStep", self.size)
        if is_number(self.multiplier):
            check_number("PenalizedStep: multiplier", self.multiplier)
        check_number("PenalizedStep: decay", self.decay)

    def init(self, ball: Ball, x_start: Images) -> Any:
        """An empty state."""
        del ball, x_start
        return ()

    def update(self, ball: Ball, x: Images, point: Point, state: Any) -> tuple[Images, Any]:
        """One step, clipped into the bounds; the ball's radius is not used."""
        clean, x_adv = upcast_half(x), upcast_half(point.x)
        size, multiplier = (scalar(value, clean.dtype) for value in (self.size, self.multiplier))
        shrunk = size / tf.cast(point.index + 1, clean.dtype) ** self.decay
        moved = x_adv + shrunk * (upcast_half(point.gradient) - multiplier * (x_adv - clean))
        return allowed(ball, moved, x), state
