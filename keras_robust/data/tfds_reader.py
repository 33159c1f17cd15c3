"""Reads image classification datasets of TensorFlow Datasets (TFDS) into memory."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
import shlex
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import tensorflow as tf

from keras_robust.data.image_folders import resized
from keras_robust.data.splits import Arrays, Source

# Held out of a dataset without test examples. A fifth, as for the embedded digits.
TEST_FRACTION = 0.2

_IMPORTS = threading.Lock()
_MEND = "Delete the dataset's directory and download it again."


def read(
    name: str,
    data_dir: str | os.PathLike | None = None,
    download: bool = False,
    image_size: tuple[int, int] | None = None,
) -> Source:
    """Reads the training and the test examples of a TFDS dataset into memory.

    The test examples are the split `test`; else `validation`; else a fifth of `train`, held out by
    `splits.stratified_split`.

    Args:
        name: the dataset's name in TFDS, such as `"mnist"`, `"imagenet_resized/32x32"` (with a
            configuration) or `"cifar10:3.0.2"` (with a version).
        data_dir: TFDS's directory; None for its default (`TFDS_DATA_DIR`, or
            `~/tensorflow_datasets`).
        download: whether TFDS may download and prepare missing data.
        image_size: `(height, width)` to which images are resized; None for their own.

    Returns:
        The examples, images uint8.

    The files of a dataset may come from somebody else, so they import nothing: a feature class of
    `features.json` must belong to TFDS, or be imported already.

    Raises:
        ValueError: TFDS has no such dataset, or not one of equally sized images with one label; its
            files are damaged, or name a class that would be imported from elsewhere.
        FileNotFoundError: the data is missing; the message has the command that downloads it.
    """
    import tensorflow_datasets as tfds  # imported late: `digits` does not need it

    _check_name(name)
    with _no_foreign_imports(tfds, name):
        return _read(_builder(tfds, name, data_dir), name, data_dir, download, image_size)


def _read(
    builder: Any,
    name: str,
    data_dir: str | os.PathLike | None,
    download: bool,
    image_size: tuple[int, int] | None,
) -> Source:
    image_key, label_key = _keys(name, builder.info, image_size)
    if not builder.info.splits and download:
        builder.download_and_prepare()
    if not builder.info.splits:
        raise FileNotFoundError(
            f"There is no data of {name!r} in {builder.data_path}. Download it with\n"
            f"    {fetch_command(name, data_dir)}\n"
            "or pass download=True. If it is in another directory, pass that as data_dir."
        )
    test_split = _test_split(name, builder.info.splits)
    train = _arrays(builder, "train", image_key, label_key, image_size)
    if test_split is None:
        test_split = "held out of train"
        train, test = train.hold_out(round(TEST_FRACTION * len(train)))
    else:
        test = _arrays(builder, test_split, image_key, label_key, image_size)
    return Source(
        name=f"TFDS {builder.info.full_name}",
        train=train,
        test=test,
        class_names=tuple(builder.info.features[label_key].names),
        test_split=test_split,
    )


def fetch_command(name: str, data_dir: str | os.PathLike | None = None) -> str:
    """The shell command that makes TFDS download and prepare a dataset.

    Not the `tfds build` program, which needs Apache Beam, and TFDS does not install that.

    Args:
        name: the dataset's name in TFDS.
        data_dir: the directory to put it in; None for TFDS's default.

    Example:
        >>> print(fetch_command("mnist", "my data"))
        python -c 'import tensorflow_datasets as tfds; tfds.load("mnist", data_dir="my data")'
    """
    arguments = json.dumps(name)
    if data_dir is not None:
        arguments += f", data_dir={json.dumps(_expanded(data_dir))}"
    return "python -c " + shlex.quote(f"import tensorflow_datasets as tfds; tfds.load({arguments})")


def _expanded(data_dir: str | os.PathLike) -> str:
    return os.path.expanduser(os.fspath(data_dir))  # leaves gs://... as it is, pathlib would not


def _check_name(name: str) -> None:
    """Refuses a name that has TFDS run code of a namespace, or read another directory."""
    namespace = re.match(r"[\w.-]+:(?!\d)", name)
    if namespace or "=" in name:
        raise ValueError(
            f"The name of the dataset is {name!r}; expected a name in TFDS without "
            f"{'a namespace' if namespace else 'arguments'}, such as 'mnist', "
            "'imagenet_resized/32x32' or 'cifar10:3.0.2'."
        )


@contextlib.contextmanager
def _no_foreign_imports(tfds: Any, name: str) -> Iterator[None]:
    """Keeps TFDS from importing the module that a `features.json` names.

    Raises:
        ValueError: it is not one of TFDS, and not imported already.
    """
    connector = tfds.features.FeatureConnector
    original = connector.cls_from_name

    def checked(class_name: Any) -> type:
        module = str(class_name).rpartition(".")[0]
        own = module.split(".")[0] == "tensorflow_datasets"
        if not own and module not in sys.modules:
            raise ValueError(
                f"The files of {name!r} would import {class_name!r}: their features.json names a "
                "class that is not of tensorflow_datasets. If you trust it, import its module "
                "first; else take the data from somewhere else."
            )
        return original(class_name)

    with _IMPORTS, mock.patch.object(connector, "cls_from_name", checked):
        yield


def _builder(tfds: Any, name: str, data_dir: str | os.PathLike | None) -> Any:
    options = {} if data_dir is None else {"data_dir": _expanded(data_dir)}
    known = ["digits", "toy", *tfds.list_builders(with_community_datasets=False)]
    try:
        return tfds.builder(name, **options)
    except Exception as error:  # damaged files raise errors of many classes
        unknown = isinstance(error, tfds.core.DatasetNotFoundError) or not _is_name(tfds, name)
        if unknown and re.split("[/:]", name)[0] not in known:
            raise ValueError(f"There is no dataset {name!r}. {_advice(name, known)}") from error
        damaged = _damaged_json(name, data_dir)
        reason = f"{damaged} is damaged. {_MEND}" if damaged else str(error).strip()
        raise ValueError(f"TFDS rejects {name!r}: {reason}") from error


def _damaged_json(name: str, data_dir: str | os.PathLike | None) -> Path | None:
    """A file in the directory of a dataset that is not JSON, though it ought to be."""
    place = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    for path in sorted(Path(_expanded(place), re.split("[/:]", name)[0]).rglob("*.json")):
        try:
            if not isinstance(json.loads(path.read_text("utf-8")), dict):
                return path
        except (ValueError, OSError):
            return path
    return None


def _is_name(tfds: Any, name: str) -> bool:
    try:
        tfds.core.naming.parse_builder_name_kwargs(name)
    except ValueError:
        return False
    return True


def _advice(name: str, known: list[str]) -> str:
    alike = re.sub("[^a-z0-9/:]+", "_", name.lower())
    close = difflib.get_close_matches(alike, known, n=5)
    if close:
        return f"Did you mean {', '.join(close)}?"
    return (
        f"Expected digits or toy, which are embedded, or one of {len(known) - 2} datasets of TFDS, "
        "such as mnist, fashion_mnist, cifar10, cifar100, svhn_cropped."
    )


def _keys(name: str, info: Any, image_size: tuple[int, int] | None) -> tuple[str, str]:
    """The names of the image and of the label among the features."""
    features = dict(info.features.items()) if hasattr(info.features, "items") else {}
    keys = info.supervised_keys if info.supervised_keys is not None else ("image", "label")
    kinds = {key: type(feature).__name__ for key, feature in features.items()}
    found = [kinds.get(key) if isinstance(key, str) else None for key in keys]
    if found != ["Image", "ClassLabel"]:
        listed = (
            ", ".join(f"{key} ({kind})" for key, kind in sorted(kinds.items())) or info.features
        )
        raise ValueError(
            f"{name!r} is not an image classification dataset, which pairs an Image with a "
            f"ClassLabel: its features are {listed}; TFDS pairs {info.supervised_keys}."
        )
    _check_image(name, features[keys[0]], image_size)
    return keys


def _check_image(name: str, image: Any, image_size: tuple[int, int] | None) -> None:
    if (None in image.shape[:2] and image_size is None) or None in image.shape[2:]:
        raise ValueError(
            f"The images of {name!r} vary in size (their shape is {image.shape}); expected images "
            "of one size. Resize them by keras_robust.data.from_tfds(..., image_size=(height, "
            "width))."
        )
    if image.np_dtype != np.uint8:
        raise ValueError(
            f"The images of {name!r} are {np.dtype(image.np_dtype).name}, without a known largest "
            "value; expected uint8. Pass the arrays to keras_robust.data.from_arrays with their "
            "pixel_range."
        )


def _test_split(name: str, splits: Any) -> str | None:
    if "train" not in splits:
        raise ValueError(f"{name!r} has no split 'train'; its splits are {', '.join(splits)}.")
    return next((split for split in ("test", "validation") if split in splits), None)


def _arrays(
    builder: Any,
    split: str,
    image_key: str,
    label_key: str,
    image_size: tuple[int, int] | None,
) -> Arrays:
    count = builder.info.splits[split].num_examples
    try:
        examples = builder.as_dataset(split=split)  # in the order of the files, always the same
        pairs = examples.map(lambda example: (example[image_key], example[label_key]))
        if image_size is not None:
            pairs = pairs.map(lambda image, label: (resized(image, image_size), label))
        whole = pairs.batch(count).get_single_element()
    except tf.errors.OpError as error:
        raise _unreadable(builder.info.splits[split], error) from error
    images, labels = (part.numpy() for part in whole)
    if len(labels) != count:
        raise _unreadable(builder.info.splits[split], None)
    if labels.min() < 0:
        raise ValueError(f"The split {split!r} of {builder.info.name!r} hides its labels (-1).")
    return Arrays(images, labels.astype(np.int32))


def _unreadable(split: Any, error: Exception | None) -> Exception:
    """The error that names the file of a split that is missing or damaged."""
    examples = 0
    for path in split.filepaths:
        if not tf.io.gfile.exists(str(path)):
            return FileNotFoundError(f"The file {path} of the dataset is missing. {_MEND}")
        try:
            for _ in tf.data.TFRecordDataset(str(path)):
                examples += 1
        except tf.errors.OpError as damage:
            what = str(damage.message).rpartition("}} ")[2].partition(" [Op:")[0]
            return ValueError(f"The file {path} is damaged ({what}). {_MEND}")
    folder = os.path.dirname(split.filepaths[0]) if split.filepaths else "the dataset"
    if examples != split.num_examples:
        return ValueError(
            f"The files of the split {split.name!r} in {folder} hold {examples} examples; expected "
            f"{split.num_examples}, as dataset_info.json says. {_MEND}"
        )
    return ValueError(
        f"An example of the split {split.name!r} in {folder} cannot be decoded "
        f"({str(error).splitlines()[0]}). {_MEND}"
    )
