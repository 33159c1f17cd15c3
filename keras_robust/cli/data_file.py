"""Reads a user's own images and labels from an `.npz` file, or from a folder of image files."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

import keras_robust as kr
from keras_robust.core.bounded_files import open_arrays
from keras_robust.data import image_folders
from keras_robust.data.own_data import with_channels
from keras_robust.data.splits import Arrays

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
    images = with_channels(f"{path}:", _required(path, arrays, IMAGES))
    labels = _labels(path, _required(path, arrays, LABELS), classes)
    held_out = _first(arrays, VALIDATION)
    validation = None if held_out is None else with_channels(f"{path}: validation", held_out)
    names = _class_names(path, _first(arrays, CLASS_NAMES), classes)
    return _test_only(path, (images, labels), validation, names, batch_size)


def read_image_folder(
    path: Path,
    shape: Sequence[int],
    batch_size: int,
    class_names: Sequence[str] | None,
    note: Callable[[str], None],
) -> kr.data.Splits:
    """Reads the test images of a folder with a subfolder per class.

    Args:
        path: the folder; its subfolders `test` and `validation` if it has them.
        shape: `(height, width, channels)` of the model, to which images are resized and converted.
        batch_size: images per batch.
        class_names: the subfolders in the order of the labels; None for alphabetical order.
        note: called with a line if images were resized.

    Raises:
        ValueError: no classes, no images, or a file that cannot be decoded.
    """
    folders = image_folders.split_folders(path)
    if folders and "test" not in folders:
        raise ValueError(f"{path} has a folder of training images and none of test images, 'test'.")
    test = folders.get("test", path)
    names = tuple(class_names or image_folders.class_folders(test))
    height, width, channels = shape
    resized: list[Path] = []

    def read(folder: Path) -> Arrays:
        size = (height, width)
        return image_folders.read_folder(folder, names, size, channels, resized.append)

    images = read(test)
    held_out = read(folders["validation"]).images if "validation" in folders else None
    if resized:
        note(
            f"{len(resized):,} images of {path}, such as {resized[0].name}, are resized to "
            f"{height} x {width} pixels."
        )
    return _test_only(path, (images.images, images.labels), held_out, names, batch_size)


def _test_only(
    path: Path,
    test: tuple[np.ndarray, np.ndarray],
    held_out: np.ndarray | None,
    class_names: tuple[str, ...],
    batch_size: int,
) -> kr.data.Splits:
    """Splits without training images; those of validation have the label 0."""
    images, labels = test
    batches = kr.data.evaluation_batches(images, labels, batch_size)
    validation = None
    if held_out is not None:
        none = np.zeros(len(held_out), np.int32)
        validation = kr.data.evaluation_batches(held_out, none, batch_size)
    info = kr.data.DatasetInfo(
        name=path.name or str(path.resolve()),
        source=str(path),
        image_shape=images.shape[1:],
        classes=len(class_names),
        class_names=class_names,
        train_size=0,
        validation_size=0 if held_out is None else len(held_out),
        test_size=len(images),
        test_split="test",
    )
    return kr.data.Splits(batches.take(0), validation, batches, info, _no_training_stream)


def _no_training_stream(**_: object) -> tf.data.Dataset:
    raise ValueError("A data file has no training examples.")


def _load(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; expected an .npz file with x and y.")
    try:
        with open_arrays(path) as archive:
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
