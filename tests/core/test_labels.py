"""Labels are taken as class numbers, as a column of them, or one-hot, and refused otherwise."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_robust.core.labels import class_numbers

Y = np.array([2, 0, 1, 2])
X = np.zeros((4, 2), "float32")


@pytest.mark.parametrize("form", [lambda y: y, tf.constant, lambda y: y[:, None], list])
@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "int8"])
def test_class_numbers(form, dtype):
    found = class_numbers("Labels", form(Y.astype(dtype)), X, 3)
    assert found.numpy().tolist() == Y.tolist()
    assert found.dtype in (tf.int32, tf.int64)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32", "uint8", "bool"])
def test_one_hot_rows(dtype):
    assert class_numbers("Labels", np.eye(3, dtype=dtype)[Y], X, 3).numpy().tolist() == Y.tolist()
    traced = tf.function(lambda y: class_numbers("Labels", y, X, 3))
    assert traced(np.eye(3, dtype=dtype)[Y]).numpy().tolist() == Y.tolist()


@pytest.mark.parametrize(
    ("y", "error", "text"),
    [
        (Y + 0.9, TypeError, "dtype float64; expected integer class numbers.*one-hot.*argmax"),
        (Y.astype("float32"), TypeError, "dtype float32"),
        (Y[:, None] + 0.0, TypeError, "dtype float64"),
        (Y > 0, TypeError, "dtype bool"),
        (Y[:, None] > 0, TypeError, "dtype bool"),
        (list("abca"), TypeError, "dtype string"),
        (None, TypeError, "Labels are None"),
        ([[0], [1, 2]], TypeError, r"Labels are \[\[0\]"),
        (Y[:3], ValueError, r"shape \(3,\) for images of shape \(4, 2\).*one class number per"),
        (Y[None], ValueError, "expected 3 columns"),
        (np.eye(3)[Y] * 0.9, ValueError, r"shape \(4, 3\) and are not one-hot"),
        (np.ones((4, 3)), ValueError, "not one-hot"),
        (np.zeros((4, 3)), ValueError, "not one-hot"),
        (np.full((4, 3), np.nan), ValueError, "not one-hot"),
        (np.eye(4)[Y], ValueError, "expected 3 columns of one-hot labels"),
        (np.eye(3)[Y][None], TypeError, "dtype float64"),
        (Y[:, None, None], ValueError, r"shape \(4, 1, 1\)"),
        (Y + 1, ValueError, "run from 1 to 3; expected 0 to 2"),
        (Y - 1, ValueError, "run from -1 to 1; expected 0 to 2"),
        (np.array(1), ValueError, r"shape \(\)"),
    ],
)
def test_anything_else_is_refused(y, error, text):
    with pytest.raises(error, match=text):
        class_numbers("Labels", y, X, 3)


def test_rows_that_are_not_one_hot_are_refused_in_a_graph():
    traced = tf.function(lambda y: class_numbers("Labels", y, X, 3))
    with pytest.raises(tf.errors.InvalidArgumentError, match="not one-hot"):
        traced(np.full((4, 3), 1 / 3))
