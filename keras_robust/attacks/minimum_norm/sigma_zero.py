"""sigma-zero: a minimum-norm attack in L0, along the gradient of a smooth count of pixels."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import tensorflow as tf

from keras_robust.attacks.crafting.adam import Moments
from keras_robust.attacks.crafting.norm_descent import NormDescent, Present, cosine, margin_of
from keras_robust.core.config import serializable
from keras_robust.core.numerics import broadcast_to_images
from keras_robust.core.types import Ball, Labels, Logits, PerExample
from keras_robust.core.validation import check_integer, check_norm, check_number
from keras_robust.threat_models.l0_projection import as_pixels, counts_channels
from keras_robust.threat_models.masks import pixels_of
from keras_robust.threat_models.norms import linf_norm


class _State(NamedTuple):
    moments: Moments
    threshold: PerExample


@serializable
class SigmaZero(NormDescent):
    """sigma-zero: a minimum-norm L0 attack by Adam on a smooth count of the changed pixels.

    Minimizes `max(-margin, 0) + mean d^2 / (d^2 + sigma)` over the perturbation `d`, with gradients
    scaled to a largest entry of 1. After each step, pixels whose change is below a threshold are
    set back; it rises where the image is misclassified and falls where it is not.

    Args:
        ball: the threat model, in L0. Images without an adversarial example within the radius stay
            unchanged.
        steps: the number of steps, >= 0, one gradient each.
        learning_rate: the first one of Adam, in units of the range of a pixel, > 0; it falls to a
            tenth along a cosine.
        sigma: smoothness of the count, > 0, in squared units of the range of a pixel.
        threshold: the first threshold, in [0, 1], in units of the range of a pixel.
        threshold_rate: by how much it changes, times the learning rate, >= 0.

    Raises:
        TypeError: a ball in another norm.
        ValueError: an argument out of range; when called, targets.

    Example:
        >>> from keras_robust import L0Ball
        >>> attack = sigma_zero(L0Ball(2), steps=100).compiled(lambda x: {"logits": x})
        >>> x_adv = attack(tf.constant([[0.7, 0.3]]), tf.constant([0]))
        >>> int(tf.math.count_nonzero(x_adv != [[0.7, 0.3]]))  # one pixel is enough
        1

    Reference: Cina et al., "sigma-zero: Gradient-based Optimization of L0-norm Adversarial
    Examples" (2025), Algorithm 1, with Adam as in the authors' code.

    Differs: a pixel of several channels counts once, unless the ball counts `per_channel`.
    """

    ball: Ball
    steps: int = 1000
    _: dataclasses.KW_ONLY
    learning_rate: float = 1.0
    sigma: float = 1e-3
    threshold: float = 0.3
    threshold_rate: float = 0.01

    def __post_init__(self) -> None:
        check_norm("sigma-zero", self.ball, (0,))
        check_integer("SigmaZero: steps", self.steps)
        check_number("SigmaZero: learning_rate", self.learning_rate, above=0)
        check_number("SigmaZero: sigma", self.sigma, above=0)
        check_number("SigmaZero: threshold", self.threshold, most=1)
        check_number("SigmaZero: threshold_rate", self.threshold_rate)

    @property
    def name(self) -> str:  # type: ignore[override]
        """What reports call it."""
        return f"sigma-zero-{self.steps}"

    def loss(self, logits: Logits, y: Labels, targets: Labels | None) -> PerExample:
        """Minus `max(-margin, 0)`."""
        return -tf.nn.relu(-margin_of(logits, y, targets))

    def start(self, delta: tf.Tensor) -> _State:
        """The first threshold."""
        zeros = tf.zeros_like(self.ball.distance(delta, delta))
        return _State(Moments.zeros(delta), zeros + self.threshold)

    def move(self, now: Present, state: _State) -> tuple[tf.Tensor, _State]:
        """One step of Algorithm 1."""
        rate = cosine(
            now.index, self.steps, self.learning_rate, self.learning_rate / 10, now.delta.dtype
        )
        down = self._count_gradient(now.delta) - now.gradient
        largest = broadcast_to_images(linf_norm(down), down)
        moments = state.moments.update(tf.math.divide_no_nan(down, largest))
        moved = now.delta - rate * moments.step(now.index)[0]
        moved = tf.clip_by_value(moved, now.low, now.high)
        change = self.threshold_rate * rate
        threshold = state.threshold + tf.where(now.adversarial, change, -change)
        threshold = tf.clip_by_value(threshold, 0, 1)
        size = tf.reduce_max(tf.abs(self._pixels(moved)), axis=2)
        kept = size >= threshold[:, None]
        return self._where(kept, moved), _State(moments, threshold)

    def _count_gradient(self, delta: tf.Tensor) -> tf.Tensor:
        """The gradient of the smooth count over the number of pixels."""
        square = tf.reduce_sum(self._pixels(delta) ** 2, axis=2, keepdims=True)
        slope = 2 * self.sigma / (square + self.sigma) ** 2
        values = tf.reduce_prod(tf.shape(delta)[1:])
        pixels = tf.shape(square)[1] * pixels_of(self.ball, delta) // values
        slope = tf.reshape(slope * self._pixels(delta), tf.shape(delta))
        return slope / tf.cast(pixels, delta.dtype)

    def _pixels(self, delta: tf.Tensor) -> tf.Tensor:
        return as_pixels(delta, counts_channels(self.ball))

    def _where(self, kept: tf.Tensor, delta: tf.Tensor) -> tf.Tensor:
        pixels = self._pixels(delta)
        kept_pixels = tf.where(kept[..., None], pixels, tf.zeros_like(pixels))
        return tf.reshape(kept_pixels, tf.shape(delta))


sigma_zero = SigmaZero
