"""Linear functions of a layer's output whose lower bounds are wanted, made in parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf

from keras_robust.core.types import Labels
from keras_robust.core.validation import check_integer

Tensor: TypeAlias = Any
_BUDGET = 2**25  # numbers in one tensor of coefficients: 128 MiB in float32


class Rows(NamedTuple):
    """Coefficients of linear functions, from any number on.

    Attributes:
        total: how many functions.
        make: `(start, size)` to the coefficients `[batch or 1, size, *output]` of functions `start`
            to `start + size`; those past the last are of no use, and not wrong either.
    """

    total: int
    make: Callable[[Any, Any], Tensor]

    def in_parts(self, lower: Callable[[Tensor], Tensor], size: Any) -> Tensor:
        """Applies `lower: [batch, size, *output] -> [batch, size]` to parts, one after the other.

        Args:
            lower: the bounds of some of the functions.
            size: how many at a time, a number or a scalar tensor.

        Returns:
            The bounds of all, `[batch, count]`.
        """
        if isinstance(size, int) and size >= self.total:
            return lower(self.make(0, self.total))
        dtype = self.make(0, 1).dtype
        starts = tf.range(0, self.total, size)
        parts = tf.map_fn(
            lambda start: lower(self.make(start, size)),
            starts,
            parallel_iterations=1,
            fn_output_signature=tf.TensorSpec([None, None], dtype),
        )
        joined = tf.transpose(parts, [1, 0, 2])
        return tf.reshape(joined, [tf.shape(joined)[0], -1])[:, : self.total]


def each_margin(y: Labels, classes: int, dtype: tf.DType) -> Rows:
    """The margins as functions of the logits, `e_y - e_j` for each class `j`."""

    def make(start: Any, size: Any) -> Tensor:
        others = tf.one_hot(start + tf.range(size), classes, dtype=dtype)
        return tf.one_hot(y, classes, dtype=dtype)[:, None] - others

    return Rows(classes, make)


def both_ends(shape: Sequence[int], dtype: tf.DType) -> Rows:
    """Each value of a layer, then the negative of each."""
    values = tf.TensorShape(shape).num_elements()

    def make(start: Any, size: Any) -> Tensor:
        numbers = start + tf.range(size)
        signs = tf.where(numbers < values, tf.ones([], dtype), -tf.ones([], dtype))
        rows = tf.one_hot(numbers % values, values, dtype=dtype) * signs[:, None]
        return tf.reshape(rows, [1, size, *shape])

    return Rows(2 * values, make)


def check_rows(what: str, rows: int | None) -> None:
    """Raises ValueError unless `rows` is None or a positive integer."""
    if rows is not None:
        check_integer(what, rows, 1)


def part_size(count: int, batch: int | Tensor | None, largest: int) -> Any:
    """How many rows are followed at a time, so that one tensor stays below 128 MiB.

    Args:
        count: of all rows.
        batch: the number of images, or a scalar tensor; None, if it is not known, for all rows.
        largest: values of the largest layer per image.
    """
    if batch is None:
        return count
    if isinstance(batch, int):
        return min(max(_BUDGET // max(batch * largest, 1), 1), count)
    return tf.clip_by_value(_BUDGET // tf.maximum(batch * largest, 1), 1, count)
