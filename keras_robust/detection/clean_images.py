"""Clean images for fitting and calibration: checked, and mapped batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_robust.core.batches import read_batches
from keras_robust.core.graphs import compiled
from keras_robust.core.numerics import clip_rounding
from keras_robust.core.types import Images


def as_images(x: Any, bounds: tuple[float, float] = (0.0, 1.0)) -> tf.Tensor:
    """A batch of images as float32.

    Raises:
        TypeError: images that are not floats.
        ValueError: an empty batch.
    """
    x = tf.convert_to_tensor(x)
    if not x.dtype.is_floating:
        raise TypeError(
            f"Images of dtype {x.dtype.name} were received; expected floats, such as in "
            f"[{bounds[0]:g}, {bounds[1]:g}]. Divide 8-bit images by 255, or cast them for a model "
            "that takes them."
        )
    if x.shape.rank is not None and x.shape.rank > 0 and x.shape[0] == 0:
        raise ValueError("An empty batch was received; expected at least one image.")
    return tf.cast(x, tf.float32)


def map_batches(
    function: Callable[[Images], Any],
    dataset: Iterable[Any],
    bounds: tuple[float, float],
    *,
    labels: bool = False,
) -> Iterator[tuple[Any, np.ndarray | None]]:
    """Applies a function to each batch, as one graph for all batch sizes.

    Args:
        function: images -> tensors.
        dataset: as for `Detector.calibrate`.
        bounds: the range of a pixel.
        labels: whether labels are needed.

    Yields:
        The result in NumPy, and the class numbers `[batch]` or None.

    Raises:
        TypeError, ValueError: as for `Detector.calibrate`.
    """
    graph: Callable[[Images], Any] | None = None
    for batch, y in read_batches(dataset, labels=labels):
        x = as_images(_within_rounding(batch, bounds), bounds)
        _check_range(x, bounds)
        if graph is None:  # traced once, for all batch sizes
            images = tf.TensorSpec([None, *x.shape[1:]], x.dtype)
            graph = compiled(lambda x: function(x)).get_concrete_function(images)
        yield tf.nest.map_structure(lambda value: value.numpy(), graph(x)), y


def _within_rounding(x: Any, bounds: tuple[float, float]) -> tf.Tensor:
    """Images, with what lies a few units in the last place outside the bounds clipped."""
    x = tf.convert_to_tensor(x)
    return clip_rounding(x, bounds) if x.dtype.is_floating else x


def _check_range(x: tf.Tensor, bounds: tuple[float, float]) -> None:
    low, high = float(tf.reduce_min(x)), float(tf.reduce_max(x))
    if not (low >= bounds[0] and high <= bounds[1]):  # refuses NaN too
        raise ValueError(
            f"Images with values from {low:.9g} to {high:.9g} were received; expected "
            f"[{bounds[0]:g}, {bounds[1]:g}]. Divide 8-bit images by 255, leave any normalization "
            "to a layer of the model, or pass the `bounds` of the images."
        )
