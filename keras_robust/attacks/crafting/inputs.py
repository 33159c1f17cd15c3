"""Checks of seeds and batches before an attack."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_robust.core import random
from keras_robust.core.labels import class_numbers
from keras_robust.core.numerics import clip_rounding, scalar
from keras_robust.core.types import Images, Labels, Seed
from keras_robust.threat_models.masks import Mask


def as_seed(seed: Seed) -> tf.Tensor:
    """An int tensor of shape `[2]`, as stateless random ops take it.

    Args:
        seed: an integer, a pair of integers, or an int tensor of shape `[]` or `[2]`.

    Raises:
        ValueError: any other seed.

    Example:
        >>> as_seed(7).numpy().tolist()
        [7, 0]
    """
    tensor = _tensor(seed)
    if tensor is None or not tensor.dtype.is_integer or tensor.shape not in ([], [2]):
        raise ValueError(f"seed is {seed!r}; expected an integer of 64 bits, or a pair of them.")
    if tensor.dtype not in (tf.int32, tf.int64):  # the only dtypes that stateless random ops take
        tensor = tf.cast(tensor, tf.int64)
    return tf.stack([tensor, tf.zeros_like(tensor)]) if tensor.shape == [] else tensor


def craft_seed(seed: Seed) -> tf.Tensor:
    """The seed of an attack: int32, as equal numbers of other dtypes are split differently.

    A larger seed is hashed.

    Example:
        >>> craft_seed(tf.constant([7, 8], tf.int64))
        <tf.Tensor: shape=(2,), dtype=int32, numpy=array([7, 8], dtype=int32)>
    """
    wide = as_seed(seed)
    narrow = tf.cast(wide, tf.int32)
    if wide.dtype == tf.int32:
        return narrow
    fits = tf.reduce_all(tf.equal(tf.cast(narrow, wide.dtype), wide))
    return tf.where(fits, narrow, random.bits([2], wide))


def check_batch(
    x: Images,
    y: Labels,
    targets: Labels | None,
    bounds: tuple[float, float],
    classes: int | None = None,
    mask: Mask | None = None,
) -> tuple[Images, Labels, Labels | None]:
    """Checks a batch: dtypes and shapes always, values in eager mode.

    Args:
        x: images `[batch, ...]`.
        y: labels, as `keras_robust.core.labels.class_numbers` takes them.
        targets: target labels in the same forms, or None.
        bounds: the range of a valid pixel.
        classes: the number of classes, if known.
        mask: the pixels that may change, to be checked against the shape of the images.

    Raises:
        TypeError: not convertible to tensors, images not float, labels not integer or one-hot.
        ValueError: shapes that do not match, pixels NaN or out of bounds, labels out of range, a
            mask that does not fit.
    """
    given, x = x, _tensor(x)
    if x is None:
        raise TypeError(
            f"Images are {_short(given)}; expected an array or a tensor [batch, ...] of images of "
            "one size."
        )
    if x.dtype not in _FLOATS:
        raise TypeError(
            f"Images have dtype {x.dtype.name}; expected a float dtype with values in "
            f"[{bounds[0]:g}, {bounds[1]:g}]. Divide uint8 images by 255."
        )
    if mask is not None:
        mask.check(x.shape)
    if tf.executing_eagerly() and tf.size(x) > 0:
        x = _checked_values(x, bounds)
    y = class_numbers("Labels", y, x, classes)
    if targets is not None:
        targets = class_numbers("Targets", targets, x, classes)
    return x, y, targets


def _checked_values(x: Images, bounds: tuple[float, float]) -> Images:
    """Images within the bounds; what rounding left outside is clipped, the rest is refused."""
    low, high = float(tf.reduce_min(x)), float(tf.reduce_max(x))
    # A pixel on a bound may be on either side of it, as its dtype rounds.
    least, most = (float(scalar(bound, x.dtype)) for bound in bounds)
    if least <= low and high <= most:
        return x
    clipped = clip_rounding(x, bounds)
    # Negated, so that NaN is refused too.
    if not (least <= float(tf.reduce_min(clipped)) and float(tf.reduce_max(clipped)) <= most):
        raise ValueError(
            f"Images have values from {low:.9g} to {high:.9g}; expected [{bounds[0]:g}, "
            f"{bounds[1]:g}] and no NaN. Scale the images, or give the ball other `bounds`."
        )
    return clipped


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


# TensorFlow has no arithmetic for narrower floats.
_FLOATS = (tf.float16, tf.bfloat16, tf.float32, tf.float64)
