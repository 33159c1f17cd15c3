"""Dense layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_robust.certification.layers.rule import Affine, Entrywise, Tensor, root


class Dense(Affine):
    """`x @ kernel + bias` on the last axis; its activation is a rule of its own."""

    signed = True
    mixes = True

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self.fan_in = int(layer.kernel.shape[0])

    def linear(self, inputs: Sequence[Tensor], of: Entrywise | None = None) -> Tensor:
        """`x @ of(kernel)`."""
        (x,) = inputs
        kernel = tf.cast(self.layer.kernel, x.dtype)
        return keras.ops.matmul(x, kernel if of is None else of(kernel))

    def dual_radius(self, field: Tensor, p: float) -> Tensor:
        """The norm of each column of the kernel."""
        if p == 2:
            return root(self.linear([tf.square(field)], tf.square))
        kernel = tf.abs(tf.cast(self.layer.kernel, field.dtype))
        return tf.reduce_max(field[..., None] * kernel, axis=-2)

    def offset(self, dtype: tf.DType) -> Tensor | None:
        """The bias."""
        bias = self.layer.bias
        return None if bias is None else tf.cast(bias, dtype)
