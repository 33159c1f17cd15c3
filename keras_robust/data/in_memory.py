"""Images and labels in memory: what is accepted, and how it becomes float images in [0, 1]."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf


def as_tensors(images: Any, labels: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Checks images and labels, and puts them into the host's memory as tensors.

    Args:
        images: `[size, h, w, c]`, uint8 or floating in [0, 1].
        labels: `[size]`, integers of 0 or more.

    Returns:
        Images as uint8 or float32 (uint8 stays so: it takes a quarter of the memory), labels as
        int32.

    Raises:
        ValueError: if shapes, dtypes or values do not fit; the message says which.

    Example:
        >>> images, labels = as_tensors(np.zeros([2, 8, 8, 1]), [0, 1])
        >>> images.dtype.name, labels.dtype.name
        ('float32', 'int32')
    """
    pixels, classes = np.asarray(images), np.asarray(labels)
    if pixels.ndim != 4 or 0 in pixels.shape:
        raise ValueError(
            f"images have the shape [size, height, width, channels], nothing empty; received "
            f"{list(pixels.shape)}. Grey images get their channel by images[..., None]"
        )
    if classes.shape != pixels.shape[:1] or not np.issubdtype(classes.dtype, np.integer):
        raise ValueError(
            f"labels are one integer for each of the {len(pixels)} images; received "
            f"{classes.dtype} of shape {list(classes.shape)}"
        )
    if classes.min() < 0:
        raise ValueError(f"labels are 0 or more; the least received is {classes.min()}")
    _check_pixels(pixels)
    kept = pixels.dtype if pixels.dtype == np.uint8 else np.dtype(np.float32)
    with tf.device("CPU:0"):  # a data set has no place in an accelerator's memory
        return _tensor(images, pixels, kept), _tensor(labels, classes, np.dtype(np.int32))


def to_unit(images: tf.Tensor) -> tf.Tensor:
    """Turns uint8 images into float32 in [0, 1]; leaves float images as they are.

    Example:
        >>> to_unit(tf.constant([0, 51, 255], tf.uint8)).numpy().tolist()
        [0.0, 0.20000000298023224, 1.0]
    """
    return tf.cast(images, tf.float32) / 255.0 if images.dtype == tf.uint8 else images


def _check_pixels(pixels: np.ndarray) -> None:
    if pixels.dtype == np.uint8:
        return
    if not np.issubdtype(pixels.dtype, np.floating):
        raise ValueError(f"images are uint8, or floating in [0, 1]; received {pixels.dtype}")
    least, most = pixels.min(), pixels.max()
    if not (least >= 0 and most <= 1):  # written so that NaN is refused as well
        raise ValueError(
            f"floating images are in [0, 1]; received values from {least:g} to {most:g}. "
            "Divide by the largest possible value, or pass uint8 images"
        )


def _tensor(given: Any, array: np.ndarray, dtype: np.dtype) -> tf.Tensor:
    if isinstance(given, tf.Tensor) and array.dtype == dtype:
        return given  # several datasets then share one copy
    return tf.constant(array.astype(dtype, copy=False))
