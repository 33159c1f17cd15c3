"""From a name to batches."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

import keras_robust.data as data

SHARED = pathlib.Path(__file__).parents[3] / "shared" / "tensorflow_datasets"


def everything(dataset):
    images, labels = zip(*dataset.as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def test_digits_in_three_parts():
    train, validation, test = splits = data.load("digits", batch_size=100)
    assert splits.info == data.DatasetInfo(
        name="digits",
        source="scikit-learn load_digits",
        image_shape=(8, 8, 1),
        classes=10,
        class_names=tuple("0123456789"),
        train_size=1293,
        validation_size=144,
        test_size=360,
        test_split="held out of all examples",
    )
    assert [len(part) for part in splits] == [12, 2, 4]
    for part in (train, validation, test):
        x, y = part.element_spec
        assert x.dtype == tf.float32 and y.dtype == tf.int32 and x.shape[1:] == (8, 8, 1)
    images, labels = everything(test)
    assert images.shape == (360, 8, 8, 1) and np.bincount(labels, minlength=10).min() >= 34
    assert images.min() == 0 and images.max() == 1
    assert json.loads(json.dumps(dataclasses.asdict(splits.info)))["classes"] == 10


def test_validation_is_out_of_training_and_the_same_for_every_seed():
    def parts(seed):
        splits = data.load("digits", batch_size=1293, seed=seed)
        return [{x.tobytes() for x in everything(part)[0]} for part in splits]

    train, validation, test = parts(0)
    assert not train & validation and not train & test and not validation & test
    assert parts(1) == [train, validation, test]


def test_validation_is_stratified():
    _, labels = everything(data.load("digits", validation=100).validation)
    assert len(labels) == 100 and set(np.bincount(labels)) <= {9, 10, 11}


@pytest.mark.parametrize("validation", [0, 0.0])
def test_no_validation(validation):
    train, validation_batches, test = data.load("digits", validation=validation)
    assert validation_batches is None and len(train) == 1437 // 128 and len(test) == 3


def test_a_limit_is_stratified_and_validation_is_taken_from_it():
    part = data.load("digits", limit=200, validation=50)
    assert (part.info.train_size, part.info.validation_size, part.info.test_size) == (150, 50, 360)
    labels = np.concatenate([y for _, y in [*part.stream(start_step=0).take(1), *part.validation]])
    everything = data.load("digits", limit=10_000, validation=0)
    assert everything.info.train_size == 1437
    assert set(labels) == set(range(10))
    with pytest.raises(ValueError, match="limit is 0; expected an integer >= 1"):
        data.load("digits", limit=0)


def test_the_stream_equals_train():
    augment = data.pad_crop_flip(2, flip=False)
    splits = data.load("digits", 50, limit=200, seed=5, augment=augment)
    passes = [batch for _ in range(2) for batch in splits.train.as_numpy_iterator()]
    tail = list(splits.stream(start_step=2).take(4).as_numpy_iterator())
    assert len(passes) == 6
    for (x, y), (x_stream, y_stream) in zip(passes[2:], tail, strict=True):
        np.testing.assert_array_equal(x, x_stream)
        np.testing.assert_array_equal(y, y_stream)


def test_only_training_images_are_augmented():
    plain, augmented = (
        data.load("digits", 50, limit=200, augment=augment) for augment in (None, data.shift_flip())
    )
    for part in ("validation", "test"):
        same = everything(getattr(plain, part)), everything(getattr(augmented, part))
        np.testing.assert_array_equal(same[0][0], same[1][0])
    assert not np.array_equal(everything(plain.train)[0], everything(augmented.train)[0])


def test_the_printed_form_is_short():
    assert "stream" not in repr(data.load("digits")) and len(repr(data.load("digits"))) < 1200


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"name": None}, "name is None; expected 'digits' or a name in TFDS, such as 'mnist'"),
        ({"batch_size": 0}, "batch_size is 0; expected an integer >= 1"),
        ({"batch_size": 1294}, "batch_size is 1294; expected at most 1293, the number of"),
        ({"validation": 1.0}, r"validation is 1.0; expected a number in \[0, 1\), or an integer"),
        ({"seed": "x"}, "seed is 'x'; expected an integer"),
        ({"augment": "flip"}, "augment is 'flip'; expected a function"),
    ],
)
def test_invalid_arguments(arguments, text):
    with pytest.raises(ValueError, match=text):
        data.load(**{"name": "digits", **arguments})


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "mnist").exists(), reason="MNIST is not in the shared folder")
def test_real_mnist():
    splits = data.load("mnist", data_dir=SHARED, validation=5000)
    info = splits.info
    assert (info.train_size, info.validation_size, info.test_size) == (55_000, 5_000, 10_000)
    assert info.image_shape == (28, 28, 1) and info.source.startswith("TFDS mnist/")
    images, labels = everything(splits.test)
    assert np.bincount(labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert round(float(images.mean(dtype=np.float64)), 4) == 0.1325
    assert len(splits.train) == 55_000 // 128


@pytest.mark.slow
@pytest.mark.skipif(
    not (SHARED / "cifar10").exists(), reason="CIFAR-10 is not in the shared folder"
)
def test_real_cifar10():
    splits = data.load("cifar10", data_dir=SHARED)
    assert splits.info.image_shape == (32, 32, 3) and splits.info.class_names[3] == "cat"
    assert np.bincount(everything(splits.validation)[1]).tolist() == [500] * 10
    assert np.bincount(everything(splits.test)[1]).tolist() == [1000] * 10
