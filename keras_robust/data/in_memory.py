"""Images and labels in memory: validation, and conversion to float images in [0, 1]."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from keras_robust.core.labels import class_numbers
from keras_robust.core.types import Images, Labels

# How far floating pixels may be outside [0, 1], in units in the last place of 1: resizing with
# antialiasing gives one.
_ULPS = 4
_EPSILON = {tf.float16: 2.0**-10, tf.bfloat16: 2.0**-7}


def as_tensors(images: Images, labels: Labels) -> tuple[tf.Tensor, tf.Tensor]:
    """Validates images and labels, and puts them into the host's memory as tensors.

    Args:
        images: `[size, h, w, c]`, uint8 or floating in [0, 1]; what rounding has moved outside, by
            a few units in the last place, is clipped.
        labels: non-negative integers `[size]` or `[size, 1]`, or one-hot rows.

    Returns:
        Images as uint8 (a quarter of the memory) or float32, labels as int32.

    Raises:
        TypeError: labels that are neither integers nor one-hot.
        ValueError: an invalid shape, dtype or value.

    Example:
        >>> images, labels = as_tensors(np.zeros([2, 8, 8, 1]), [0, 1])
        >>> images.dtype.name, labels.dtype.name
        ('float32', 'int32')
    """
    pixels = np.asarray(images)
    if pixels.ndim != 4 or 0 in pixels.shape:
        raise ValueError(
            f"images have shape {list(pixels.shape)}; expected [size, height, width, channels], "
            "not empty. Grayscale images get a channel by images[..., None]."
        )
    classes = np.asarray(class_numbers("labels", labels, pixels))
    checked = _in_range(pixels)
    kept = pixels.dtype if pixels.dtype == np.uint8 else np.dtype(np.float32)
    with tf.device("CPU:0"):  # a dataset does not belong in an accelerator's memory
        x = _tensor(images if checked is pixels else None, checked, kept)
        given = labels if np.shape(labels) == classes.shape else None
        return x, _tensor(given, classes, np.dtype(np.int32))


def to_unit(images: tf.Tensor) -> tf.Tensor:
    """Converts uint8 images to float32 in [0, 1]; returns float images unchanged.

    Example:
        >>> to_unit(tf.constant([0, 51, 255], tf.uint8)).numpy().tolist()
        [0.0, 0.20000000298023224, 1.0]
    """
    return tf.cast(images, tf.float32) / 255.0 if images.dtype == tf.uint8 else images


def _in_range(pixels: np.ndarray) -> np.ndarray:
    """The pixels, clipped to [0, 1] where rounding has left it."""
    if pixels.dtype == np.uint8:
        return pixels
    dtype = tf.as_dtype(pixels.dtype)
    if not dtype.is_floating:
        raise ValueError(f"images are {pixels.dtype}; expected uint8, or floating in [0, 1].")
    least, most = float(pixels.min()), float(pixels.max())
    if least >= 0 and most <= 1:
        return pixels
    # Of float32 at least: images of float64 often were float32.
    slack = _ULPS * max(_EPSILON.get(dtype, 0.0), 2.0**-23)
    if not (least >= -slack and most <= 1 + slack):  # also true for NaN
        raise ValueError(
            f"floating images have values from {least:.9g} to {most:.9g}; expected [0, 1]. "
            "Divide by the largest possible value, or pass uint8 images."
        )
    return pixels.clip(0, 1)


def _tensor(given: Images | Labels | None, array: np.ndarray, dtype: np.dtype) -> tf.Tensor:
    if isinstance(given, tf.Tensor) and array.dtype == dtype:
        return given  # several datasets then share one copy
    return tf.constant(array.astype(dtype, copy=False))
