"""The signature `certify`: predictions, and whether they are proven within a radius."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_robust.certification import Bounds, check_supported, is_certified
from keras_robust.core.types import Labels, PerExample
from keras_robust.serving.exporting.signatures import (
    Outputs,
    classification,
    image_shape,
    require,
    validate_images,
)


def input_specs(classifier: keras.Model) -> list[tf.TensorSpec]:
    """Images `[batch, height, width, channels]`, and a radius for each, `[batch]`."""
    return [
        tf.TensorSpec([None, *image_shape(classifier)], tf.float32, name="images"),
        tf.TensorSpec([None], tf.float32, name="radius"),
    ]


def check_bounds(bounds: Any, classifier: keras.Model) -> None:
    """Raises unless bounds can be served with a classifier.

    Raises:
        TypeError: not bounds.
        ValueError: a layer that they do not cover, or images outside [0, 1].
    """
    if not isinstance(bounds, Bounds):
        raise TypeError(
            f"export_model was given {bounds!r} as bounds; expected bounds such as "
            "`kr.certification.ibp(ball)`."
        )
    if tuple(bounds.ball.bounds) != (0.0, 1.0):
        low, high = bounds.ball.bounds
        raise ValueError(
            f"The bounds hold for images in [{low:g}, {high:g}]; a served model takes [0, 1]. "
            "Pass bounds of a ball with bounds=(0, 1)."
        )
    check_supported(classifier)


def endpoint(classifier: keras.Model, bounds: Bounds) -> Callable[..., Outputs]:
    """The function of the signature: `(images, radius) -> outputs`, one row per image.

    Args:
        classifier: a built functional model `images -> {"logits", ...}`.
        bounds: whose method and norm it uses, at the radius of each request.
    """

    def certify(images: tf.Tensor, radius: tf.Tensor) -> Outputs:
        x = validate_images(images)
        radius = _validate_radius(radius, x)
        answer = classification(classifier(x, training=False))
        proven = _certified(bounds, classifier, x, answer["classes"], radius)
        return {**answer, "certified": proven}

    return certify


def _certified(
    bounds: Bounds, classifier: keras.Model, x: tf.Tensor, classes: Labels, radius: tf.Tensor
) -> PerExample:
    """Whether each prediction is the same in the whole ball, `[batch]` bool.

    Bounds take one radius at a time: images are grouped by theirs, so that a server may batch
    requests, and the cost does not depend on how many radii there are.
    """
    distinct, group = tf.unique(radius)

    def add(number: tf.Tensor, proven: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        rows = tf.where(group == number)
        labels = tf.gather_nd(classes, rows)
        margins = bounds.at_radius(distinct[number])(classifier, tf.gather_nd(x, rows), labels)
        found = is_certified(margins, labels)
        return number + 1, tf.tensor_scatter_nd_update(proven, rows, found)

    start = (tf.constant(0), tf.zeros_like(classes, tf.bool))
    return tf.while_loop(lambda number, _: number < tf.size(distinct), add, start)[1]


def _validate_radius(radius: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    count = tf.shape(images)[0]
    checks = [
        require(
            tf.size(radius) == count,
            "radius must hold one number per image; received {} for {} images",
            (tf.size(radius), count),
        ),
        require(
            tf.reduce_all(tf.math.is_finite(radius) & (radius >= 0)),
            "radius must hold finite numbers >= 0, in the units of images in [0, 1]; received {}",
            (radius,),
        ),
    ]
    with tf.control_dependencies(checks):
        return tf.identity(radius)
