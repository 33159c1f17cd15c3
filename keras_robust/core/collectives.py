"""TODO keras_robust.core.collectives."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def replicas() -> int:
    """How many replicas the strategy in scope has.

    Example:
        >>> replicas()
        1
    """
    return tf.distribute.get_strategy().num_replicas_in_sync


def replica_id() -> Any:
    """The number of this replica, from 0; an int or a scalar tensor."""
    context = tf.distribute.get_replica_context()
    return context.replica_id_in_sync_group if context else 0


def global_sum(value: tf.Tensor) -> tf.Tensor:
    """The sum of a tensor over the replicas, which all of them get.

    Args:
        value: a tensor of one shape on all replicas.

    Returns:
        A tensor of that shape.

    Example:
        >>> global_sum(tf.constant(3.0)).numpy().item()
        3.0
    """
    if replicas() == 1:
        return value
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)


def numbers(size: tf.Tensor) -> tf.Tensor:
    """The numbers of this replica's examples among those of all replicas.

    Args:
        size: how many examples it has.

    Returns:
        `[size]`, ascending.

    Example:
        >>> numbers(tf.constant(3)).numpy().tolist()
        [0, 1, 2]
    """
    return tf.range(size) + _place(size)[0]


def gathered(values: tf.Tensor) -> tf.Tensor:
    """The values of all replicas' examples, in order; gradients flow back to each replica's own.

    Args:
        values: `[size, ...]`, of one dtype and of the same further sizes on all replicas.

    Returns:
        `[size of all, ...]`, the same on all replicas.

    Example:
        >>> gathered(tf.constant([1.0, 2.0])).numpy().tolist()
        [1.0, 2.0]
    """
    if replicas() == 1:
        return values
    # Each in its own place among zeros, which the sum fills: the strategies of TensorFlow gather
    # too, but not all of them parts of different sizes.
    size = tf.shape(values)[0]
    begin, end = _place(size)
    padding = [[begin, end - begin - size], *[[0, 0]] * (values.shape.rank - 1)]
    return tf.ensure_shape(global_sum(tf.pad(values, padding)), [None, *values.shape[1:]])


def _place(size: tf.Tensor) -> tuple[Any, Any]:
    """How many examples the replicas before this one have, and how many all of them have."""
    if replicas() == 1:
        return 0, size
    sizes = global_sum(tf.one_hot(replica_id(), replicas(), dtype=tf.int32) * size)
    return tf.reduce_sum(sizes[: replica_id()]), tf.reduce_sum(sizes)
