"""Gradients that transfer to other models: input diversity, translations, scales, variance tuning.

All of them change the gradient that an attack follows, not its steps, so that they combine with
each other and with momentum. `Transferability` holds their settings, in one place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_robust.attacks.crafting.gradient_ascent import noinline, value_and_gradient
from keras_robust.core import random
from keras_robust.core.config import serializable
from keras_robust.core.numerics import broadcast_to_images, scalar, upcast_half
from keras_robust.core.types import Ball, Forward, Images, Labels, Objective, PerExample
from keras_robust.core.validation import check_integer, check_number, lookup

__all__ = ["Transferability", "get"]

# The settings of the papers.
_PUBLISHED: dict[str, dict[str, Any]] = {
    "di": {"diversity": 0.5},
    "ti": {"kernel": 7},
    "si": {"scales": 5},
    "vt": {"samples": 20},
}


def __dir__() -> list[str]:
    return __all__


@serializable
class Transferability:
    """Settings of a gradient that is less specific to the model on which it is taken.

    Args:
        diversity: DI: the probability with which each image of each step is shrunk and padded at
            random, in [0, 1]; 0.5 in the paper.
        smallest: of DI, the smallest size of a shrunk image, as a fraction of its size, in (0, 1].
        kernel: TI: the gradient is smoothed by a Gaussian kernel of this odd size; 1 is none. The
            standard deviation is a sixth of the size less 1: 15 and 7 in the papers.
        scales: SI: the mean gradient over copies of the image whose values are divided by 1, 2, 4
            and so on; 1 is none, 5 in the paper.
        samples: VT (VMI, VNI): to the gradient is added that of random points around the previous
            point, less its own; 0 is none, 20 in the paper.
        neighborhood: of VT, how far the points are, in radii, > 0.
        eot_iter: how many calls of the model each gradient is averaged over, >= 1: expectation over
            transformation, for models with random predictions, and over draws of DI.

    Raises:
        ValueError: a setting out of range.

    Example:
        >>> get("di+si") == Transferability(diversity=0.5, scales=5)
        True

    Reference: DI: Xie et al., "Improving Transferability of Adversarial Examples with Input
    Diversity" (2019); TI: Dong et al., "Evading Defenses to Transferable Adversarial Examples by
    Translation-Invariant Attacks" (2019); SI: Lin et al., "Nesterov Accelerated Gradient and Scale
    Invariance for Adversarial Attacks" (2020); VT: Wang and He, "Enhancing the Transferability of
    Adversarial Attacks through Variance Tuning" (2021); EOT: Athalye et al., "Synthesizing Robust
    Adversarial Examples" (2018).

    Differs: DI shrinks instead of enlarging, so that models of a fixed size take its images, each
    with a size and a place of its own, by bilinear interpolation. The points of VT are drawn from
    the threat model, and clipped into the bounds. What is scaled or padded is scaled to or padded
    with the lower bound.
    """

    diversity: float = 0.0
    smallest: float = 0.9
    kernel: int = 1
    scales: int = 1
    samples: int = 0
    neighborhood: float = 1.5
    eot_iter: int = 1

    def __post_init__(self) -> None:
        check_number("Transferability: diversity", self.diversity, most=1)
        check_number("Transferability: smallest", self.smallest, above=0, most=1)
        for name in ("kernel", "scales", "eot_iter"):
            check_integer(f"Transferability: {name}", getattr(self, name), 1)
        check_integer("Transferability: samples", self.samples)
        check_number("Transferability: neighborhood", self.neighborhood, above=0)
        if self.kernel % 2 == 0:
            raise ValueError(
                f"Transferability: kernel is {self.kernel}; expected an odd size, such as 7."
            )

    @property
    def is_random(self) -> bool:
        """Whether the gradient depends on the seed."""
        return self.diversity > 0 or self.samples > 0

    def oracle(
        self, ball: Ball, objective: Objective, forward: Forward, x: Images, y: Labels,
        seed: tf.Tensor, targets: Labels | None,
    ) -> TransferableGradient:  # fmt: skip
        """The gradient of an objective with these settings, for the crafting loop."""
        return TransferableGradient(self, ball, objective, forward, x, y, seed, targets)


def get(value: str | Transferability | None) -> Transferability | None:
    """Returns settings by name: `"di"`, `"ti"`, `"si"`, `"vt"`, or several joined by `+`.

    Raises:
        ValueError: an unknown name; the message lists the valid ones.
    """
    if not isinstance(value, str):
        return value
    settings: dict[str, Any] = {}
    for name in value.split("+"):
        settings |= _PUBLISHED[lookup("transferability", name, _PUBLISHED)]
    return Transferability(**settings)


class TransferableGradient:
    """The oracle of `Transferability`; its state is the number of the step and the variance."""

    def __init__(
        self, settings: Transferability, ball: Ball, objective: Objective, forward: Forward,
        x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None,
    ):  # fmt: skip
        self._settings, self._ball, self._seed = settings, ball, seed
        self._draw: tf.Tensor | None = None  # none at clean images, before the first gradient

        def copies(values: Any) -> Any:
            return tf.concat([values] * settings.scales, axis=0)

        y, targets = (None if a is None else copies(a) for a in (y, targets))
        self._value = objective(lambda x: forward(self._diverse(x)), copies(x), y, targets)
        self._gradient = noinline(self._once)

    def init(self, x_start: Images) -> tuple[tf.Tensor, tf.Tensor]:
        """Before the first step the variance is 0."""
        return tf.constant(0), tf.zeros_like(upcast_half(x_start))

    def __call__(self, x_adv: Images, state: Any) -> tuple[PerExample, tf.Tensor, Any]:
        """The value and the tuned gradient."""
        index, variance = state
        seed = random.fold_in(self._seed, index)
        value, gradient = self._mean(lambda k: x_adv, self._settings.eot_iter, seed, x_adv)
        tuned = gradient + variance
        if self._settings.samples:
            ball = self._ball.replace(
                radius=self._settings.neighborhood * scalar(self._ball.radius, gradient.dtype)
            )
            draws, seed = tf.unstack(random.split(seed, 2))

            def near(k: tf.Tensor) -> Images:
                own = random.fold_in(draws, k)
                return ball.sample(x_adv, own)

            _, around = self._mean(near, self._settings.samples, seed, x_adv)
            variance = tf.ensure_shape(around - gradient, x_adv.shape)
        return value, tf.cast(self._smoothed(tuned), x_adv.dtype), (index + 1, variance)

    def _mean(
        self, point: Callable[[tf.Tensor], Images], count: int, seed: tf.Tensor, x_adv: Images
    ) -> tuple[PerExample, tf.Tensor]:
        """The mean value and gradient over `count` points."""

        def body(k: tf.Tensor, value: PerExample, gradient: tf.Tensor) -> tuple:
            own = random.fold_in(seed, k)
            here, there = self._gradient(point(k), own)
            return k + 1, value + tf.cast(here, value.dtype), gradient + upcast_half(there)

        zeros = tf.zeros_like(upcast_half(x_adv))
        start = (tf.constant(0), tf.zeros(tf.shape(x_adv)[:1], zeros.dtype), zeros)
        _, value, gradient = tf.while_loop(
            lambda k, *_: k < count, body, start, parallel_iterations=1
        )
        return value / count, gradient / count

    def _once(self, x_adv: Images, seed: tf.Tensor) -> tuple[PerExample, tf.Tensor]:
        self._draw = seed

        def value(x_adv: Images) -> PerExample:
            low = scalar(self._ball.bounds[0], x_adv.dtype)
            scaled = [low + (x_adv - low) / 2**k for k in range(self._settings.scales)]
            values = self._value(tf.concat(scaled, axis=0))
            return tf.reduce_mean(tf.reshape(values, [self._settings.scales, -1]), axis=0)

        return value_and_gradient(value, x_adv)

    def _diverse(self, x: Images) -> Images:
        if self._draw is None or self._settings.diversity == 0 or x.shape.rank != 4:
            return x
        return shrunk(x, self._draw, self._settings, self._ball.bounds[0])

    def _smoothed(self, gradient: tf.Tensor) -> tf.Tensor:
        size = self._settings.kernel
        if size == 1 or gradient.shape.rank != 4:
            return gradient
        offsets = np.linspace(-3.0, 3.0, size)
        line = np.exp(-(offsets**2) / 2)
        channels = gradient.shape[-1]
        for shape in ((size, 1), (1, size)):
            kernel = tf.constant((line / line.sum()).reshape(*shape, 1, 1), gradient.dtype)
            gradient = tf.nn.depthwise_conv2d(
                gradient, tf.tile(kernel, [1, 1, channels, 1]), [1, 1, 1, 1], "SAME"
            )
        return gradient


def shrunk(x: Images, seed: tf.Tensor, settings: Transferability, low: float) -> Images:
    """Shrinks images at random and pads them, each with the probability `settings.diversity`.

    Two matrix products, one for rows and one for columns, whose entries are bilinear weights.
    """
    count, dtype = tf.shape(x)[0], upcast_half(x).dtype
    chosen, size, top, left = tf.unstack(random.uniform([4, count], seed, dtype=dtype))
    scale = settings.smallest + (1 - settings.smallest) * size
    value = upcast_half(x) - scalar(low, dtype)
    for axis, place in ((1, top), (2, left)):
        extent = x.shape[axis]
        length = tf.round(scale * extent)
        start = tf.round(place * (extent - length))
        row = tf.range(extent, dtype=dtype)[None] - start[:, None]
        # Pixel centers: (row + 0.5) extent / length - 0.5, clamped to the image.
        source = (row + 0.5) * (extent / length)[:, None] - 0.5
        source = tf.clip_by_value(source, 0, extent - 1)
        weights = tf.nn.relu(
            1 - tf.abs(source[:, :, None] - tf.range(extent, dtype=dtype)[None, None])
        )
        inside = (row >= 0) & (row < length[:, None])
        weights = tf.where(inside[:, :, None], weights, tf.zeros_like(weights))
        letters = "bij,bjwc->biwc" if axis == 1 else "bij,bhjc->bhic"
        value = tf.einsum(letters, weights, value)
    moved = tf.cast(value + scalar(low, dtype), x.dtype)
    return tf.where(broadcast_to_images(chosen < settings.diversity, x), moved, x)
