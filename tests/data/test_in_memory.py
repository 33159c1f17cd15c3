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
        (IMAGES, [0, 1], r"labels are int64 of shape \[2\]; expected .*the 3 images"),
        (IMAGES, np.eye(3), r"labels are float64 of shape \[3, 3\]"),
        (IMAGES, [0, 1, -1], "labels include -1; expected non-negative"),
        (IMAGES.astype(np.int64), [0, 1, 2], "images are int64; expected uint8, or floating"),
        (IMAGES + 255.0, [0, 1, 2], "values from 255 to 255; expected .*Divide by"),
        (IMAGES - 0.5, [0, 1, 2], "values from -0.5 to -0.5"),
        (IMAGES * np.nan, [0, 1, 2], "values from nan to nan"),
    ],
)
def test_invalid_arrays(images, labels, text):
    with pytest.raises(ValueError, match=text):
        as_tensors(images, labels)
