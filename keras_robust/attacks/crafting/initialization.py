"""Where a gradient-based attack starts: at the image, or at a random point near it.

Settings out of range raise ValueError.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from keras_robust.core import random
from keras_robust.core.config import OMIT_NONE, serializable
from keras_robust.core.numerics import pixel_range, scalar, upcast_half
from keras_robust.core.types import Ball, Images
from keras_robust.core.validation import check_number

__all__ = ["AtInput", "Gaussian", "OnSphere", "RandomStep", "Uniform"]


def __dir__() -> list[str]:
    return __all__


@serializable
class AtInput:
    """Starts at the image itself: FGSM and BIM."""

    def __call__(self, ball: Ball, x: Images, seed: tf.Tensor) -> Images:
        """Returns `x`."""
        del ball, seed
        return x


@serializable
class Uniform:
    """Starts at a point drawn uniformly from the ball: PGD.

    Args:
        scale: draws from the ball of `scale` times the radius, >= 0: N-FGSM; None for the ball.

    Example:
        >>> from keras_robust import LinfBall
        >>> x = tf.fill([1, 999], 0.5)
        >>> noise = Uniform(scale=2.0)(LinfBall(0.1), x, tf.constant([0, 0])) - x
        >>> 0.19 < float(tf.reduce_max(noise)) <= 0.2
        True

    Reference: de Jorge et al., "Make Some Noise" (2022), Algorithm 1.
    """

    scale: float | None = dataclasses.field(default=None, metadata=OMIT_NONE)

    def __post_init__(self) -> None:
        if self.scale is not None:
            check_number("Uniform: scale", self.scale, hint=", in radii of the ball")

    def __call__(self, ball: Ball, x: Images, seed: tf.Tensor) -> Images:
        """Returns a random point, inside the bounds."""
        if self.scale is not None:
            # A tensor, as the radius of noise may be larger than the range of a pixel.
            ball = ball.replace(radius=self.scale * scalar(ball.radius, upcast_half(x).dtype))
        return ball.sample(x, seed)


@serializable
class Gaussian:
    """Starts at `x` plus Gaussian noise, projected onto the ball: TRADES and MART.

    Args:
        scale: the standard deviation, as a fraction of the range of a pixel, > 0.
    """

    scale: float = 0.001

    def __post_init__(self) -> None:
        check_number("Gaussian: scale", self.scale, above=0)

    def __call__(self, ball: Ball, x: Images, seed: tf.Tensor) -> Images:
        """Returns a point near `x`."""
        center = upcast_half(x)
        noise = random.normal(tf.shape(x), seed, dtype=center.dtype)
        scale = scalar(self.scale * pixel_range(ball.bounds), center.dtype)
        return ball.project(center + scale * noise, x)


@serializable
class RandomStep:
    """Starts one step of `fraction * radius` away in a random steepest direction: R+FGSM.

    Args:
        fraction: the part of the radius for the random step, in (0, 1].

    Reference: Tramer et al., "Ensemble Adversarial Training" (2018), Eq. 7.
    """

    fraction: float = 0.5

    def __post_init__(self) -> None:
        check_number("RandomStep: fraction", self.fraction, most=1, above=0)

    def __call__(self, ball: Ball, x: Images, seed: tf.Tensor) -> Images:
        """Returns `x` moved along the steepest direction of Gaussian noise."""
        center = upcast_half(x)
        noise = random.normal(tf.shape(x), seed, dtype=center.dtype)
        length = self.fraction * scalar(ball.radius, center.dtype)
        return ball.project(center + length * ball.steepest(noise), x)


@serializable
class OnSphere:
    """Starts at a random point of the sphere of the ball's radius: APGD.

    Reference: Croce and Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of
    Diverse Parameter-free Attacks" (2020), the authors' code.
    """

    def __call__(self, ball: Ball, x: Images, seed: tf.Tensor) -> Images:
        """Returns a point of the ball, inside the bounds."""
        return ball.sample_sphere(x, seed)
