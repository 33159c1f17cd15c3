"""Parts of a data set, drawn once and for all, so that runs with other seeds share them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

SPLIT_SEED = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
    """Images `[size, h, w, c]` and labels `[size]` in NumPy arrays."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def hold_out(self, count: int) -> tuple[Arrays, Arrays]:
        """Takes `count` examples out; returns what is left, and what was taken."""
        kept, held_out = stratified_split(self.labels, count)
        return (
            Arrays(self.images[kept], self.labels[kept]),
            Arrays(self.images[held_out], self.labels[held_out]),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """What a reader of data hands over.

    Args:
        name: where the data came from, with its version.
        train: the training examples.
        test: the test examples.
        class_names: one name for each label.
        test_split: what the test examples are called at their source.
    """

    name: str
    train: Arrays
    test: Arrays
    class_names: tuple[str, ...]
    test_split: str


def stratified_split(labels: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws `count` examples, from each class its share.

    The share of a class is `count` times its part of all labels, rounded so that the shares add
    up to `count` (largest remainder; of equal ones the smaller label wins). The examples of a
    class are drawn by `numpy.random.RandomState(SPLIT_SEED)`, class after class; NumPy promises
    that this generator never changes.

    Args:
        labels: `[size]`, integers.
        count: how many examples to draw, from 0 to `size`.

    Returns:
        The rows that were left and the rows that were drawn, both ascending.

    Example:
        >>> kept, drawn = stratified_split(np.array([0, 0, 0, 0, 1, 1]), count=3)
        >>> len(kept), [int(row >= 4) for row in drawn]
        (3, [0, 0, 1])
    """
    classes, sizes = np.unique(labels, return_counts=True)
    exact = count * sizes / len(labels)
    shares = np.floor(exact).astype(int)
    largest_remainders = np.argsort(shares - exact, kind="stable")
    shares[largest_remainders[: count - shares.sum()]] += 1
    generator = np.random.RandomState(SPLIT_SEED)
    drawn = [
        generator.permutation(np.flatnonzero(labels == label))[:share]
        for label, share in zip(classes, shares, strict=True)
    ]
    held_out = np.sort(np.concatenate(drawn))
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out


def validation_count(validation: Any, size: int) -> int:
    """How many of `size` training examples a request for validation means.

    Args:
        validation: a part in [0, 1) if it is a float, a number of examples if it is an integer.
        size: the training examples there are.

    Returns:
        The number of examples.

    Raises:
        ValueError: if it is neither, or leaves no training example.

    Example:
        >>> validation_count(0.1, 60_000), validation_count(5_000, 60_000)
        (6000, 5000)
    """
    if isinstance(validation, (float, np.floating)) and 0 <= validation < 1:
        return round(float(validation) * size)
    integer = isinstance(validation, (int, np.integer)) and not isinstance(validation, bool)
    if integer and 0 <= validation < size:
        return int(validation)
    raise ValueError(
        f"validation is a part of the training set (a float in [0, 1)) or a number of its {size} "
        f"examples (an integer below {size}); received {validation!r}"
    )
