"""Unpacks and checks the batches that Keras feeds to a step."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_robust.attacks.crafting.inputs import check_batch
from keras_robust.core.labels import class_numbers
from keras_robust.core.types import Images, Labels, RobustLoss
from keras_robust.training.distribution import checked_part


def unpack_batch(
    data: Any, bounds: tuple[float, float] | None, loss: RobustLoss
) -> tuple[Images, Labels, tf.Tensor | None]:
    """Unpacks `data` into images, labels and sample weights.

    Args:
        data: as Keras passes it to a step.
        bounds: the range of the images; None to accept any.
        loss: the robust loss that they are for.

    Returns:
        Images `[batch, ...]`, labels `[batch]`, and sample weights or None.

    Raises:
        TypeError, ValueError: labels are missing or not integers, images are not floats or outside
            the bounds, sample weights for a loss of the whole batch.
        tf.errors.InvalidArgumentError: images outside the bounds, in a graph.
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
        return x, class_numbers("Labels", y, x), weight
    x, y, _ = check_batch(x, y, None, bounds)
    if not tf.executing_eagerly():  # eagerly, `check_batch` compares the values
        # Images in [0, 255] would train without an error, on negligible perturbations.
        tf.debugging.Assert(
            tf.reduce_all((x >= bounds[0]) & (x <= bounds[1])),
            [
                f"Images lie outside the ball's bounds {bounds}, or are NaN. Scale "
                "them (divide uint8 images by 255), or give the ball other `bounds`. Range:",
                tf.reduce_min(x),
                tf.reduce_max(x),
            ],
        )
    return x, y, weight
