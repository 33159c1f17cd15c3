"""Data batch by batch: as it comes, and attacked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_robust.attacks.crafting.base import Attack, check_attack
from keras_robust.attacks.crafting.inputs import as_seed
from keras_robust.core.classifier import classifier_of
from keras_robust.core.types import Images, Labels


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


def arrays(data: Any, limit: int | None) -> tuple[np.ndarray, np.ndarray, int]:
    """All images and labels, and the size of a batch."""
    parts = list(batches(data, limit))
    x, y = (np.concatenate(part) for part in zip(*parts, strict=True))
    return x, y.astype(np.int64), len(parts[0][0])


def rows_in_batches(count: int, size: int) -> Iterable[tuple[np.ndarray, int]]:
    """Row numbers in batches of one size, the last filled up, with how many are real."""
    for begin in range(0, count, size):
        rows = np.arange(begin, min(begin + size, count))
        yield np.pad(rows, (0, size - len(rows)), mode="edge"), len(rows)
