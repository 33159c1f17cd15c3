"""Batches of an evaluation's data, clean and attacked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import keras
import numpy as np

from keras_robust.attacks.crafting.base import Attack, check_attack
from keras_robust.attacks.crafting.inputs import as_seed
from keras_robust.core import random
from keras_robust.core.batches import read_batches
from keras_robust.core.classifier import classifier_of
from keras_robust.core.types import Forward, Images, Labels

Model: TypeAlias = keras.Model | Forward  # a robust model, a classifier, or a function of images
# Batches of (images, labels), as `fit` takes them, or a pair of arrays.
Data: TypeAlias = Iterable[Any] | tuple[Images, Labels]
Progress: TypeAlias = Callable[[str], None]


def batches(
    data: Data, limit: int | None = None, batch_size: int = 128
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of images and labels of an evaluation, one in memory at a time.

    Args:
        data, limit, batch_size: as for `keras_robust.core.batches.read_batches`.

    Raises:
        TypeError, ValueError: as for `read_batches`.

    Example:
        >>> data = np.zeros((5, 2)), np.arange(5)
        >>> [len(y) for _, y in batches(data, limit=3, batch_size=2)]
        [2, 1]
    """
    for x, y in read_batches(data, limit, batch_size):
        if y is not None:
            yield x, y


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
        own = random.fold_in(as_seed(seed), number)
        yield x, craft(x, y, own), y


def arrays(data: Data, limit: int | None) -> tuple[np.ndarray, np.ndarray, int]:
    """All images, all labels, and the batch size."""
    parts = list(batches(data, limit))
    x, y = (np.concatenate(part) for part in zip(*parts, strict=True))
    return x, y, len(parts[0][0])


def rows_in_batches(count: int, batch_size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Row indices in batches of one size, the last one padded, with the number of real rows."""
    for begin in range(0, count, batch_size):
        rows = np.arange(begin, min(begin + batch_size, count))
        yield np.pad(rows, (0, batch_size - len(rows)), mode="edge"), len(rows)
