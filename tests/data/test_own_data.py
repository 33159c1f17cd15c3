"""Images of one's own: arrays, folders of image files, and datasets of varying sizes in TFDS."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust.data as data

X = np.arange(40 * 4 * 4, dtype=np.uint8).reshape(40, 4, 4)  # wraps around
Y = np.arange(40) % 4


def everything(dataset):
    images, labels = zip(*dataset.as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def write_png(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    tf.io.write_file(str(path), tf.io.encode_png(np.asarray(pixels, np.uint8)))


@pytest.mark.parametrize(
    ("images", "pixel_range"),
    [
        (X, (0, 1)),  # bytes are of 0 to 255 in any case
        (X.astype(np.int64), (0, 1)),
        (X[..., None].astype(np.float32), (0, 255)),
        (X / 255, (0, 1)),
        (X / 127.5 - 1, (-1, 1)),
    ],
)
def test_arrays_of_any_range_become_the_same_images(images, pixel_range):
    splits = data.from_arrays((images, Y), (images, Y), batch_size=8, pixel_range=pixel_range)
    x, y = everything(splits.test)
    assert x.dtype == np.float32 and x.shape == (40, 4, 4, 1)
    np.testing.assert_allclose(x[..., 0], X / 255, atol=1e-6)
    np.testing.assert_array_equal(y, Y)
    assert (splits.info.classes, splits.info.image_shape) == (4, (4, 4, 1))


def test_parts_of_arrays():
    splits = data.from_arrays((X, Y), validation=8, batch_size=8, class_names="abcd")
    info = splits.info
    assert (info.train_size, info.validation_size, info.test_size) == (24, 8, 8)
    assert info.test_split == "held out of train" and info.class_names == tuple("abcd")
    sizes = [len(everything(part)[1]) for part in splits]
    assert sizes == [24, 8, 8]
    given = data.from_arrays((X, Y), (X[:5], Y[:5]), validation=(X[5:15], Y[5:15]), batch_size=8)
    assert (given.info.train_size, given.info.validation_size, given.info.test_size) == (40, 10, 5)
    np.testing.assert_array_equal(everything(given.validation)[1], Y[5:15])


def test_what_keras_datasets_return(monkeypatch):
    """Pairs of bytes and labels in a column."""
    pair = (np.repeat(X[..., None], 3, -1), Y[:, None].astype(np.uint8))
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: (pair, pair))
    splits = data.from_arrays(*keras.datasets.cifar10.load_data(), batch_size=8, limit=16)
    assert splits.info.image_shape == (4, 4, 3) and splits.info.train_size == 14


@pytest.mark.parametrize(
    ("images", "options", "says"),
    [
        (X.astype(np.float32), {}, r"train images have values from 0 to 255; .*=\(0, 255\)\."),
        (X / 127.5 - 1, {}, r"values from -1 to 1; expected 0 to 1. .*=\(-1, 1\)"),
        (X * np.float32("nan"), {}, "values from nan to nan"),
        (X.astype(int) + 1, {}, "integers from 1 to 256; expected 0 to 255"),
        (X[0], {}, r"shape \[4, 4\]; expected \[size, height"),
        ([[[[1]]], [[[1], [2]]]], {}, "vary in size"),
        (X, {"class_names": ["a"]}, "class_names has 1 names, but there is a label 3"),
        (X, {"pixel_range": (1, 0)}, r"pixel_range is \(1, 0\)"),
        (X, {"test": (X[:, :2], Y)}, r"shape \(4, 4, 1\), others \(2, 4, 1\)"),
        (X, {"test": X}, r"test is ndarray of 40; expected a pair"),
        (X, {"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_arrays_that_are_refused_in_one_sentence(images, options, says):
    with pytest.raises(ValueError, match=says) as caught:
        data.from_arrays((images, Y), **options)
    assert "\n" not in str(caught.value)


@pytest.fixture
def folder(tmp_path):
    """Two classes of three images, and files that are none."""
    for number in range(3):
        write_png(tmp_path / "cat" / f"{number}.png", np.full((4, 6, 3), number))
        write_png(tmp_path / "dog" / f"{number}.PNG", np.full((4, 6, 3), 100 + number))
    (tmp_path / "dog" / "notes.txt").write_text("of the photographer")
    (tmp_path / ".cache").mkdir()
    return tmp_path


def test_a_folder(folder):
    splits = data.from_directory(folder, validation=0, batch_size=2)
    assert splits.info.class_names == ("cat", "dog") and splits.info.image_shape == (4, 6, 3)
    assert (splits.info.train_size, splits.info.test_size) == (5, 1)
    x, y = everything(splits.test)
    assert x[0, 0, 0, 0] * 255 == pytest.approx(100 * y[0], abs=2.1)


def test_a_folder_of_splits(folder, tmp_path_factory):
    whole = tmp_path_factory.mktemp("whole")
    for split in ("train", "val", "test"):
        write_png(whole / split / "cat" / "0.png", np.full((4, 4, 1), 51))
        if split == "train":
            write_png(whole / split / "dog" / "0.png", np.full((4, 4, 1), 255))
    splits = data.from_directory(whole, batch_size=2)
    assert [len(everything(part)[1]) for part in splits] == [2, 1, 1]
    np.testing.assert_allclose(everything(splits.test)[0], np.full((1, 4, 4, 1), 0.2))


def test_sizes_and_channels(folder):
    write_png(folder / "dog" / "3.png", np.full((8, 8, 3), 100))
    with pytest.raises(ValueError, match=r"3.png has 8 x 8 pixels, .*0.png has 4 x 6; .*image_siz"):
        data.from_directory(folder)
    options = {"channels": 1, "class_names": ["dog", "cat"], "batch_size": 2}
    splits = data.from_directory(folder, image_size=5, **options)
    assert splits.info.image_shape == (5, 5, 1)
    x, y = everything(splits.test)
    assert {round(float(image.max()) * 255) for image in x[y == 0]} <= {100, 101, 102}


def test_folders_that_are_refused(folder, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(FileNotFoundError, match="There is no folder .*nowhere"):
        data.from_directory(empty / "nowhere")
    with pytest.raises(ValueError, match=r"has no subfolders; expected one for each class"):
        data.from_directory(empty)
    with pytest.raises(ValueError, match=r"subfolder 'dog', which is not a class.* mean 'dogs'"):
        data.from_directory(folder, class_names=["cat", "dogs"])
    with pytest.raises(ValueError, match="image_size is 0"):
        data.from_directory(folder, image_size=0)
    (folder / "dog" / "broken.png").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"broken.png is not an image that can be decoded"):
        data.from_directory(folder)
    (empty / "cat").mkdir()
    with pytest.raises(ValueError, match="has no images; expected files .png"):
        data.from_directory(empty)
