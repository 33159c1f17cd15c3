"""Layers that scale and shift each value: batch normalization, Normalization, Rescaling."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_robust.certification.layers.rule import Affine, Entrywise, Tensor


class Scaling(Affine):
    """`scale x + offset`, elementwise; subclasses give both."""

    signed = True
    fan_in = 9  # rounding errors: of a product, a sum, and what both are computed from

    @abc.abstractmethod
    def scale(self, dtype: tf.DType) -> Tensor:
        """The factor, to broadcast to `[batch, ...]`."""

    def linear(self, inputs: Sequence[Tensor], of: Entrywise | None = None) -> Tensor:
        """`of(scale) x`."""
        (x,) = inputs
        scale = self.scale(x.dtype)
        return x * (scale if of is None else of(scale))


class BatchNormalization(Scaling):
    """Batch normalization over the last axis with given statistics.

    Args:
        layer: the layer.
        statistics: mean and variance per channel; None for the moving ones.
    """

    def __init__(
        self,
        layer: keras.layers.BatchNormalization,
        statistics: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.layer = layer
        self.statistics = statistics

    def with_batch_statistics(self, x: Tensor) -> BatchNormalization:
        """The rule with the mean and variance of a batch, as in training.

        A layer that is not trainable keeps the moving ones, as Keras does.
        """
        if not self.layer.trainable:
            return self
        axis = self.layer.axis % x.shape.rank
        # Over all replicas, where the layer's own are.
        mean, variance = keras.ops.moments(
            x,
            [a for a in range(x.shape.rank) if a != axis],
            synchronized=self.layer.synchronized,
        )
        return BatchNormalization(self.layer, (mean, variance))

    def scale(self, dtype: tf.DType) -> Tensor:
        """`gamma / sqrt(variance + epsilon)`."""
        return self._parts(dtype)[0]

    def offset(self, dtype: tf.DType) -> Tensor:
        """`beta - mean scale`."""
        scale, mean, beta = self._parts(dtype)
        return beta - mean * scale

    def offset_magnitude(self, dtype: tf.DType) -> Tensor:
        """`|beta| + |mean scale|`."""
        scale, mean, beta = self._parts(dtype)
        return tf.abs(beta) + tf.abs(mean * scale)

    def _parts(self, dtype: tf.DType) -> tuple[Tensor, Tensor, Tensor]:
        layer = self.layer
        given = self.statistics or (layer.moving_mean, layer.moving_variance)
        mean, variance = (tf.cast(part, dtype) for part in given)
        scale = tf.math.rsqrt(variance + layer.epsilon)
        if layer.scale:
            scale *= tf.cast(layer.gamma, dtype)
        beta = tf.cast(layer.beta, dtype) if layer.center else tf.zeros_like(mean)
        return scale, mean, beta


class Normalization(Scaling):
    """`keras.layers.Normalization`: `(x - mean) / max(sqrt(variance), epsilon)`."""

    def __init__(self, layer: keras.layers.Normalization) -> None:
        self.layer = layer

    def scale(self, dtype: tf.DType) -> Tensor:
        """`1 / max(sqrt(variance), epsilon)`."""
        deviation = tf.sqrt(tf.cast(self.layer.variance, dtype))
        return 1 / tf.maximum(deviation, tf.cast(keras.config.epsilon(), dtype))

    def offset(self, dtype: tf.DType) -> Tensor:
        """`-mean scale`."""
        return -tf.cast(self.layer.mean, dtype) * self.scale(dtype)


class Rescaling(Scaling):
    """`keras.layers.Rescaling`: `scale x + offset`."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def scale(self, dtype: tf.DType) -> Tensor:
        """The scale: one number, or one per channel."""
        return tf.convert_to_tensor(self.layer.scale, dtype)

    def offset(self, dtype: tf.DType) -> Tensor:
        """The offset."""
        return tf.convert_to_tensor(self.layer.offset, dtype)
