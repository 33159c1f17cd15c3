"""Data batch by batch: as it comes, and attacked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_robust.attack import Attack, as_seed, check_attack
from keras_robust.types import Images, Labels, Outputs


def batches(
    data: Any, limit: int | None = None, size: int = 128
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The images and labels of an evaluation, one batch in memory at a time.

    Args:
        data: a `tf.data.Dataset` of batches `(images, labels)`, or a pair of arrays.
        limit: stop after so many images.
        size: of the batches that a pair of arrays is cut into.

    Yields:
        Images `[batch, ...]` and labels `[batch]`.

    Raises:
        ValueError: no data, a limit below 1, images and labels that are not as many.

    Example:
        >>> [len(y) for _, y in batches((np.zeros((5, 2)), np.arange(5)), limit=3, size=2)]
        [2, 1]
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; expected at least 1 image, or None for all.")
    left = limit
    for x, y in _whole(data) if isinstance(data, tf.data.Dataset) else _cut(data, size):
        yield x[:left], y[:left]
        if left is not None:
            left -= len(x)
            if left <= 0:
                return


def _whole(data: tf.data.Dataset) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    empty = True
    for x, y, *_ in data.as_numpy_iterator():
        empty = False
        _check(x, y)
        yield x, y
    if empty:
        raise ValueError("The data set is empty; expected batches of (images, labels).")


def _cut(data: Any, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    x, y = (np.asarray(part) for part in data)
    _check(x, y)
    for begin in range(0, len(x), size):
        yield x[begin : begin + size], y[begin : begin + size]


def _check(x: np.ndarray, y: np.ndarray) -> None:
    if len(x) != len(y) or not len(x):
        raise ValueError(f"The data has {len(x)} images and {len(y)} labels; expected one each.")


def attacked(
    model: Any, data: Any, attack: Attack, limit: int | None = None, seed: int = 0
) -> Iterator[tuple[Images, Images, Labels]]:
    """Batches beside what an attack, compiled once, makes of them.

    Args:
        model: a robust model, a classifier, or a function `images -> {"logits", ...}`.
        data: as `batches` takes it.
        attack: the attack.
        limit: stop after so many images.
        seed: of the attack; each batch has a seed of its own.

    Yields:
        Clean images `[batch, ...]`, attacked images of that shape, labels `[batch]`.

    Raises:
        TypeError: what is no attack.
        ValueError: as `batches`; images or labels that the attack refuses.
    """
    check_attack("attack", attack)
    craft = attack.compiled(classifier_of(model))
    for number, (x, y) in enumerate(batches(data, limit)):
        own = tf.random.experimental.stateless_fold_in(as_seed(seed), number)
        yield x, craft(x, y, own), y


def classifier_of(model: Any) -> Any:
    """The classifier of a robust model; anything else as it is."""
    return getattr(model, "classifier", model)


def features_of(outputs: Outputs) -> tf.Tensor:
    """The latents among a model's outputs, one vector `[d]` per image.

    Raises:
        TypeError: there are none.

    Example:
        >>> features_of({"logits": None, "features": tf.zeros([2, 3, 4])}).shape.as_list()
        [2, 12]
    """
    if "features" not in outputs:
        raise TypeError(
            f"The model returned {sorted(outputs)}; expected 'features' too, the latents. Wrap a "
            "Keras model with `keras_robust.models.adapt(model, features='layer_name')`."
        )
    features = tf.convert_to_tensor(outputs["features"])
    return tf.reshape(features, [tf.shape(features)[0], -1])
