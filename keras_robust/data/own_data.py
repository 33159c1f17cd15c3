"""Your own images, from arrays, folders or TensorFlow Datasets, as the splits that `load` gives."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from keras_robust.core.labels import class_numbers
from keras_robust.core.types import Images, Labels
from keras_robust.core.validation import check_integer
from keras_robust.data import image_folders, tfds_reader
from keras_robust.data.image_folders import Size
from keras_robust.data.loader import Splits, splits_of
from keras_robust.data.splits import Arrays, Source

# Held out of data without test examples, as for datasets in TFDS.
TEST_FRACTION = tfds_reader.TEST_FRACTION
_ROUNDING = 1e-5

Pair: TypeAlias = tuple[Images, Labels]


def from_arrays(
    train: Pair,
    test: Pair | None = None,
    *,
    validation: Pair | float | int = 0.1,
    batch_size: int = 128,
    class_names: Sequence[str] | None = None,
    pixel_range: tuple[float, float] = (0.0, 1.0),
    name: str = "arrays",
    **options: Any,
) -> Splits:
    """Batches of your own arrays, for `fit`, attacks and `evaluate`.

    Takes what `keras.datasets.cifar10.load_data()` returns: `from_arrays(*load_data())`.

    Args:
        train: images `[size, h, w, c]`, or `[size, h, w]` for grayscale, and labels, integers or
            one-hot. Integers of 0 to 255 are divided by 255.
        test: the same; None to hold a fifth of `train` out, a stratified draw.
        validation: the same; or the fraction or number of training examples to hold out.
        batch_size: images per batch. Training batches are always full.
        class_names: one name per class; default their numbers.
        pixel_range: the values of black and white in floating images, such as `(0, 255)`; they are
            mapped to [0, 1].
        name: name of the data, for reports.
        **options: `limit`, `seed`, `augment` and `extra` of `load`.

    Returns:
        `Splits`, which unpack into `(train, validation, test)`.

    Raises:
        TypeError: labels that are neither integers nor one-hot.
        ValueError: an invalid shape or number, or images outside their range.

    Example:
        >>> x, y = np.zeros([50, 8, 8], np.uint8), np.arange(50) % 5
        >>> splits = from_arrays((x, y), batch_size=12)
        >>> len(splits.train), splits.info.image_shape, splits.info.classes
        (3, (8, 8, 1), 5)
    """
    fitted = _arrays("train", train, pixel_range)
    tested = None if test is None else _arrays("test", test, pixel_range)
    held_out: Arrays | float | int
    if isinstance(validation, (tuple, list)):
        held_out = _arrays("validation", validation, pixel_range)
    else:
        held_out = validation
    return _own(name, name, fitted, tested, held_out, batch_size, class_names, options)


def from_directory(
    path: str | os.PathLike[str],
    *,
    image_size: Size | None = None,
    channels: int | None = None,
    validation: float | int = 0.1,
    batch_size: int = 128,
    class_names: Sequence[str] | None = None,
    **options: Any,
) -> Splits:
    """Batches of the image files in a folder: `path/cat/1.png`, or `path/train/cat/1.png`.

    The subfolders are the classes, in alphabetical order. Next to `train` there may be `test` and
    `validation`. PNG, JPEG, BMP and GIF files are read into memory as uint8.

    Args:
        path: the folder.
        image_size: `(height, width)` or a side in pixels to which images are resized; None for
            their own size, which has to be the same.
        channels: 1 for grayscale, 3 for color; None for those of the first image.
        validation: the fraction or number of training examples to hold out, where there is no
            folder `validation`.
        batch_size: images per batch. Training batches are always full.
        class_names: the subfolders in the order of the labels; default all, in alphabetical order.
        **options: `limit`, `seed`, `augment` and `extra` of `load`.

    Returns:
        `Splits`, which unpack into `(train, validation, test)`. Without a folder `test` a fifth is
        held out for it, a stratified draw.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: no classes, no images, a file that cannot be decoded, several sizes.
    """
    folders = image_folders.split_folders(path)
    train = folders.get("train", Path(path))
    if folders and "train" not in folders:
        raise ValueError(f"{path} has a folder test and none of training images, 'train'.")
    names = tuple(class_names or image_folders.class_folders(train))
    read = {
        split: image_folders.read_folder(folder, names, image_size, channels)
        for split, folder in {**folders, "train": train}.items()
    }
    held_out = read.get("validation", validation)
    name = Path(path).resolve().name
    return _own(name, str(path), read["train"], read.get("test"), held_out, batch_size, names,
                options)  # fmt: skip


def from_tfds(
    name: str,
    *,
    image_size: Size | None = None,
    batch_size: int = 128,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = False,
    validation: float | int = 0.1,
    **options: Any,
) -> Splits:
    """Batches of an image classification dataset in TensorFlow Datasets; `load` with a size.

    Args:
        name: its name in TFDS, such as `"tf_flowers"` or `"cifar10:3.0.2"`.
        image_size: `(height, width)` or a side in pixels to which images are resized, needed where
            they vary in size.
        batch_size: images per batch. Training batches are always full.
        data_dir: TFDS's directory; None for its default.
        download: whether TFDS may download missing data.
        validation: the fraction or number of training examples to hold out.
        **options: `limit`, `seed`, `augment` and `extra` of `load`.

    Returns:
        `Splits`, which unpack into `(train, validation, test)`.

    Raises:
        ValueError: the dataset is unknown or unsuitable.
        FileNotFoundError: its data is missing; the message has the command that downloads it.
    """
    check_integer("batch_size", batch_size, 1)
    size = None if image_size is None else image_folders.checked_size(image_size)
    source = tfds_reader.read(name, data_dir, download, size)
    return splits_of(name, source, batch_size, validation, **options)


def _own(
    name: str,
    source: str,
    train: Arrays,
    test: Arrays | None,
    validation: Arrays | float | int,
    batch_size: int,
    class_names: Sequence[str] | None,
    options: dict[str, Any],
) -> Splits:
    check_integer("batch_size", batch_size, 1)
    split = "test"
    if test is None:
        split = "held out of train"
        train, test = train.hold_out(round(TEST_FRACTION * len(train)))
    parts = [train, test, *([validation] if isinstance(validation, Arrays) else [])]
    shapes = [part.images.shape[1:] for part in parts]
    if len(set(shapes)) > 1:
        raise ValueError(
            f"The images of training have shape {shapes[0]}, others {shapes[-1]}; expected one."
        )
    classes = 1 + max(int(part.labels.max(initial=0)) for part in parts)
    if class_names is not None and len(class_names) < classes:
        raise ValueError(
            f"class_names has {len(class_names)} names, but there is a label {classes - 1}; "
            "expected one name for each class."
        )
    names = tuple(map(str, range(classes) if class_names is None else class_names))
    found = Source(name=source, train=train, test=test, class_names=names, test_split=split)
    return splits_of(name, found, batch_size, validation, **options)


def _arrays(what: str, pair: Pair, pixel_range: tuple[float, float]) -> Arrays:
    """A pair of the user's own as uint8 or float32 images in [0, 1] and class numbers."""
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise ValueError(
            f"{what} is {type(pair).__name__} of {len(pair) if hasattr(pair, '__len__') else '?'}; "
            "expected a pair (images, labels)."
        )
    images = unit_images(what, pair[0], pixel_range)
    return Arrays(images, np.asarray(class_numbers(f"{what} labels", pair[1], images)))


