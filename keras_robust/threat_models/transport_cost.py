"""Transport costs of distributional robustness, per image, of a perturbation `x_adv - x`."""

from __future__ import annotations

import tensorflow as tf

from keras_robust.core.numerics import broadcast_to_images, scalar
from keras_robust.core.types import PerExample, Radius

COSTS = ("l1", "l2", "linf")
PIXELWISE = "pixelwise"  # half the square of each pixel, smoothed pixel by pixel


def cost(kind: str, delta: tf.Tensor, pixels: int | tf.Tensor | None = None) -> PerExample:
    """The transport cost of a perturbation.

    Args:
        kind: `"l1"` is the mean change of a pixel, `"l2"` half the squared Euclidean length,
            `"linf"` the largest change of a pixel.
        delta: `[batch, ...]`.
        pixels: the number of pixels of the mean, if not all may change.

    Example:
        >>> delta = tf.constant([[0.5, -1.0]])
        >>> [cost(kind, delta).numpy().item() for kind in COSTS]
        [0.75, 0.625, 1.0]
    """
    axes = list(range(1, delta.shape.rank))
    if kind == "l1" and pixels is not None:
        return tf.reduce_sum(tf.abs(delta), axis=axes) / tf.cast(pixels, delta.dtype)
    if kind == "l1":
        return tf.reduce_mean(tf.abs(delta), axis=axes)
    if kind == "l2":
        return tf.reduce_sum(tf.square(delta), axis=axes) / 2
    return tf.reduce_max(tf.abs(delta), axis=axes)


def cost_gradient(kind: str, delta: tf.Tensor, pixels: int | tf.Tensor | None = None) -> tf.Tensor:
    """The gradient of `cost` in the perturbation; pixels that tie for the largest share it.

    Example:
        >>> cost_gradient("linf", tf.constant([[0.5, -1.0]])).numpy().tolist()
        [[0.0, -1.0]]
    """
    if kind == "l1":
        pixels = tf.reduce_prod(tf.shape(delta)[1:]) if pixels is None else pixels
        return tf.sign(delta) / tf.cast(pixels, delta.dtype)
    if kind == "l2":
        return delta
    largest = broadcast_to_images(cost("linf", delta), delta)
    at = tf.cast(tf.abs(delta) == largest, delta.dtype)
    axes = list(range(1, delta.shape.rank))
    return tf.sign(delta) * at / tf.reduce_sum(at, axis=axes, keepdims=True)


def smoothed(value: PerExample, radius: Radius, tau: float | tf.Tensor) -> PerExample:
    """The smoothed cost: the cost inside the radius, steeper by `1 / tau` outside.

    `tau` is the temperature, > 0; as it approaches 0, the cost becomes that of a hard ball.

    Example:
        >>> smoothed(tf.constant([0.5, 2.0]), radius=1.0, tau=0.25).numpy().tolist()
        [0.5, 5.0]

    Reference: Bui et al., "A Unified Wasserstein Distributional Robustness Framework for
    Adversarial Training" (2022), section 3.2.
    """
    radius, tau = scalar(radius, value.dtype), scalar(tau, value.dtype)
    return tf.where(value < radius, value, radius + (value - radius) / tau)


def smoothed_gradient(
    kind: str,
    delta: tf.Tensor,
    radius: Radius,
    tau: float | tf.Tensor,
    pixels: int | tf.Tensor | None = None,
) -> tf.Tensor:
    """The gradient of the smoothed cost in the perturbation, of the shape of `delta`.

    Of `"pixelwise"` each pixel is inside or outside by itself: its change, over `tau` where it is
    at least the radius.

    Example:
        >>> delta = tf.constant([[0.5, -2.0]])
        >>> smoothed_gradient("pixelwise", delta, 1.0, 0.25).numpy().tolist()
        [[0.5, -8.0]]
    """
    steep = 1 / scalar(tau, delta.dtype)
    if kind == PIXELWISE:
        return tf.where(tf.abs(delta) >= scalar(radius, delta.dtype), steep * delta, delta)
    outside = cost(kind, delta, pixels) >= scalar(radius, delta.dtype)
    slope = tf.where(outside, steep, tf.ones_like(steep))
    return broadcast_to_images(slope, delta) * cost_gradient(kind, delta, pixels)
