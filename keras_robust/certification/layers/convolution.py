"""Convolutions: plain, grouped and depthwise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import tensorflow as tf

from keras_robust.certification.layers.rule import Affine, Entrywise, Tensor, root


class Convolution(Affine):
    """`conv(x, kernel) + bias`; its activation is a rule of its own."""

    signed = True
    mixes = True

    def __init__(self, layer: keras.layers.Conv2D) -> None:
        self.layer = layer
        self.fan_in = math.prod(layer.kernel.shape[:-1])

    def linear(self, inputs: Sequence[Tensor], of: Entrywise | None = None) -> Tensor:
        """`conv(x, of(kernel))`."""
        (x,) = inputs
        kernel = tf.cast(self.layer.kernel, x.dtype)
        kernel = kernel if of is None else of(kernel)
        return self._convolved(x, kernel)

    def _convolved(self, x: Tensor, kernel: Tensor) -> Tensor:
        groups = self.layer.groups
        if groups == 1:
            return self._convolved_together(x, kernel)
        # Keras compiles a grouped convolution by XLA, anew for each number of rows.
        parts = zip(tf.split(x, groups, axis=-1), tf.split(kernel, groups, axis=-1), strict=True)
        return tf.concat([self._convolved_together(*part) for part in parts], axis=-1)

    def _convolved_together(self, x: Tensor, kernel: Tensor) -> Tensor:
        layer = self.layer
        return keras.ops.conv(
            x,
            kernel,
            strides=list(layer.strides),
            padding=layer.padding,
            data_format=layer.data_format,
            dilation_rate=layer.dilation_rate,
        )

    def dual_radius(self, field: Tensor, p: float) -> Tensor:
        """The norm of the kernel of each position; in L1 at most its largest weight."""
        if p == 2:
            return root(self.linear([tf.square(field)], tf.square))
        return tf.reduce_max(field) * self._largest(tf.abs(tf.cast(self.layer.kernel, field.dtype)))

    def _largest(self, kernel: Tensor) -> Tensor:
        """The largest weight of each output channel."""
        return tf.reduce_max(kernel, axis=[0, 1, 2])

    def offset(self, dtype: tf.DType) -> Tensor | None:
        """The bias."""
        bias = self.layer.bias
        return None if bias is None else tf.cast(bias, dtype)


class Depthwise(Convolution):
    """A convolution of each channel by itself."""

    def __init__(self, layer: keras.layers.DepthwiseConv2D) -> None:
        self.layer = layer
        self.fan_in = math.prod(layer.kernel.shape[:2])

    def _convolved(self, x: Tensor, kernel: Tensor) -> Tensor:
        layer = self.layer
        return keras.ops.depthwise_conv(
            x,
            kernel,
            strides=layer.strides,
            padding=layer.padding,
            data_format=layer.data_format,
            dilation_rate=layer.dilation_rate,
        )

    def _largest(self, kernel: Tensor) -> Tensor:
        return tf.reshape(tf.reduce_max(kernel, axis=[0, 1]), [-1])
