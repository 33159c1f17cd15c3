"""The one reader of data: whatever `fit` takes, as batches of images and labels in NumPy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_robust.core.labels import class_numbers
from keras_robust.core.validation import check_integer

_FORMS = (
    "a `tf.data.Dataset`, a `keras.utils.PyDataset`, a "
    "generator or a list of batches, or a pair of arrays"
)
_PAIRS = f"expected batches of (images, labels): {_FORMS}"
_IMAGES = f"expected batches of images, or of (images, labels): {_FORMS}"
_KEYS = (("image", "label"), ("images", "labels"), ("x", "y"))
_MAX_PARTS = 3  # images, labels, sample weights


def read_batches(
    data: Any, limit: int | None = None, batch_size: int = 128, *, labels: bool = True
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Batches of images and labels, one in memory at a time.

    Args:
        data: what `fit` takes: a `tf.data.Dataset` of batches, a `keras.utils.PyDataset`, any
            iterable of batches, or arrays `(images, labels)`. A batch is `(images, labels)`,
            `(images, labels, sample_weights)` or a dictionary `{"image", "label"}`.
        limit: use only the first `limit` images; None for all.
        batch_size: size of the batches into which arrays are split.
        labels: whether labels are needed; without, they are not read, and a batch may be images.

    Yields:
        Images `[batch, ...]`, and class numbers `[batch]` int64, or None.

    Raises:
        TypeError: not data, or labels that are not class numbers or one-hot.
        ValueError: no data, data without labels, data that is not in batches or has no end (with no
            limit), a limit below 1, or different numbers of images and labels.

    Example:
        >>> data = np.zeros((5, 2)), np.arange(5)
        >>> [len(y) for _, y in read_batches(data, limit=3, batch_size=2)]
        [2, 1]
    """
    if limit is not None:
        check_integer("limit", limit, 1)
    remaining, shape = limit, None
    for batch in _raw_batches(data, limit, batch_size, labels):
        x, y = _checked(batch, labels)
        if shape is not None and x.shape[1:] != shape:
            raise ValueError(
                f"The data has images of the shapes {shape} and {x.shape[1:]}; expected one shape."
            )
        shape = x.shape[1:]
        yield x[:remaining], y if y is None else y[:remaining]
        if remaining is not None:
            remaining -= len(x)
            if remaining <= 0:
                return
    if shape is None and labels:
        raise ValueError(f"The data set is empty; {_PAIRS}.")


def _raw_batches(data: Any, limit: int | None, batch_size: int, labels: bool) -> Iterable[Any]:
    """The batches as they are stored."""
    if isinstance(data, tf.data.Dataset):
        if limit is None and int(data.cardinality()) == tf.data.INFINITE_CARDINALITY:
            raise ValueError(
                "The data is an infinite dataset (`repeat`); expected a finite one. Leave out "
                "`repeat`, pass `data.take(batches)`, or set a limit on the number of images."
            )
        return data
    if isinstance(data, keras.utils.PyDataset):
        count = data.num_batches
        if count is None and limit is None:
            raise ValueError(
                "The PyDataset has no length, so it may have no end; expected one with `__len__`, "
                "or a limit on the number of images."
            )
        return (data[number] for number in (iter(int, 1) if count is None else range(count)))
    if isinstance(data, Mapping):
        return _split(_named(data, labels), batch_size)
    if isinstance(data, (tuple, list)):
        if _is_pair(data, labels):
            return _split(data, batch_size)
        return data
    if isinstance(data, (str, bytes)) or not isinstance(data, Iterable) or _is_array(data):
        what = f"an array of shape {tuple(data.shape)}" if _is_array(data) else _short(data)
        missing = ", without labels" if _is_array(data) and labels else ""
        raise TypeError(f"The data is {what}{missing}; {_PAIRS if labels else _IMAGES}.")
    return data


def _is_pair(data: Any, labels: bool) -> bool:
    """Whether a tuple or list is arrays of images and labels, and not several batches."""
    if not 2 <= len(data) <= _MAX_PARTS or any(isinstance(part, Mapping) for part in data):
        return False
    if all(isinstance(part, (tuple, list)) and part and _is_array(part[0]) for part in data):
        return False
    if labels:
        return not all(isinstance(part, (tuple, list)) and len(part) == 0 for part in data)
    # Without labels, `[x, x]` is two batches of images and `[x, y]` images with labels.
    return np.ndim(data[1]) < np.ndim(data[0])


def _split(parts: Any, batch_size: int) -> Iterator[Any]:
    """Arrays in batches."""
    parts = [np.asarray(part) for part in parts[:2]]
    if any(part.ndim == 0 for part in parts):
        raise ValueError(
            f"The data has the shapes {[part.shape for part in parts]}; {_PAIRS} of images "
            "[n, ...] and labels [n]."
        )
    _check_lengths(*parts)
    for begin in range(0, len(parts[0]), batch_size):
        yield tuple(part[begin : begin + batch_size] for part in parts)


def _named(batch: Mapping[str, Any], labels: bool) -> tuple[Any, ...]:
    """Images and labels of a dictionary, as TensorFlow Datasets has them."""
    for image, label in _KEYS:
        if image in batch and (label in batch or not labels):
            return (batch[image], batch[label]) if label in batch else (batch[image],)
    raise ValueError(
        f"The data has the keys {sorted(map(str, batch))}; expected 'image' and 'label', or "
        "batches of (images, labels)."
    )


def _checked(batch: Any, labels: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Images and labels of one batch, checked."""
    if isinstance(batch, Mapping):
        batch = _named(batch, labels)
    parts = tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
    if not parts or (labels and len(parts) < 2):
        raise ValueError(
            f"The data has no labels: a batch is {_described(batch)}; expected (images, labels) or "
            "(images, labels, sample_weights)."
        )
    if len(parts) > _MAX_PARTS:
        raise ValueError(
            f"A batch of the data has {len(parts)} parts; expected (images, labels) or (images, "
            "labels, sample_weights)."
        )
    x = _array("images", parts[0])
    y = _array("labels", parts[1]) if labels else None
    if x.ndim == 0 or (y is not None and y.ndim == 0):
        raise ValueError(
            f"The data is not in batches: an element has images of shape {x.shape}"
            + ("" if y is None else f" and labels of shape {y.shape}")
            + "; expected images [batch, ...] and labels [batch]. Call `data.batch(128)`."
        )
    if y is None:
        return x, None
    _check_lengths(x, y)
    return x, class_numbers("Labels", y, x).numpy().astype(np.int64)


def _array(what: str, value: Any) -> np.ndarray:
    """One part of a batch as an array of numbers."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):
        array = np.asarray(None)
    if isinstance(value, (Mapping, str)) or array.dtype.kind in "OSUMm":
        raise TypeError(
            f"The {what} of a batch are {_described(value)}; expected one array of numbers, "
            "[batch, ...]."
        )
    return array


def _check_lengths(x: np.ndarray, y: np.ndarray) -> None:
    if len(x) != len(y) or not len(x):
        raise ValueError(
            f"The data has {len(x)} images and {len(y)} labels; expected the same number of both, "
            "at least one."
        )


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or tf.is_tensor(value)


def _described(value: Any) -> str:
    """A part of a batch in words, without its numbers."""
    if _is_array(value):
        return f"an array of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"a dictionary of {', '.join(map(str, value))}"
    if isinstance(value, (tuple, list)) and value and _is_array(value[0]):
        return f"a {type(value).__name__} of {len(value)} arrays"
    return _short(value)


def _short(value: Any) -> str:
    """The `repr` of a value, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
