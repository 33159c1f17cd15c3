"""Sums and gathering over the replicas of a `tf.distribute` strategy."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def replicas() -> int:
    """Number of replicas of the strategy in scope.

    Example:
        >>> replicas()
        1
    """
    return tf.distribute.get_strategy().num_replicas_in_sync


def replica_id() -> Any:
    """Index of this replica, from 0; an int or a scalar tensor."""
    context = tf.distribute.get_replica_context()
    return context.replica_id_in_sync_group if context else 0


def global_sum(value: tf.Tensor) -> tf.Tensor:
    """The sum of a tensor over all replicas, the same on each.

    Args:
        value: a tensor of the same shape on all replicas.

    Example:
        >>> global_sum(tf.constant(3.0)).numpy().item()
        3.0
    """
    if replicas() == 1:
        return value
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)


def example_indices(size: tf.Tensor) -> tf.Tensor:
    """The indices of this replica's examples among those of all replicas.

    Args:
        size: number of examples of this replica.

    Returns:
        `[size]`, ascending.

    Example:
        >>> example_indices(tf.constant(3)).numpy().tolist()
        [0, 1, 2]
    """
    return tf.range(size) + _offset_and_total(size)[0]


def all_gather(values: tf.Tensor) -> tf.Tensor:
    """Concatenates the values of all replicas; gradients flow back to each replica's own values.

    Args:
        values: `[size, ...]`; only `size` may differ between replicas.

    Returns:
        `[total size, ...]`, the same on all replicas.

    Example:
        >>> all_gather(tf.constant([1.0, 2.0])).numpy().tolist()
        [1.0, 2.0]
    """
    if replicas() == 1:
        return values
    # Padded with zeros to the total size, then summed: not all strategies of TensorFlow can gather
    # parts of different sizes.
    size = tf.shape(values)[0]
    begin, end = _offset_and_total(size)
    padding = [[begin, end - begin - size], *[[0, 0]] * (values.shape.rank - 1)]
    return tf.ensure_shape(global_sum(tf.pad(values, padding)), [None, *values.shape[1:]])


def _offset_and_total(size: tf.Tensor) -> tuple[Any, Any]:
    """Number of examples on the replicas before this one, and on all replicas."""
    if replicas() == 1:
        return 0, size
    sizes = global_sum(tf.one_hot(replica_id(), replicas(), dtype=tf.int32) * size)
    return tf.reduce_sum(sizes[: replica_id()]), tf.reduce_sum(sizes)
