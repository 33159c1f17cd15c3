"""Images and labels in memory: validation, and conversion to float images in [0, 1]."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from keras_robust.core.types import Images, Labels


def as_tensors(images: Images, labels: Labels) -> tuple[tf.Tensor, tf.Tensor]:
    """Validates images and labels, and puts them into the host's memory as tensors.

    Args:
        images: `[size, h, w, c]`, uint8 or floating in [0, 1].
        labels: `[size]`, non-negative integers.

    Returns:
        Images as uint8 (a quarter of the memory) or float32, labels as int32.

    Raises:
        ValueError: an invalid shape, dtype or value.

    Example:
        >>> images, labels = as_tensors(np.zeros([2, 8, 8, 1]), [0, 1])
        >>> images.dtype.name, labels.dtype.name
        ('float32', 'int32')
    """
    pixels, classes = np.asarray(images), np.asarray(labels)
    if pixels.ndim != 4 or 0 in pixels.shape:
        raise ValueError(
            f"images have shape {list(pixels.shape)}; expected [size, height, width, channels], "
            "not empty. Grayscale images get a channel by images[..., None]."
        )
    if classes.shape != pixels.shape[:1] or not np.issubdtype(classes.dtype, np.integer):
        raise ValueError(
            f"labels are {classes.dtype} of shape {list(classes.shape)}; expected one integer for "
            f"each of the {len(pixels)} images."
        )
    if classes.min() < 0:
        raise ValueError(f"labels include {classes.min()}; expected non-negative integers.")
    _check_pixels(pixels)
    kept = pixels.dtype if pixels.dtype == np.uint8 else np.dtype(np.float32)
    with tf.device("CPU:0"):  # a dataset does not belong in an accelerator's memory
        return _tensor(images, pixels, kept), _tensor(labels, classes, np.dtype(np.int32))


def to_unit(images: tf.Tensor) -> tf.Tensor:
    """Converts uint8 images to float32 in [0, 1]; returns float images unchanged.

    Example:
        >>> to_unit(tf.constant([0, 51, 255], tf.uint8)).numpy().tolist()
        [0.0, 0.20000000298023224, 1.0]
    """
    return tf.cast(images, tf.float32) / 255.0 if images.dtype == tf.uint8 else images


def _check_pixels(pixels: np.ndarray) -> None:
    if pixels.dtype == np.uint8:
        return
    if not np.issubdtype(pixels.dtype, np.floating):
        raise ValueError(f"images are {pixels.dtype}; expected uint8, or floating in [0, 1].")
    least, most = pixels.min(), pixels.max()
    if not (least >= 0 and most <= 1):  # also true for NaN
        raise ValueError(
            f"floating images have values from {least:g} to {most:g}; expected [0, 1]. "
            "Divide by the largest possible value, or pass uint8 images."
        )


def _tensor(given: Images | Labels, array: np.ndarray, dtype: np.dtype) -> tf.Tensor:
    if isinstance(given, tf.Tensor) and array.dtype == dtype:
        return given  # several datasets then share one copy
    return tf.constant(array.astype(dtype, copy=False))
