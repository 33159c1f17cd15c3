"""Where an ascent begins: at the image, or at a random point near it."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from keras_robust.core.config import serializable
from keras_robust.core.numerics import scalar, upcast_half
from keras_robust.core.types import Ball, Images


@serializable
class AtInput:
    """Starts at the image itself: FGSM and BIM."""

    def __call__(self, ball: Ball, x: Images, seed: tf.Tensor) -> Images:
        """Returns `x`."""
        del ball, seed
        return x


@serializable
class Uniform:
    """Starts at a point drawn uniformly from the ball: PGD."""

    def __call__(self, ball: Ball, x: Images, seed: tf.Tensor) -> Images:
        """Returns a point of the ball, inside the bounds."""
        return ball.sample(x, seed)


@serializable
class Gaussian:
    """Starts at `x + scale * N(0, I)`, projected onto the ball: TRADES and MART.

    Args:
        scale: the standard deviation, in the units of the images.

    Raises:
        ValueError: a scale that is not positive and finite.
    """

    scale: float = 0.001

    def __post_init__(self) -> None:
        if not 0 < self.scale < math.inf:
            raise ValueError(f"Gaussian: scale is {self.scale!r}; expected a finite number > 0.")

    def __call__(self, ball: Ball, x: Images, seed: tf.Tensor) -> Images:
        """Returns a point near `x`."""
        centre = upcast_half(x)
        noise = tf.random.stateless_normal(tf.shape(x), seed, dtype=centre.dtype)
        return ball.project(centre + scalar(self.scale, centre.dtype) * noise, x)


@serializable
class RandomStep:
    """Starts one step of `share * radius` away in a random steepest direction: R+FGSM.

    Args:
        share: the part of the radius spent on the random step, in (0, 1].

    Raises:
        ValueError: a share outside (0, 1].

    Reference: Tramer et al., "Ensemble Adversarial Training" (2018), Eq. 7.
    """

    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"RandomStep: share is {self.share!r}; expected a share in (0, 1].")

    def __call__(self, ball: Ball, x: Images, seed: tf.Tensor) -> Images:
        """Returns `x` moved along the steepest direction of Gaussian noise."""
        centre = upcast_half(x)
        noise = tf.random.stateless_normal(tf.shape(x), seed, dtype=centre.dtype)
        length = self.share * scalar(ball.radius, centre.dtype)
        return ball.project(centre + length * ball.steepest(noise), x)


@serializable
class OnSphere:
    """Starts at a random point on the rim of the ball, as the ball draws one: APGD.

    Reference: Croce and Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of
    Diverse Parameter-free Attacks" (2020), the authors' code.
    """

    def __call__(self, ball: Any, x: Images, seed: tf.Tensor) -> Images:
        """Returns a point of the ball, inside the bounds."""
        return ball.sample_sphere(x, seed)
