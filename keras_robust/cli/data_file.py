"""Reads a user's own images and labels from an `.npz` file."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

import keras_robust as kr

# Names under which an array is looked up, in this order.
IMAGES = ("x", "images", "x_test")
LABELS = ("y", "labels", "y_test")
VALIDATION = ("x_validation", "images_validation")
CLASS_NAMES = ("class_names",)


def read_data_file(path: Path, classes: int, batch_size: int) -> kr.data.Splits:
    """Reads test images, their labels, and validation images if there are any.

    Args:
        path: an `.npz` file with the arrays `x` or `images` (`[n, height, width, channels]` or
            `[n, height, width]`, uint8 or float in [0, 1]) and `y` or `labels` (`[n]` integers);
            optionally `x_validation` or `images_validation`, and `class_names`.
        classes: number of classes of the model.
        batch_size: images per batch.

    Returns:
        Splits without training examples. Validation images have the label 0: thresholds of
        detectors need no labels.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: not an `.npz` file, a missing array, or values that do not fit.
    """
    arrays = _load(path)
    images = _images(path, _required(path, arrays, IMAGES))
    labels = _labels(path, _required(path, arrays, LABELS), classes)
    test = kr.data.evaluation_batches(images, labels, batch_size)
    held_out = _first(arrays, VALIDATION)
    validation = None
    if held_out is not None:
        held_out = _images(path, held_out)
        none = np.zeros(len(held_out), np.int32)
        validation = kr.data.evaluation_batches(held_out, none, batch_size)
    info = kr.data.DatasetInfo(
        name=path.name,
        source=str(path),
        image_shape=images.shape[1:],
        classes=classes,
        class_names=_class_names(path, _first(arrays, CLASS_NAMES), classes),
        train_size=0,
        validation_size=0 if held_out is None else len(held_out),
        test_size=len(images),
        test_split="test",
    )
    return kr.data.Splits(test.take(0), validation, test, info, _no_training_stream)


def _no_training_stream(**_: object) -> tf.data.Dataset:
    raise ValueError("A data file has no training examples.")


def _load(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; expected an .npz file with x and y.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = (*IMAGES, *LABELS, *VALIDATION, *CLASS_NAMES)
            return {name: archive[name] for name in archive.files if name in names}
    except (ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not an .npz file of numeric arrays: {error}") from error


def _first(arrays: dict[str, np.ndarray], names: Sequence[str]) -> np.ndarray | None:
    return next((arrays[name] for name in names if name in arrays), None)


def _required(path: Path, arrays: dict[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    array = _first(arrays, names)
    if array is None:
        raise ValueError(f"{path} has no array named {' or '.join(names)}.")
    return array


def _images(path: Path, images: np.ndarray) -> np.ndarray:
    """Images with a channel axis."""
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim != 4:
        raise ValueError(
            f"{path} holds images of shape {list(images.shape)}; expected "
            "[n, height, width, channels]."
        )
    return images


def _labels(path: Path, labels: np.ndarray, classes: int) -> np.ndarray:
    from keras_robust.core.labels import class_numbers

    given = labels
    try:
        labels = class_numbers("Labels", labels).numpy()
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path} holds labels of type {given.dtype} and shape {list(given.shape)}; expected "
            f"one class number per image, [n] integers. {error}"
        ) from error
    if len(labels) and labels.max() >= classes:
        raise ValueError(
            f"{path} holds the label {labels.max()}; the model has the classes 0 to {classes - 1}."
        )
    return labels


def _class_names(path: Path, names: np.ndarray | None, classes: int) -> tuple[str, ...]:
    if names is None:
        return tuple(map(str, range(classes)))
    if names.shape != (classes,):
        raise ValueError(f"{path} holds {names.size} class names; the model has {classes} classes.")
    return tuple(map(str, names.tolist()))
