"""TODO keras_robust.attacks.crafting.inputs."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_robust.core.numerics import scalar
from keras_robust.core.types import Images, Labels, Seed


def as_seed(seed: Seed) -> tf.Tensor:
    """An int tensor of shape `[2]`, as stateless random ops take it.

    Args:
        seed: a whole number, a pair of them, or an int tensor of shape `[]` or `[2]`.

    Raises:
        ValueError: anything else.

    Example:
        >>> as_seed(7).numpy().tolist()
        [7, 0]
    """
    tensor = _tensor(seed)
    if tensor is None or not tensor.dtype.is_integer or tensor.shape not in ([], [2]):
        raise ValueError(
            f"seed is {seed!r}; expected a whole number or a pair of whole numbers of 64 bits."
        )
    if tensor.dtype not in (tf.int32, tf.int64):  # the only ones that stateless random ops take
        tensor = tf.cast(tensor, tf.int64)
    return tf.stack([tensor, tf.zeros_like(tensor)]) if tensor.shape == [] else tensor


def check_batch(
    x: Images,
    y: Labels,
    targets: Labels | None,
    bounds: tuple[float, float],
    classes: int | None = None,
) -> tuple[Images, Labels, Labels | None]:
    """Checks a batch before an attack: kinds and shapes always, values where they are known.

    Args:
        x: images `[batch, ...]`.
        y: labels `[batch]`.
        targets: target labels `[batch]`, or None.
        bounds: the range of a valid pixel.
        classes: the number of classes, where it is known.

    Returns:
        The three as tensors.

    Raises:
        TypeError: what is no tensor, images that are not float, labels that are not integer.
        ValueError: shapes that do not fit, pixels outside the bounds, infinite or NaN, labels out
            of range.
    """
    given, x = x, _tensor(x)
    if x is None:
        raise TypeError(
            f"Images are {_short(given)}; expected an array or a tensor [batch, ...], all images "
            "of one size."
        )
    if x.dtype not in _FLOATS:
        raise TypeError(
            f"Images have dtype {x.dtype.name}; expected a float dtype with values in "
            f"[{bounds[0]:g}, {bounds[1]:g}]. Divide uint8 images by 255."
        )
    if tf.executing_eagerly():
        low, high = float(tf.reduce_min(x)), float(tf.reduce_max(x))
        # A pixel on a bound is as close to it as its dtype can be, on either side of it.
        least, most = (float(scalar(bound, x.dtype)) for bound in bounds)
        # Written so that NaN, which compares false with everything, is refused too.
        if not (least <= low and high <= most) and tf.size(x) > 0:
            raise ValueError(
                f"Images have values from {low:g} to {high:g}; expected [{bounds[0]:g}, "
                f"{bounds[1]:g}] and no NaN. Scale the images, or give the ball other `bounds`."
            )
    y = check_labels("Labels", y, x, classes)
    if targets is not None:
        targets = check_labels("Targets", targets, x, classes)
    return x, y, targets


def check_labels(name: str, y: Labels, x: Images, classes: int | None = None) -> Labels:
    """Checks class numbers, and widens them to a type that TensorFlow's losses take.

    Args:
        name: what to call them in an error.
        y: class numbers `[batch]`, of any integer type.
        x: the images that they belong to.
        classes: the number of classes, where it is known.

    Returns:
        The labels, int32 or int64.

    Raises:
        TypeError: what is no tensor, or labels that are not integer.
        ValueError: a shape that does not fit, or labels out of range.
    """
    given, y = y, _tensor(y)
    if y is None:
        raise TypeError(
            f"{name} are {_short(given)}; expected one class number per image, shape [batch]."
        )
    if not y.dtype.is_integer:
        raise TypeError(
            f"{name} have dtype {y.dtype.name}; expected integer class numbers. "
            "Turn one-hot labels into numbers with `argmax`."
        )
    if y.shape.rank != 1 or not x.shape[:1].is_compatible_with(y.shape):
        raise ValueError(
            f"{name} have shape {tuple(y.shape)} for images of shape {tuple(x.shape)}; "
            "expected one class number per image, shape [batch]."
        )
    if tf.executing_eagerly() and tf.size(y) > 0:
        low, high = int(tf.reduce_min(y)), int(tf.reduce_max(y))
        if classes is not None and not 0 <= low <= high < classes:
            raise ValueError(
                f"{name} run from {low} to {high}; expected 0 to {classes - 1}, as the model has "
                f"{classes} classes."
            )
        if low < 0:
            raise ValueError(f"{name} run from {low} to {high}; expected class numbers >= 0.")
    # The data sets of Keras have uint8 labels, which the losses of TensorFlow refuse.
    return y if y.dtype in (tf.int32, tf.int64) else tf.cast(y, tf.int64)


def _tensor(value: Any) -> tf.Tensor | None:
    """The value as a tensor, or None for what cannot be one."""
    try:
        return tf.convert_to_tensor(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _short(value: Any) -> str:
    """What was received, in a line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# Narrower floats are for storage: TensorFlow has no arithmetic for them.
_FLOATS = (tf.float16, tf.bfloat16, tf.float32, tf.float64)
