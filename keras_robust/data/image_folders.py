"""Reads folders of image files, one subfolder per class, into memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_robust.core.validation import check_integer, did_you_mean
from keras_robust.data.image_headers import check_pixels
from keras_robust.data.splits import Arrays

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif")
# Names of the subfolders of a dataset that is split already.
SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}

Size = int | Sequence[int]


def split_folders(path: str | os.PathLike[str]) -> dict[str, Path]:
    """The subfolders `train`, `validation` and `test` of a folder; empty if it has classes itself.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}; expected one with a folder a class.")
    found = {
        split: folder / name
        for split, names in SPLITS.items()
        for name in names
        if (folder / name).is_dir()
    }
    return found if {"train", "test"} & found.keys() else {}


def class_folders(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The names of the subfolders, in alphabetical order; hidden ones are left out.

    Raises:
        ValueError: there are none.
    """
    names = tuple(sorted(name.name for name in _visible(Path(path)) if name.is_dir()))
    if not names:
        raise ValueError(
            f"{path} has no subfolders; expected one for each class, with its images, such as "
            f"{Path(path) / 'cat' / '1.png'}."
        )
    return names


def read_folder(
    path: str | os.PathLike[str],
    class_names: Sequence[str],
    image_size: Size | None = None,
    channels: int | None = None,
    resized_file: Callable[[Path], None] = lambda file: None,
) -> Arrays:
    """Reads the images of a folder with a subfolder per class.

    Args:
        path: the folder. Files other than PNG, JPEG, BMP and GIF are left out.
        class_names: the subfolders in the order of the labels; a missing one has no images.
        image_size: `(height, width)`, or the side of a square, to which the images are resized
            (bilinear, with antialiasing); None for their own size, which has to be the same.
        channels: 1 or 3; None for those of the first image, without transparency.
        resized_file: called with each file whose image has another size.

    Returns:
        Images `[size, h, w, channels]` uint8 and labels `[size]`, in the order of classes and of
        file names.

    Raises:
        ValueError: a subfolder that is no class, no images, a file that cannot be decoded or has
            too many pixels, or images of several sizes.
    """
    for name in class_folders(path):
        if name not in class_names:
            raise ValueError(
                f"{path} has the subfolder {name!r}, which is not a class; the classes are "
                f"{did_you_mean(name, class_names)}"
            )
    files = [
        (file, label)
        for label, name in enumerate(class_names)
        if (Path(path) / name).is_dir()
        for file in sorted(_visible(Path(path) / name))
        if file.suffix.lower() in SUFFIXES
    ]
    if not files:
        raise ValueError(f"{path} has no images; expected files {', '.join(SUFFIXES)} by class.")
    size = None if image_size is None else checked_size(image_size)
    channels = _channels(files[0][0]) if channels is None else channels
    images: list[np.ndarray] = []
    for file, _ in files:
        image = _decode(file, channels).numpy()
        if size is not None and image.shape[:2] != size:
            resized_file(file)
            image = resized(tf.constant(image), size).numpy()
        if images and image.shape != images[0].shape:
            raise ValueError(
                f"{file} has {_pixels(image)} pixels, and {files[0][0]} has {_pixels(images[0])}; "
                "expected one size. Pass image_size=(height, width) to resize them."
            )
        images.append(image)
    return Arrays(np.stack(images), np.array([label for _, label in files], np.int32))


def checked_size(image_size: Size) -> tuple[int, int]:
    """`(height, width)` from that or from the side of a square.

    Raises:
        ValueError: not one or two integers above 0.

    Example:
        >>> checked_size(32), checked_size((24, 32))
        ((32, 32), (24, 32))
    """
    sides = tuple(image_size) if isinstance(image_size, (tuple, list)) else (image_size,) * 2
    if len(sides) != 2:
        raise ValueError(f"image_size is {image_size!r}; expected (height, width).")
    for side in sides:
        check_integer("image_size", side, 1)
    return int(sides[0]), int(sides[1])


def resized(image: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """A uint8 image in another size, rounded; unchanged if it has the size already."""
    if tuple(image.shape[:2]) == size:
        return image
    larger = tf.image.resize(image, size, antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(larger), 0, 255), tf.uint8)


def _visible(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if not path.name.startswith((".", "_")))


def _channels(file: Path) -> int:
    return 1 if _decode(file, 0).shape[-1] <= 2 else 3


def _decode(file: Path, channels: int) -> tf.Tensor:
    try:
        data = file.read_bytes()
        check_pixels(data)
        return tf.io.decode_image(data, channels=channels, expand_animations=False)
    except ValueError as error:
        raise ValueError(f"{file} is not decoded: {error}") from error
    except tf.errors.OpError as error:
        raise ValueError(f"{file} is not an image that can be decoded: {error.message}") from error


def _pixels(image: np.ndarray) -> str:
    return " x ".join(map(str, image.shape[:2]))
