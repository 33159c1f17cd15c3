"""Sums and means: Add, Average, average pooling, the mean of an ensemble's logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_robust.certification.layers.rule import Affine, Entrywise, Tensor


class Sum(Affine):
    """A sum of several inputs of one shape.

    Args:
        count: number of inputs.
        mean: whether to divide by it.
    """

    def __init__(self, count: int, mean: bool = False) -> None:
        self.fan_in = count
        self.mean = mean

    def linear(self, inputs: Sequence[Tensor], of: Entrywise | None = None) -> Tensor:
        """The sum, or the mean."""
        total = tf.add_n(list(inputs))
        return total / self.fan_in if self.mean else total


class Mean(Affine):
    """A mean over positions of one input, such as average pooling.

    Args:
        function: of the layer.
        fan_in: how many values are averaged.
    """

    mixes = True

    def __init__(self, function: Callable[[Tensor], Tensor], fan_in: int) -> None:
        self.function = function
        self.fan_in = fan_in

    def linear(self, inputs: Sequence[Tensor], of: Entrywise | None = None) -> Tensor:
        """The means."""
        (x,) = inputs
        return self.function(x)


def average_pooling(layer: Any) -> Mean:
    """AveragePooling2D; padding is not counted, as in Keras."""

    def function(x: Tensor) -> Tensor:
        return keras.ops.average_pool(x, layer.pool_size, layer.strides, layer.padding)

    height, width = layer.pool_size
    return Mean(function, height * width)


def global_average_pooling(layer: Any, shape: Sequence[int]) -> Mean:
    """GlobalAveragePooling2D.

    Args:
        layer: the layer.
        shape: of its input, `(height, width, channels)`.
    """
    return Mean(
        lambda x: tf.reduce_mean(x, axis=[1, 2], keepdims=layer.keepdims), shape[0] * shape[1]
    )


def mean_of_members(members: int) -> Mean:
    """The mean of `[batch, members, classes]` over members."""
    return Mean(lambda x: tf.reduce_mean(x, axis=1), members)
