"""Reading a user's own images from an `.npz` file, or from a folder."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_robust.cli.data_file import read_data_file, read_image_folder

IMAGES = np.linspace(0, 1, 5 * 4 * 4, dtype=np.float32).reshape(5, 4, 4, 1)
LABELS = np.arange(5)


def read(tmp_path, classes=5, **arrays):
    np.savez(tmp_path / "images.npz", **arrays)
    return read_data_file(tmp_path / "images.npz", classes, batch_size=3)


def first(dataset):
    return tuple(part.numpy() for part in next(iter(dataset)))


@pytest.mark.parametrize("names", [("x", "y"), ("images", "labels"), ("x_test", "y_test")])
def test_images_and_labels(tmp_path, names):
    splits = read(tmp_path, **dict(zip(names, (IMAGES, LABELS), strict=True)))
    images, labels = first(splits.test)
    np.testing.assert_array_equal(images, IMAGES[:3])
    np.testing.assert_array_equal(labels, LABELS[:3])
    assert splits.validation is None
    assert splits.info.name == "images.npz"
    assert (splits.info.classes, splits.info.image_shape) == (5, (4, 4, 1))
    assert (splits.info.train_size, splits.info.test_size) == (0, 5)
    assert splits.info.class_names == ("0", "1", "2", "3", "4")
    assert not list(splits.train)
    with pytest.raises(ValueError, match="no training examples"):
        splits.stream(start_step=1)


def test_gray_images_of_8_bits_and_labels_of_two_axes(tmp_path):
    pixels = np.rint(IMAGES[..., 0] * 255).astype(np.uint8)
    images, labels = first(read(tmp_path, x=pixels, y=LABELS[:, None]).test)
    np.testing.assert_allclose(images[..., 0], pixels[:3] / 255, atol=1e-6)
    np.testing.assert_array_equal(labels, LABELS[:3])


def test_validation_images_and_names_of_classes(tmp_path):
    names = np.array(["a", "b", "c", "d", "e"])
    splits = read(tmp_path, x=IMAGES, y=LABELS, x_validation=IMAGES[1:], class_names=names)
    np.testing.assert_array_equal(first(splits.validation)[0], IMAGES[1:4])
    assert splits.info.validation_size == 4
    assert splits.info.class_names == tuple("abcde")


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x": IMAGES[:0], "y": LABELS[:0]}, r"have shape \[0, 4, 4, 1\]; expected .*, not empty"),
        ({"y": LABELS}, "has no array named x or images or x_test"),
        ({"x": IMAGES}, "has no array named y or labels or y_test"),
        (
            {"x": IMAGES[0, 0], "y": LABELS},
            r"images.npz: images have shape \[4, 1\]; expected \[size, he",
        ),
        ({"x": IMAGES, "y": LABELS / 2}, "labels of type float64"),
        ({"x": IMAGES, "y": np.ones((5, 5))}, r"shape \[5, 5\]; expected one class number"),
        ({"x": IMAGES, "y": LABELS + 1}, "the label 5; the model has the classes 0 to 4"),
        ({"x": IMAGES, "y": LABELS[:2]}, "labels"),
        ({"x": IMAGES + 1, "y": LABELS}, "Divide by"),
        ({"x": IMAGES, "y": LABELS, "class_names": np.array(["a"])}, "1 class names; the model"),
        ({"x": np.array([{}], object), "y": LABELS}, "is not an .npz file of numeric arrays"),
    ],
)
def test_invalid_files(tmp_path, arrays, says):
    with pytest.raises(ValueError, match=says):
        read(tmp_path, **arrays)


def test_files_of_another_kind(tmp_path):
    path = tmp_path / "images.npz"
    with pytest.raises(FileNotFoundError, match=r"images.npz does not exist; expected an .npz"):
        read_data_file(path, 5, 3)
    for content in (b"", b"junk", b"PK junk"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is not an .npz file of numeric arrays"):
            read_data_file(path, 5, 3)
    with path.open("wb") as file:
        np.save(file, IMAGES)
    with pytest.raises(ValueError, match="is not an .npz file of numeric arrays"):
        read_data_file(path, 5, 3)


def test_a_folder_of_images(tmp_path):
    notes = []
    for kind, value, side in (("cat", 51, 4), ("dog", 102, 8)):
        pixels = tf.fill([side, side, 3], tf.constant(value, tf.uint8))
        for split in ("test", "validation"):
            (tmp_path / split / kind).mkdir(parents=True)
            tf.io.write_file(str(tmp_path / split / kind / "1.png"), tf.io.encode_png(pixels))
    splits = read_image_folder(tmp_path, (4, 4, 1), 8, ["dog", "cat"], notes.append)
    ((images, labels),) = splits.test
    np.testing.assert_allclose(images[:, 0, 0, 0], [0.4, 0.2], atol=1e-6)
    assert images.shape == (2, 4, 4, 1) and labels.numpy().tolist() == [0, 1]
    assert splits.info.class_names == ("dog", "cat") and splits.info.validation_size == 2
    assert notes == [f"2 images of {tmp_path}, such as 1.png, are resized to 4 x 4 pixels."]
    (tmp_path / "test").rename(tmp_path / "train")
    with pytest.raises(ValueError, match="none of test images, 'test'"):
        read_image_folder(tmp_path, (4, 4, 1), 8, None, notes.append)
