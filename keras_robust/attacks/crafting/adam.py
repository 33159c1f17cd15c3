"""Adam's running means, for attacks that move by them."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


class Moments(NamedTuple):
    """Running means of gradients and of their squares.

    Reference: Kingma and Ba, "Adam: A Method for Stochastic Optimization" (2015), Algorithm 1.
    """

    mean: tf.Tensor
    square: tf.Tensor

    @classmethod
    def zeros(cls, like: tf.Tensor) -> Moments:
        """The moments before the first step."""
        return cls(tf.zeros_like(like), tf.zeros_like(like))

    def update(self, gradient: tf.Tensor) -> Moments:
        """The moments with one more gradient."""
        return Moments(
            BETA_1 * self.mean + (1 - BETA_1) * gradient,
            BETA_2 * self.square + (1 - BETA_2) * gradient**2,
        )

    def step(self, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The step of rate 1 after `index + 1` gradients, and the scale by which it was divided."""
        time = tf.cast(index + 1, self.mean.dtype)
        scale = tf.sqrt(self.square / (1 - BETA_2**time)) + EPSILON
        return self.mean / (1 - BETA_1**time) / scale, scale
