"""Gradients of unit size for models in half precision, in which small ones underflow to zero.

The gradient of a cross-entropy at the logits is as small as the probability of an error. A float16
layer rounds it to zero below 6e-8, and the model looks robust. Here the gradient of each image is
scaled to unit size at the outputs of the model, and scaled back at its input.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from keras_robust.core.numerics import broadcast_to_images, upcast_half
from keras_robust.core.types import Forward, Images, Outputs, PerExample


def scaled_gradients(forward: Forward) -> Forward:
    """The same function, whose backward pass runs on gradients of unit size per image.

    Scales are powers of two, so that no bit of a float32 gradient changes. Half-precision outputs
    become float32. Gradients of half-precision images stay scaled, as they would underflow
    otherwise: they are right up to a positive factor per image.

    Example:
        >>> forward = scaled_gradients(lambda x: {"logits": tf.cast(x, tf.float16)})
        >>> x = tf.ones([1, 2])
        >>> with tf.GradientTape() as tape:
        ...     tape.watch(x)
        ...     value = 1e-12 * tf.reduce_sum(forward(x)["logits"])
        >>> bool(tf.reduce_all(tape.gradient(value, x) > 0))
        True
    """

    def scaled(x: Images) -> Outputs:
        enter, leave = _scaling()
        outputs = {name: upcast_half(value) for name, value in forward(enter(x)).items()}
        return dict(zip(outputs, leave(*outputs.values()), strict=True))

    return scaled


def _scaling() -> tuple[Callable[[tf.Tensor], tf.Tensor], Callable[..., tuple[tf.Tensor, ...]]]:
    """Two identities, at the input and at the outputs of one call of a model.

    The backward pass meets the outputs first: the scale that it finds there is undone at the input.
    """
    found: list[PerExample] = []

    @tf.custom_gradient
    def enter(x: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        def gradient(dx: tf.Tensor) -> tf.Tensor:
            return dx if dx.dtype.size < 4 else dx / _like(found[-1], dx)

        return tf.identity(x), gradient

    @tf.custom_gradient
    def leave(*outputs: tf.Tensor) -> tuple[tuple[tf.Tensor, ...], Callable]:
        def gradient(*gradients: tf.Tensor) -> tuple[tf.Tensor, ...]:
            found.append(_scale(gradients))
            return tuple(dy * _like(found[-1], dy) for dy in gradients)

        return tuple(map(tf.identity, outputs)), gradient

    return enter, leave


def _scale(gradients: tuple[tf.Tensor, ...]) -> PerExample:
    """The power of two that brings the largest entry of each image into [1, 2); else 1."""
    largest = [tf.reduce_max(tf.abs(_rows(dy)), axis=1) for dy in gradients]
    top = tf.reduce_max(tf.stack([tf.cast(values, tf.float32) for values in largest]), axis=0)
    exponent = tf.bitcast(top, tf.int32) // 2**23
    scale = tf.bitcast((254 - tf.clip_by_value(exponent, 1, 253)) * 2**23, tf.float32)
    return tf.where((top > 0) & tf.math.is_finite(top), scale, tf.ones_like(scale))


def _rows(values: tf.Tensor) -> tf.Tensor:
    return tf.reshape(values, [tf.shape(values)[0], -1])


def _like(scale: PerExample, values: tf.Tensor) -> tf.Tensor:
    return tf.cast(broadcast_to_images(scale, values), values.dtype)
