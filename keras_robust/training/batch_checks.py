"""Unpacks and checks the batches that Keras feeds to a step."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_robust.attacks.crafting.inputs import check_batch, clip_rounding
from keras_robust.core.labels import class_numbers
from keras_robust.core.numerics import scalar
from keras_robust.core.types import Images, Labels, RobustLoss
from keras_robust.training.distribution import checked_part

# A failed check of this module, or of labels, in the message of TensorFlow's error.
_FAILED = re.compile(r"assertion failed: \[((?:Images|Labels) .*?)\](?: \[(.*?)\] \[(.*?)\])?\s")


def unpack_batch(
    data: Any,
    bounds: tuple[float, float] | None,
    loss: RobustLoss,
    classes: int | None = None,
) -> tuple[Images, Labels, tf.Tensor | None]:
    """Unpacks `data` into images, labels and sample weights.

    Args:
        data: as Keras passes it to a step.
        bounds: the range of the images; None to accept any.
        loss: the robust loss that they are for.
        classes: the number of classes; None if not known.

    Returns:
        Images `[batch, ...]`, labels `[batch]`, and sample weights or None.

    Raises:
        TypeError, ValueError: labels are missing or not integers, images are not floats or outside
            the bounds, sample weights for a loss of the whole batch.
        tf.errors.InvalidArgumentError: images outside the bounds or labels out of range, in a
            graph.
    """
    x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
    x = checked_part(x)
    if y is None:
        raise ValueError(
            "The data has no labels; expected batches of (images, labels) or "
            "(images, labels, sample_weights)."
        )
    if weight is not None and loss.batch_level:
        raise ValueError(
            "The data has sample weights (or `class_weight` was given), but terms of the loss "
            "compare the images of a batch with each other, so a single image has no loss to "
            "weight. Leave the weights out, and draw the images that should count more often."
        )
    if bounds is None:
        y = class_numbers("Labels", y, x, classes)
    else:
        if not tf.executing_eagerly() and getattr(x, "dtype", tf.uint8).is_floating:
            x = clip_rounding(x, bounds)
        x, y, _ = check_batch(x, y, None, bounds, classes)
    if not tf.executing_eagerly():  # eagerly, the values were compared
        y = _labels_in_range(y, classes)
        x = x if bounds is None else _images_in_bounds(x, bounds)
    return x, y, weight


def _images_in_bounds(x: Images, bounds: tuple[float, float]) -> Images:
    """Images in [0, 255] would train without an error, on negligible perturbations."""
    least, most = (scalar(bound, x.dtype) for bound in bounds)
    low, high = tf.reduce_min(x), tf.reduce_max(x)
    inside = tf.debugging.Assert(
        tf.reduce_all((x >= least) & (x <= most)),
        [
            f"Images lie outside the ball's bounds {bounds}, or are NaN. Scale "
            "them (divide uint8 images by 255), or give the ball other `bounds`. Range:",
            tf.strings.as_string(tf.cast(low, tf.float64), precision=9),
            tf.strings.as_string(tf.cast(high, tf.float64), precision=9),
        ],
    )
    with tf.control_dependencies([inside]):
        return tf.identity(x)


def _labels_in_range(y: Labels, classes: int | None) -> Labels:
    """On an accelerator, and under XLA, a label that is no class gives a loss of NaN."""
    valid = y >= 0 if classes is None else (y >= 0) & (y < classes)
    expected = "class numbers >= 0" if classes is None else f"0 to {classes - 1}"
    inside = tf.debugging.Assert(
        tf.reduce_all(valid),
        [
            f"Labels are out of range; expected {expected}. Range:",
            tf.reduce_min(y),
            tf.reduce_max(y),
        ],
    )
    with tf.control_dependencies([inside]):
        return tf.identity(y)


def first_batch(x: Any, y: Any, size: int) -> tuple[Any, Any] | None:
    """The first batch of arrays, in the dtype in which Keras passes it on; None for other data.

    Args:
        x: images as `fit` takes them.
        y: their labels, or None.
        size: images per batch.
    """
    is_array = isinstance(x, np.ndarray) and x.dtype.kind in "biuf"
    if not (is_array or isinstance(x, tf.Tensor)) or not len(x.shape):
        return None
    images = tf.convert_to_tensor(x[:size])
    if images.dtype.is_floating:
        images = tf.cast(images, keras.config.floatx())
    return images, None if y is None else y[:size]


@contextlib.contextmanager
def one_sentence() -> Iterator[None]:
    """Turns the error of a graph whose check of a batch failed into a ValueError of one sentence.

    Raises:
        ValueError: the sentence of the check.
        tf.errors.InvalidArgumentError: any other error.
    """
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        failed = _FAILED.search(f"{error} ")
        if failed is None:
            raise
        sentence, low, high = failed.groups()
        sentence = sentence.replace("\\'", "'")  # TensorFlow escapes it
        raise ValueError(sentence if low is None else f"{sentence} {low} to {high}.") from None
