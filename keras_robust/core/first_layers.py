"""The first layers of a model, which show the range of the pixels that it takes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

# Widths of the range of the pixels after the first layers: of other pixels than those given.
NARROW, WIDE = 0.1, 50.0
_SHAPE_ONLY = (
    keras.layers.InputLayer,
    keras.layers.Reshape,
    keras.layers.Identity,
    keras.layers.Resizing,
)


def scaling_layers(model: Any) -> list[keras.layers.Layer]:
    """The rescaling and normalization before any other layer of a Keras model.

    Example:
        >>> first = keras.layers.Rescaling(1 / 255)
        >>> model = keras.Sequential([keras.Input((2, 2, 1)), first, keras.layers.Flatten()])
        >>> scaling_layers(model) == [first]
        True
    """
    return list(_first(model))


def scale_of(layers: list[keras.layers.Layer]) -> float:
    """The factor by which layers widen the range of the pixels; 1 if it is not known."""
    return math.prod(map(_scale, layers))


def bytes_expected(model: Any) -> bool:
    """Whether the first layers of a model rescale pixels of 0 to 255.

    They map [0, 1] to a range so narrow that a model of such images cannot have been trained.

    Example:
        >>> first = keras.layers.Rescaling(1 / 127.5, offset=-1)
        >>> bytes_expected(keras.Sequential([keras.Input((2, 2, 1)), first]))
        True
    """
    layers = scaling_layers(model)
    return bool(layers) and scale_of(layers) < NARROW


def _first(model: Any) -> Iterator[keras.layers.Layer]:
    for layer in _flat(model):
        if isinstance(layer, (keras.layers.Rescaling, keras.layers.Normalization)):
            yield layer
        elif not isinstance(layer, _SHAPE_ONLY):
            return


def _flat(model: Any) -> Iterator[keras.layers.Layer]:
    """The layers of a model and of the models inside it, in their order."""
    for layer in model.layers if isinstance(model, keras.Model) else ():
        if isinstance(layer, keras.Model) and layer.layers:
            yield from _flat(layer)
        else:
            yield layer


def _scale(layer: keras.layers.Layer) -> float:
    if isinstance(layer, keras.layers.Rescaling):
        return float(np.mean(np.abs(layer.scale)))
    variance = getattr(layer, "variance", None)
    if variance is None or layer.invert:
        return 1.0
    return float(np.mean(1 / np.sqrt(np.maximum(np.asarray(variance), 1e-14))))