def unit_images(what: str, images: Images, pixel_range: tuple[float, float] = (0, 1)) -> np.ndarray:
    """Images of the user's own as uint8, or as float32 in [0, 1], with a channel axis.

    Args:
        what: which images, for messages.
        images: `[size, h, w, c]` or `[size, h, w]`: integers of 0 to 255, or floating.
        pixel_range: the values of black and white in floating images.

    Raises:
        ValueError: an invalid shape, or values outside the range.

    Example:
        >>> unit_images("x", np.full([1, 2, 2], 51), (0, 255)).dtype
        dtype('uint8')
        >>> float(unit_images("x", np.full([1, 2, 2], 51.0), (0, 255)).max())
        0.20000000298023224
    """
    low, high = map(float, pixel_range)
    if not low < high:
        raise ValueError(f"pixel_range is {pixel_range!r}; expected (black, white), as (0, 255).")
    pixels = with_channels(what, images)
    if pixels.dtype == np.uint8:
        return pixels
    least, most = pixels.min(), pixels.max()
    if np.issubdtype(pixels.dtype, np.integer):
        if least < 0 or most > 255:
            raise ValueError(
                f"{what} images are integers from {least} to {most}; expected 0 to 255. Pass them "
                "as floats with pixel_range=(black, white)."
            )
        return pixels.astype(np.uint8)
    if not tf.as_dtype(pixels.dtype).is_floating:
        raise ValueError(f"{what} images are {pixels.dtype}; expected integers or floats.")
    slack = _ROUNDING * (high - low)
    if not (least >= low - slack and most <= high + slack):  # also true for NaN
        likely = (-1, 1) if least < 0 else (0, 255)
        raise ValueError(
            f"{what} images have values from {least:.9g} to {most:.9g}; expected {low:g} to "
            f"{high:g}. Pass their range, as in pixel_range={likely}."
        )
    unit = (pixels.astype(np.float64) - low) / (high - low) if (low, high) != (0, 1) else pixels
    return unit.clip(0, 1).astype(np.float32)


def with_channels(what: str, images: Images) -> np.ndarray:
    """Images `[size, h, w, c]` of images `[size, h, w, c]` or `[size, h, w]`.

    Raises:
        ValueError: another shape, or no images; the message names `what`.
    """
    try:
        pixels = np.asarray(images)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"{what} images vary in size; expected images of one size.") from error
    if pixels.ndim == 3:
        pixels = pixels[..., np.newaxis]
    if pixels.ndim != 4 or not pixels.size:
        raise ValueError(
            f"{what} images have shape {list(pixels.shape)}; expected [size, height, width, "
            "channels] or [size, height, width], not empty."
        )
    return pixels
