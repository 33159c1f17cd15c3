"""Splits of a dataset, drawn with a fixed seed so that all runs share them."""

from __future__ import annotations

import dataclasses
import numbers

import numpy as np

from keras_robust.core.validation import check_integer, check_number

SPLIT_SEED = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
    """Images `[size, h, w, c]` and labels `[size]` in NumPy arrays."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def hold_out(self, count: int) -> tuple[Arrays, Arrays]:
        """Splits off `count` examples by `stratified_split`; returns the rest, and these."""
        kept, held_out = stratified_split(self.labels, count)
        return (
            Arrays(self.images[kept], self.labels[kept]),
            Arrays(self.images[held_out], self.labels[held_out]),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A dataset in memory.

    Args:
        name: where the data comes from, with its version.
        train: the training examples.
        test: the test examples.
        class_names: one name per label.
        test_split: name of the test examples at the source.
    """

    name: str
    train: Arrays
    test: Arrays
    class_names: tuple[str, ...]
    test_split: str


def stratified_split(labels: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws `count` examples in proportion to the class frequencies.

    The counts per class are rounded so that they add up to `count` (largest remainder; ties go to
    the smaller label). The examples of a class are drawn by
    `numpy.random.RandomState(SPLIT_SEED)`, class after class; NumPy guarantees that this generator
    never changes.

    Args:
        labels: `[size]`, integers.
        count: number of examples to draw, from 0 to `size`.

    Returns:
        The remaining rows and the drawn rows, both ascending.

    Example:
        >>> kept, drawn = stratified_split(np.array([0, 0, 0, 0, 1, 1]), count=3)
        >>> len(kept), [int(row >= 4) for row in drawn]
        (3, [0, 0, 1])
    """
    classes, sizes = np.unique(labels, return_counts=True)
    exact = count * sizes / len(labels)
    counts = np.floor(exact).astype(int)
    largest_remainders = np.argsort(counts - exact, kind="stable")
    counts[largest_remainders[: count - counts.sum()]] += 1
    generator = np.random.RandomState(SPLIT_SEED)
    drawn = [
        generator.permutation(np.flatnonzero(labels == label))[:number]
        for label, number in zip(classes, counts, strict=True)
    ]
    held_out = np.sort(np.concatenate(drawn))
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out


def validation_count(validation: float, size: int) -> int:
    """The number of validation examples, from a fraction or a number.

    Args:
        validation: a fraction in [0, 1) if it is a float, a number of examples if it is an integer.
        size: number of training examples.

    Raises:
        ValueError: neither of them, or no training example would remain.

    Example:
        >>> validation_count(0.1, 60_000), validation_count(5_000, 60_000)
        (6000, 5000)
    """
    if not isinstance(validation, numbers.Integral):
        hint = f", or an integer below {size}, the number of examples"
        check_number("validation", validation, 0, below=1, hint=hint)
        return round(float(validation) * size)
    check_integer("validation", validation)
    if validation >= size:
        raise ValueError(
            f"validation is {validation}; expected an integer below {size}, the number of examples."
        )
    return int(validation)
