"""L1, L2 and Linf norms of perturbations, and unit directions in them."""

from __future__ import annotations

import tensorflow as tf

from keras_robust.core.numerics import upcast_half
from keras_robust.core.types import PerExample


def flatten(x: tf.Tensor) -> tf.Tensor:
    """Reshapes `[batch, ...]` to `[batch, pixels]`."""
    x = tf.convert_to_tensor(x)
    # The number of pixels is spelled out: -1 cannot be inferred for an empty batch.
    pixels = x.shape[1:].num_elements()
    return tf.reshape(x, [-1, tf.reduce_prod(tf.shape(x)[1:]) if pixels is None else pixels])


def divided_by_largest(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The largest absolute entry of each example, `[batch, 1]`, and the flat examples over it.

    Without the division, squares underflow or overflow float32.
    """
    flat = upcast_half(flatten(x))
    largest = tf.reduce_max(tf.abs(flat), axis=1, keepdims=True)
    return largest, tf.math.divide_no_nan(flat, largest)


def linf_norm(x: tf.Tensor) -> PerExample:
    """The largest absolute entry of each example, `[batch]`."""
    return tf.reduce_max(tf.abs(flatten(upcast_half(x))), axis=1)


def l2_norm(x: tf.Tensor) -> PerExample:
    """The Euclidean length of each example, `[batch]`."""
    largest, scaled = divided_by_largest(x)
    return largest[:, 0] * tf.norm(scaled, axis=1)


def l1_norm(x: tf.Tensor) -> PerExample:
    """The sum of the absolute entries of each example, `[batch]`."""
    return tf.reduce_sum(tf.abs(flatten(upcast_half(x))), axis=1)


def l2_unit(x: tf.Tensor) -> tf.Tensor:
    """Scales each example to Euclidean length 1; zero stays zero."""
    _, scaled = divided_by_largest(x)
    unit = tf.math.divide_no_nan(scaled, tf.norm(scaled, axis=1, keepdims=True))
    return tf.cast(tf.reshape(unit, tf.shape(x)), x.dtype)


def sparse_l1_unit(x: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Signs of the largest entries of each example, scaled to an absolute sum of 1; 0 elsewhere.

    Args:
        x: `[batch, ...]`.
        count: how many entries, >= 1: an int32 scalar, or one per example, `[batch]`. Entries that
            tie for the last place are all taken.

    Example:
        >>> sparse_l1_unit(tf.constant([[3.0, -2.0, 1.0]]), tf.constant([2])).numpy().tolist()
        [[0.5, -0.5, 0.0]]
    """
    flat = upcast_half(flatten(x))
    if count.shape.rank == 0:
        smallest_kept = tf.math.top_k(tf.abs(flat), k=count).values[:, -1:]
    else:
        descending = tf.sort(tf.abs(flat), axis=1, direction="DESCENDING")
        smallest_kept = tf.gather(descending, count - 1, axis=1, batch_dims=1)[:, None]
    signs = tf.sign(flat) * tf.cast(tf.abs(flat) >= smallest_kept, flat.dtype)
    unit = tf.math.divide_no_nan(signs, tf.reduce_sum(tf.abs(signs), axis=1, keepdims=True))
    return tf.cast(tf.reshape(unit, tf.shape(x)), x.dtype)
