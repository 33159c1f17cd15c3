"""Labels: class numbers `[batch]` or `[batch, 1]`, or one-hot rows; and the other classes."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_robust.core.types import Images, Labels

_EXPECTED = (
    "expected integer class numbers, shape [batch] or [batch, 1] (one class number per image), or "
    "one-hot rows, shape [batch, classes]; other rows can be reduced with `argmax`."
)


def class_numbers(name: str, y: Any, x: Images | None = None, classes: int | None = None) -> Labels:
    """Class numbers `[batch]` of labels in any form that is taken.

    Args:
        name: the name of the labels in errors.
        y: integers `[batch]` or `[batch, 1]`, or one-hot rows `[batch, classes]` of any dtype.
        x: the images that they belong to, `[batch, ...]`; None if not known.
        classes: the number of classes, if known.

    Returns:
        A tensor, int32 or int64, the dtypes that TensorFlow's losses take.

    Raises:
        TypeError: not convertible to a tensor, or neither integers nor one-hot.
        ValueError: a shape that does not match the images, rows that are not one-hot, or labels
            out of range; values are compared in eager mode.
        tf.errors.InvalidArgumentError: rows that are not one-hot, in a graph.

    Example:
        >>> class_numbers("Labels", [[2], [0]]).numpy().tolist()
        [2, 0]
        >>> class_numbers("Labels", [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]).numpy().tolist()
        [2, 0]
    """
    given, y = y, _tensor(y)
    if y is None:
        raise TypeError(f"{name} are {_short(given)}; {_EXPECTED}")
    shape = y.shape
    if y.shape.rank == 2 and y.shape[1] != 1 and _is_number(y):
        y = _from_one_hot(name, y, classes)
    if not y.dtype.is_integer:
        raise TypeError(f"{name} have dtype {y.dtype.name}; {_EXPECTED}")
    if y.shape.rank == 2 and y.shape[1] == 1:
        y = tf.squeeze(y, axis=1)
    batch = tf.TensorShape([None]) if x is None else tf.TensorShape(x.shape[:1])
    if y.shape.rank != 1 or not batch.is_compatible_with(y.shape):
        images = "" if x is None else f" for images of shape {tuple(x.shape)}"
        raise ValueError(f"{name} have shape {tuple(shape)}{images}; {_EXPECTED}")
    if tf.executing_eagerly() and tf.size(y) > 0:
        low, high = int(tf.reduce_min(y)), int(tf.reduce_max(y))
        if classes is not None and not 0 <= low <= high < classes:
            raise ValueError(
                f"{name} run from {low} to {high}; expected 0 to {classes - 1}, as the model has "
                f"{classes} classes."
            )
        if low < 0:
            raise ValueError(f"{name} run from {low} to {high}; expected class numbers >= 0.")
    # The data sets of Keras have uint8 labels, which TensorFlow's losses refuse.
    return y if y.dtype in (tf.int32, tf.int64) else tf.cast(y, tf.int64)


def _from_one_hot(name: str, y: tf.Tensor, classes: int | None) -> tf.Tensor:
    """Class numbers of rows with a single one among zeros."""
    if classes is not None and y.shape[1] != classes:
        raise ValueError(
            f"{name} have shape {tuple(y.shape)}; expected {classes} columns of one-hot labels, as "
            f"the model has {classes} classes, or class numbers, shape [batch]."
        )
    ones = tf.equal(y, tf.ones_like(y))
    valid = tf.reduce_all(ones | tf.equal(y, tf.zeros_like(y))) & tf.reduce_all(
        tf.equal(tf.reduce_sum(tf.cast(ones, tf.int32), axis=1), 1)
    )
    message = f"{name} have shape {tuple(y.shape)} and are not one-hot; {_EXPECTED}"
    if not tf.executing_eagerly():
        tf.debugging.Assert(valid, [message])
    elif not valid:
        raise ValueError(message)
    return tf.argmax(tf.cast(ones, tf.int32), axis=1)


def _is_number(y: tf.Tensor) -> bool:
    return y.dtype.is_floating or y.dtype.is_integer or y.dtype.is_bool


def _tensor(value: Any) -> tf.Tensor | None:
    """The value as a tensor, or None if it cannot be converted."""
    try:
        return tf.convert_to_tensor(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _short(value: Any) -> str:
    """The `repr` of a value, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def of_other_classes(values: tf.Tensor, labels: Labels) -> tf.Tensor:
    """The values, with the smallest number of their dtype in the place of the label's.

    Example:
        >>> of_other_classes(tf.constant([[3, 1]], tf.int8), tf.constant([0])).numpy().tolist()
        [[-128, 1]]
    """
    is_label = tf.one_hot(labels, values.shape[-1], on_value=True, off_value=False, dtype=tf.bool)
    return tf.where(is_label, values.dtype.min, values)
