"""Predictions as plain arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from keras_robust.core.classifier import classifier_of
from keras_robust.core.kept_graphs import compiled_forward
from keras_robust.core.types import Images
from keras_robust.core.validation import check_choice, check_integer

KINDS = ("probabilities", "logits", "classes")


def predictions(
    model: Any, images: Images | tf.data.Dataset, kind: str = "probabilities", batch_size: int = 128
) -> np.ndarray:
    """Predicts images; `model.predict` of a classifier returns its dictionary of outputs.

    Args:
        model: a robust model, a classifier, an ensemble, or a function `images -> {"logits"}`.
        images: `[size, h, w, c]` floating in the range of the model, [0, 1] for those here; or
            batches of images, with or without labels.
        kind: `"probabilities"`, `"logits"`, or `"classes"`.
        batch_size: images per batch of an array.

    Returns:
        `[size, classes]` float32, or for `"classes"` `[size]` int64.

    Raises:
        TypeError: the model is not a classifier, or images are not floating.
        ValueError: an unknown kind, or no images.

    Example:
        >>> import keras_robust as kr
        >>> model = kr.models.mlp((2, 2, 1), classes=3, hidden=(4,))
        >>> found = predictions(model, np.ones([5, 2, 2, 1], "float32"))
        >>> found.shape, bool(np.allclose(found.sum(1), 1))
        ((5, 3), True)
    """
    check_choice("kind", kind, KINDS)
    check_integer("batch_size", batch_size, 1)
    forward = compiled_forward(classifier_of(model))
    if isinstance(images, tf.data.Dataset):
        batches = images.map(lambda x, *_: x)
    else:
        _check(images)
        batches = (images[i : i + batch_size] for i in range(0, len(images), batch_size))
    found = []
    for batch in batches:
        x = tf.convert_to_tensor(batch)
        _check(x)
        logits = tf.cast(forward(x)["logits"], tf.float32)
        if kind == "classes":
            found.append(tf.argmax(logits, axis=1).numpy())
        else:
            found.append((logits if kind == "logits" else tf.nn.softmax(logits)).numpy())
    if not found:
        raise ValueError("There are no images to predict; expected at least one.")
    return np.concatenate(found)


def _check(images: Images) -> None:
    dtype = tf.as_dtype(getattr(images, "dtype", tf.string))
    if not dtype.is_floating:
        raise TypeError(
            f"Images are {dtype.name if hasattr(images, 'dtype') else type(images).__name__}; "
            "expected an array of floats in the range of the model. Divide uint8 images by 255."
        )
