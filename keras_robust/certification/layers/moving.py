"""Layers that only move values, or pass them on: Flatten, Reshape, ZeroPadding, Concatenate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_robust.certification.layers.rule import Affine, Entrywise, Tensor


class Moving(Affine):
    """A layer whose outputs are values of its inputs, or 0.

    Args:
        move: the function of the layer, for one input.
    """

    def __init__(self, move: Callable[[Tensor], Tensor]) -> None:
        self.move = move

    def linear(self, inputs: Sequence[Tensor], of: Entrywise | None = None) -> Tensor:
        """The values, in their new places."""
        (x,) = inputs
        return self.move(x)


class Joining(Moving):
    """A layer that joins several inputs without arithmetic, such as Concatenate."""

    def __init__(self, move: Callable[[Sequence[Tensor]], Tensor]) -> None:
        self.move = move

    def linear(self, inputs: Sequence[Tensor], of: Entrywise | None = None) -> Tensor:
        """The values of all inputs."""
        return self.move(list(inputs))


def reshaped(shape: Sequence[int | None]) -> Moving:
    """The values of each image in another shape.

    Args:
        shape: of the output, without the batch.
    """
    target = (-1, *shape)
    return Moving(lambda x: keras.ops.reshape(x, target))


def padded(layer: Any) -> Moving:
    """ZeroPadding2D."""
    (top, bottom), (left, right) = layer.padding
    widths = ((0, 0), (top, bottom), (left, right), (0, 0))
    return Moving(lambda x: keras.ops.pad(x, widths))


def two_class_logits() -> Moving:
    """The logits `[0, z]` of two classes from `z`, `[batch, 1]`."""
    return Moving(lambda z: keras.ops.pad(z, ((0, 0), (1, 0))))
