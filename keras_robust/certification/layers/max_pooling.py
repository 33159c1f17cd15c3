"""Max pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_robust.certification.interval import Interval
from keras_robust.certification.layers.rule import Rule, Tensor, dot


class MaxPooling(Rule):
    """MaxPooling2D.

    Its linear bounds: from below the value with the largest lower bound in a window; from above
    the largest upper bound of the window, a constant, unless one value is always the largest.
    """

    mixes = True

    def __init__(self, layer: keras.layers.MaxPooling2D) -> None:
        self.layer = layer

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """The layer."""
        return keras.ops.max_pool(
            inputs[0], self.layer.pool_size, self.layer.strides, self.layer.padding
        )

    def interval(self, inputs: Sequence[Interval]) -> Interval:
        """The maxima of the ends."""
        (each,) = inputs
        lower, upper = self.forward([each.lower]), self.forward([each.upper])
        return Interval(lower, upper, each.nonnegative)

    def backward(self, rows: Tensor, inputs: Sequence[Interval]) -> tuple[list[Tensor], Tensor]:
        """The bounds of the class, by the sign of the coefficients."""
        (each,) = inputs
        windows = _Windows(self.layer, each.shape)
        least = rows.dtype.min
        lower, upper = windows(each.lower, least), windows(each.upper, least)
        chosen = tf.one_hot(tf.argmax(lower, axis=3), lower.shape[3], True, False, 3, tf.bool)
        others = tf.reduce_max(tf.where(chosen, least, upper), axis=3)
        dominates = tf.reduce_max(lower, axis=3) >= others
        exact = tf.cast(dominates, rows.dtype)
        highest = tf.where(dominates, 0.0, tf.reduce_max(upper, axis=3))
        negative = tf.minimum(rows, 0)
        routed = tf.nn.relu(rows) + negative * exact[:, None]
        return [windows.routed(routed, tf.cast(chosen, rows.dtype))], dot(negative, highest)


class _Windows:
    """The values under each position of a pooling window: a linear map that only moves values."""

    def __init__(self, layer: Any, shape: tf.TensorShape) -> None:
        self.shape = [int(size) for size in shape[1:]]
        axes = [
            _axis(size, pool, stride, layer.padding == "same")
            for size, pool, stride in zip(self.shape, layer.pool_size, layer.strides, strict=False)
        ]
        self.padding = [(0, 0), *(padding for padding, _ in axes), (0, 0)]
        self.slices = [(top, left) for top in axes[0][1] for left in axes[1][1]]
        self.pool = tuple(layer.pool_size)
        fits = all(size % pool == 0 for size, pool in zip(self.shape, self.pool, strict=False))
        self.are_tiles = fits and self.pool == tuple(layer.strides)

    def __call__(self, x: Tensor, fill: float = 0.0) -> Tensor:
        """`[batch, height, width, channels]` to `[batch, rows, columns, window, channels]`."""
        x = tf.pad(x, self.padding, constant_values=fill)
        return tf.stack([x[:, top, left] for top, left in self.slices], axis=3)

    def routed(self, rows: Tensor, chosen: Tensor) -> Tensor:
        """Gives each coefficient to the chosen value of its window.

        Args:
            rows: coefficients `[batch, rows, *output]`.
            chosen: 1 for one value of each window, else 0, `[batch, *windows]`.

        Returns:
            Coefficients `[batch, rows, *input]`.
        """
        if not self.are_tiles:
            return self._transposed(rows[:, :, :, :, None] * chosen[:, None])
        # The values of tiles are chosen in their places, once per image instead of once per row.
        height, width, channels = rows.shape[2:]
        tiles = tf.reshape(chosen, [-1, height, width, *self.pool, channels])
        places = tf.reshape(tf.transpose(tiles, [0, 1, 3, 2, 4, 5]), [-1, 1, *self.shape])
        return tf.repeat(tf.repeat(rows, self.pool[1], axis=3), self.pool[0], axis=2) * places

    def _transposed(self, rows: Tensor) -> Tensor:
        """The vector-Jacobian product of `[batch, rows, *windows]`."""
        lead = tf.shape(rows)[:2]
        flat = tf.reshape(rows, [lead[0] * lead[1], *rows.shape[2:]])
        x = tf.zeros([lead[0] * lead[1], *self.shape], rows.dtype)
        x = tf.ensure_shape(x, [None, *self.shape])
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            output = self(x)
        pulled = tape.gradient(output, x, output_gradients=flat)
        return tf.reshape(pulled, [lead[0], lead[1], *self.shape])


def _axis(size: int, pool: int, stride: int, same: bool) -> tuple[tuple[int, int], list[slice]]:
    """The padding of an axis, and the slice of each position in a window."""
    count = -(-size // stride) if same else (size - pool) // stride + 1
    span = (count - 1) * stride
    total = max(span + pool - size, 0)
    slices = [slice(start, start + span + 1, stride) for start in range(pool)]
    return (total // 2, total - total // 2), slices
