"""Validation of images and labels."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_robust.data.in_memory import as_tensors, to_unit

IMAGES = np.zeros([3, 4, 5, 2], np.uint8)


def test_bytes_stay_bytes_and_become_255ths():
    images, labels = as_tensors(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1), [7])
    assert images.dtype == tf.uint8 and labels.dtype == tf.int32
    np.testing.assert_array_equal(
        to_unit(images).numpy().ravel(), np.arange(256, dtype=np.float32) / np.float32(255)
    )


def test_floats_are_taken_as_they_are():
    given = np.linspace(0, 1, 60).reshape(3, 4, 5, 1)
    images, _ = as_tensors(given, np.zeros(3, np.int64))
    np.testing.assert_array_equal(to_unit(images).numpy(), given.astype(np.float32))


def test_tensors_of_the_right_kind_are_not_copied():
    given = tf.constant(IMAGES), tf.constant([0, 1, 2])
    images, labels = as_tensors(*given)
    assert images is given[0] and labels is given[1]


@pytest.mark.parametrize(
    ("images", "labels", "text"),
    [
        (IMAGES[0], [0], r"shape \[4, 5, 2\]; expected .* Grayscale images"),
        (IMAGES[:0], [], r"shape \[0, 4, 5, 2\]; expected .*not empty"),
        (IMAGES, [0, 1], r"labels have shape \(2,\) for images of shape \(3, 4, 5, 2\); expected"),
        (IMAGES, np.ones((3, 3)), r"labels have shape \(3, 3\) and are not one-hot"),
        (IMAGES, [0, 1, -1], "labels run from -1 to 1; expected class numbers >= 0"),
        (IMAGES.astype(np.int64), [0, 1, 2], "images are int64; expected uint8, or floating"),
        (IMAGES + 255.0, [0, 1, 2], "values from 255 to 255; expected .*Divide by"),
        (IMAGES - 0.5, [0, 1, 2], "values from -0.5 to -0.5"),
        (IMAGES * np.nan, [0, 1, 2], "values from nan to nan"),
        (IMAGES + 1.0001, [0, 1, 2], r"values from 1\.0001 to 1\.0001"),
        (IMAGES - np.float32(2e-6), [0, 1, 2], "values from -1.99999"),
        (IMAGES + np.float16(1.01), [0, 1, 2], r"values from 1\.0097"),
    ],
)
def test_invalid_arrays(images, labels, text):
    with pytest.raises(ValueError, match=text):
        as_tensors(images, labels)


@pytest.mark.parametrize(
    "labels",
    [
        [2, 0, 1],
        [[2], [0], [1]],
        tf.constant([[2], [0], [1]]),
        np.eye(3)[[2, 0, 1]],
        np.array([2, 0, 1], np.uint8),
    ],
)
def test_labels_in_the_forms_of_keras(labels):
    assert as_tensors(IMAGES, labels)[1].numpy().tolist() == [2, 0, 1]


@pytest.mark.parametrize("labels", [[0.9, 1.9, 2.9], [True, False, True], ["a", "b", "c"]])
def test_labels_that_are_not_class_numbers(labels):
    with pytest.raises(TypeError, match=r"labels .* expected integer class numbers"):
        as_tensors(IMAGES, labels)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_rounding_outside_the_range_is_clipped(dtype):
    resized = tf.image.resize(tf.ones([3, 28, 28, 1]), [20, 28], antialias=True)
    assert float(tf.reduce_max(resized)) > 1
    one = tf.cast(1 + 2.0**-7 if dtype == "bfloat16" else 1 + 2.0**-10, dtype)
    half = tf.fill([3, 20, 28, 1], one)
    given = tf.cast(resized, dtype) if dtype in ("float32", "float64") else half
    for images in (given, given.numpy(), 1 - given):
        taken, _ = as_tensors(images, [0, 1, 2])
        assert taken.dtype == tf.float32
        assert float(tf.reduce_min(taken)) >= 0 and float(tf.reduce_max(taken)) <= 1
