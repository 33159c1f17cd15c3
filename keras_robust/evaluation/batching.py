"""Batches of an evaluation's data, clean and attacked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from keras_robust.attacks.crafting.base import Attack, check_attack
from keras_robust.attacks.crafting.inputs import as_seed
from keras_robust.core.classifier import classifier_of
from keras_robust.core.types import Forward, Images, Labels
from keras_robust.core.validation import check_integer

Model: TypeAlias = keras.Model | Forward  # a robust model, a classifier, or a function of images
Data: TypeAlias = tf.data.Dataset | tuple[Images, Labels]
Progress: TypeAlias = Callable[[str], None]


def batches(
    data: Data, limit: int | None = None, batch_size: int = 128
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of images and labels of an evaluation, one in memory at a time.

    Args:
        data: a `tf.data.Dataset` of batches `(images, labels)`, or a pair of arrays.
        limit: use only the first `limit` images; None for all.
        batch_size: size of the batches into which a pair of arrays is split.

    Raises:
        ValueError: no data, a limit below 1, or different numbers of images and labels.

    Example:
        >>> data = np.zeros((5, 2)), np.arange(5)
        >>> [len(y) for _, y in batches(data, limit=3, batch_size=2)]
        [2, 1]
    """
    if limit is not None:
        check_integer("limit", limit, 1)
    remaining = limit
    dataset = isinstance(data, tf.data.Dataset)
    for x, y in _from_dataset(data) if dataset else _from_arrays(data, batch_size):
        yield x[:remaining], y[:remaining]
        if remaining is not None:
            remaining -= len(x)
            if remaining <= 0:
                return


def _from_dataset(data: tf.data.Dataset) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    empty = True
    for x, y, *_ in data.as_numpy_iterator():
        empty = False
        _check_lengths(x, y)
        yield x, y
    if empty:
        raise ValueError("The data set is empty; expected batches of (images, labels).")


def _from_arrays(data: Any, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    x, y = (np.asarray(part) for part in data)
    _check_lengths(x, y)
    for begin in range(0, len(x), batch_size):
        yield x[begin : begin + batch_size], y[begin : begin + batch_size]


def _check_lengths(x: np.ndarray, y: np.ndarray) -> None:
    if len(x) != len(y) or not len(x):
        raise ValueError(
            f"The data has {len(x)} images and {len(y)} labels; expected the same number of both, "
            "at least one."
        )


def attacked(
    model: Model, data: Data, attack: Attack, limit: int | None = None, seed: int = 0
) -> Iterator[tuple[Images, Images, Labels]]:
    """Batches of clean images, attacked images and labels; the attack is compiled once.

    Raises:
        TypeError: `attack` is not an `Attack`.
        ValueError: as for `batches`; images or labels that the attack refuses.
    """
    check_attack("attack", attack)
    craft = attack.compiled(classifier_of(model))
    for number, (x, y) in enumerate(batches(data, limit)):
        own = tf.random.experimental.stateless_fold_in(as_seed(seed), number)
        yield x, craft(x, y, own), y


def arrays(data: Data, limit: int | None) -> tuple[np.ndarray, np.ndarray, int]:
    """All images, all labels, and the batch size."""
    parts = list(batches(data, limit))
    x, y = (np.concatenate(part) for part in zip(*parts, strict=True))
    return x, y.astype(np.int64), len(parts[0][0])


def rows_in_batches(count: int, batch_size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Row indices in batches of one size, the last one padded, with the number of real rows."""
    for begin in range(0, count, batch_size):
        rows = np.arange(begin, min(begin + batch_size, count))
        yield np.pad(rows, (0, batch_size - len(rows)), mode="edge"), len(rows)
