"""From the name of a dataset to batches for training, validation and test."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator

import tensorflow as tf

from keras_robust.core.validation import check_integer
from keras_robust.data import digits, tfds_reader, toy
from keras_robust.data.augmentation import Augmentation
from keras_robust.data.extra import ExtraImages
from keras_robust.data.in_memory import as_tensors
from keras_robust.data.pipelines import evaluation_batches, training_epochs, training_stream
from keras_robust.data.splits import Arrays, Source, validation_count

# Datasets that need no files.
EMBEDDED: dict[str, Callable[[], Source]] = {"digits": digits.read, "toy": toy.read}


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """Facts about a loaded dataset.

    Args:
        name: as passed to `load`.
        source: where the data comes from, with its version.
        image_shape: `(height, width, channels)`.
        classes: number of classes.
        class_names: one name per label.
        train_size: number of training examples, without the validation examples.
        validation_size: number of validation examples, taken from the training set.
        test_size: number of test examples.
        test_split: name of the test examples at the source.
    """

    name: str
    source: str
    image_shape: tuple[int, int, int]
    classes: int
    class_names: tuple[str, ...]
    train_size: int
    validation_size: int
    test_size: int
    test_split: str


@dataclasses.dataclass(frozen=True, eq=False)
class Splits:
    """The splits that `load` returns; unpack into `(train, validation, test)`.

    Args:
        train: one epoch of training each time it is read through, in another order each time.
        validation: batches in a fixed order; None without validation examples.
        test: batches in a fixed order.
        info: the shape, the classes and the sizes.
        stream: `training_stream` over the same training examples with the same settings:
            `stream(start_step=s)` gives the batches of `train` from the global step `s` on, without
            end.
    """

    train: tf.data.Dataset
    validation: tf.data.Dataset | None
    test: tf.data.Dataset
    info: DatasetInfo
    stream: Callable[..., tf.data.Dataset] = dataclasses.field(repr=False)

    def __iter__(self) -> Iterator[tf.data.Dataset | None]:
        """Yields the three datasets."""
        return iter((self.train, self.validation, self.test))


def load(
    name: str,
    batch_size: int = 128,
    data_dir: str | os.PathLike | None = None,
    *,
    validation: float | int = 0.1,
    limit: int | None = None,
    seed: int = 0,
    augment: Augmentation | None = None,
    extra: ExtraImages | None = None,
    download: bool = False,
) -> Splits:
    """Loads an image classification dataset.

    `"digits"` and `"toy"` are embedded; other names are looked up in TensorFlow Datasets. Images
    are held in memory, uint8 ones as such: 180 MB for CIFAR-10. Datasets that do not fit (ImageNet
    at full size) are out of scope.

    Validation examples are taken from the training set, never from the test set: a stratified draw
    that does not depend on `seed`. So runs with different seeds are comparable, and no run trains
    on the validation examples of another.

    Args:
        name: `"digits"`, `"toy"` (points in the plane; `"toy/3"` is another draw of them), or a
            name in TFDS: `"mnist"`, `"cifar10"`, `"imagenet_resized/32x32"`...
        batch_size: images per batch. Training batches are always full.
        data_dir: TFDS's directory; None for its default.
        validation: the fraction (a float in [0, 1)) or the number (an integer) of training examples
            held out for validation; 0 for none.
        limit: number of training examples to use, a stratified draw that does not depend on `seed`;
            validation examples are taken from these. None for all.
        seed: determines the order of training and the augmentation.
        augment: a function `(image, seed) -> image` for training images, such as
            `pad_crop_flip()`.
        extra: further images in a part of each training batch, such as `extra_images(x, y, 0.7)`.
        download: whether TFDS may download missing data.

    Returns:
        `Splits`, which unpack into `(train, validation, test)`, tf.data Datasets of
        `(images float32 [batch, h, w, c] in [0, 1], labels int32 [batch])`.

    Raises:
        ValueError: the dataset is unknown or unsuitable, or a number is out of range.
        FileNotFoundError: its data is missing; the message has the command that downloads it.

    Example:
        >>> train, validation, test = load("digits", batch_size=64)
        >>> len(train), len(validation), len(test)
        (20, 3, 6)
        >>> load("digits").info.image_shape
        (8, 8, 1)
    """
    if not isinstance(name, str):
        raise ValueError(f"name is {name!r}; expected 'digits' or a name in TFDS, such as 'mnist'.")
    check_integer("batch_size", batch_size, 1)
    embedded = _embedded(name)
    source = embedded() if embedded else tfds_reader.read(name, data_dir, download)
    return splits_of(
        name, source, batch_size, validation, limit=limit, seed=seed, augment=augment, extra=extra
    )


def splits_of(
    name: str,
    source: Source,
    batch_size: int,
    validation: Arrays | float | int,
    *,
    limit: int | None = None,
    seed: int = 0,
    augment: Augmentation | None = None,
    extra: ExtraImages | None = None,
) -> Splits:
    """The splits of a dataset in memory.

    Args:
        name: for the information.
        source: training and test examples.
        batch_size, limit, seed, augment, extra: see `load`.
        validation: the fraction or the number of training examples held out, or the examples.
    """
    train = source.train
    if limit is not None:
        check_integer("limit", limit, 1)
        train = train.hold_out(min(limit, len(train)))[1]
    if isinstance(validation, Arrays):
        held_out = validation
    else:
        train, held_out = train.hold_out(validation_count(validation, len(train)))
    info = _info(name, source, len(train), len(held_out))
    # Converted to tensors once, so that `train` and every stream share one copy.
    images, labels = as_tensors(train.images, train.labels)
    return Splits(
        train=training_epochs(images, labels, batch_size, seed=seed, augment=augment, extra=extra),
        validation=(
            evaluation_batches(held_out.images, held_out.labels, batch_size)
            if len(held_out)
            else None
        ),
        test=evaluation_batches(source.test.images, source.test.labels, batch_size),
        info=info,
        stream=functools.partial(
            training_stream, images, labels, batch_size, seed=seed, augment=augment, extra=extra
        ),
    )


def _embedded(name: str) -> Callable[[], Source] | None:
    """The function that reads an embedded dataset; None for other datasets."""
    kind, slash, draw = name.partition("/")
    if kind == "toy" and slash:
        if not draw.isdecimal():
            raise ValueError(f"name is {name!r}; expected the number of a draw, such as 'toy/3'.")
        return functools.partial(toy.read, int(draw))
    return EMBEDDED.get(name)


def _info(name: str, source: Source, train_size: int, validation_size: int) -> DatasetInfo:
    height, width, channels = source.train.images.shape[1:]
    return DatasetInfo(
        name=name,
        source=source.name,
        image_shape=(height, width, channels),
        classes=len(source.class_names),
        class_names=source.class_names,
        train_size=train_size,
        validation_size=validation_size,
        test_size=len(source.test),
        test_split=source.test_split,
    )
