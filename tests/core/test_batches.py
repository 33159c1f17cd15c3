"""One reader takes every form of data that `fit` takes, and refuses the rest in a sentence."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_robust.core.batches import read_batches

X, Y = np.arange(28, dtype="float32").reshape(7, 2, 2) / 28, np.arange(7) % 3
SLICES = tf.data.Dataset.from_tensor_slices
BATCHES = [(X[:3], Y[:3]), (X[3:6], Y[3:6]), (X[6:], Y[6:])]


class Batches(keras.utils.PyDataset):
    def __init__(self, *parts, length=3):
        super().__init__()
        self.parts, self.length = parts, length

    @property
    def num_batches(self):
        return self.length

    def __getitem__(self, number):
        number = number % 3
        return tuple(part[3 * number : 3 * number + 3] for part in self.parts)


FORMS = {
    "data set": SLICES((X, Y)).batch(3),
    "data set with weights": SLICES((X, Y, np.ones(7))).batch(3),
    "data set of columns": SLICES((X, Y[:, None])).batch(3),
    "data set of one-hot rows": SLICES((X, np.eye(3)[Y])).batch(3),
    "dictionaries": SLICES({"image": X, "label": Y}).batch(3),
    "dictionaries with more": SLICES({"id": Y, "image": X, "label": Y}).batch(3),
    "dictionary of arrays": {"image": X, "label": Y},
    "endless but cut": SLICES((X, Y)).batch(3).repeat().take(3),
    "PyDataset": Batches(X, Y),
    "PyDataset with weights": Batches(X, Y, np.ones(7)),
    "generator": lambda: (batch for batch in BATCHES),
    "generator of dictionaries": lambda: ({"image": x, "label": y} for x, y in BATCHES),
    "list of batches": BATCHES,
    "tuple of batches": tuple(BATCHES),
    "list of lists": [list(batch) for batch in BATCHES],
    "list of tensors": [(tf.constant(x), tf.constant(y)) for x, y in BATCHES],
    "pair": (X, Y),
    "pair in a list": [X, Y],
    "pair of tensors": (tf.constant(X), tf.constant(Y)),
    "triple": (X, Y, np.ones(7)),
    "pair of lists": (X.tolist(), Y.tolist()),
    "pair with columns": (X, Y[:, None]),
    "pair with one-hot rows": (X, np.eye(3)[Y]),
    "iterator": lambda: iter(SLICES((X, Y)).batch(3)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("labels", [True, False])
def test_every_form_gives_the_same(form, labels):
    data = FORMS[form]
    found = list(read_batches(data() if callable(data) else data, None, 3, labels=labels))
    assert [len(x) for x, _ in found] == [3, 3, 1]
    np.testing.assert_allclose(np.concatenate([x for x, _ in found]), X)
    if labels:
        found_labels = np.concatenate([y for _, y in found])
        assert found_labels.dtype == np.int64 and found_labels.tolist() == Y.tolist()
    else:
        assert all(y is None for _, y in found)


def test_two_batches_are_not_a_pair():
    for two in (BATCHES[:2], tuple(BATCHES[:2]), [list(batch) for batch in BATCHES[:2]]):
        assert [len(y) for _, y in read_batches(two)] == [3, 3]
    assert [len(y) for _, y in read_batches(BATCHES[:1])] == [3]


@pytest.mark.parametrize("data", [[X[:3], X[3:]], [X], SLICES(X).batch(4), (x for x in [X])])
def test_without_labels_batches_may_be_images(data):
    assert sum(len(x) for x, _ in read_batches(data, labels=False)) == 7


@pytest.mark.parametrize("limit", [1, 3, 8])
def test_endless_data_with_a_limit(limit):
    def endless():
        while True:
            yield X, Y

    for data in (SLICES((X, Y)).batch(7).repeat(), endless(), Batches(X, Y, length=None)):
        assert sum(len(y) for _, y in read_batches(data, limit)) == limit


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        (SLICES((X, Y)).batch(3).repeat(), ValueError, "infinite dataset.*take.*limit"),
        (Batches(X, Y, length=None), ValueError, "PyDataset has no length"),
        (SLICES((X, Y)), ValueError, r"not in batches.*\(2, 2\).*\(\).*Call `data.batch"),
        (SLICES({"image": X, "label": Y}), ValueError, "not in batches"),
        (zip(X, Y, strict=True), ValueError, "not in batches"),
        (list(zip(X, Y, strict=True)), ValueError, "not in batches"),
        (SLICES(X).batch(3), ValueError, r"no labels: a batch is an array of shape \(3, 2, 2\)"),
        (SLICES((X,)).batch(3), ValueError, "no labels"),
        ([X], ValueError, "no labels"),
        (SLICES({"image": X}).batch(3), ValueError, r"keys \['image'\]; expected 'image' and"),
        ({"a": X, "b": Y}, ValueError, r"keys \['a', 'b'\]"),
        (X, TypeError, r"array of shape \(7, 2, 2\), without labels; expected batches of"),
        (tf.constant(X), TypeError, "without labels"),
        (None, TypeError, "The data is None; expected batches"),
        (3, TypeError, "The data is 3"),
        ("mnist", TypeError, "The data is 'mnist'"),
        ([], ValueError, "data set is empty; expected batches of"),
        ((), ValueError, "data set is empty"),
        ((x for x in []), ValueError, "data set is empty"),
        ((X, Y[:3]), ValueError, "7 images and 3 labels"),
        ([(X, Y[:3])], ValueError, "7 images and 3 labels"),
        ((X[:0], Y[:0]), ValueError, "0 images and 0 labels"),
        ([(X, Y, Y, Y)], ValueError, "has 4 parts"),
        ((X, Y + 0.9), TypeError, "Labels have dtype float64; expected integer class numbers"),
        ((X, Y > 1), TypeError, "dtype bool"),
        ((X, np.full((7, 3), 1 / 3)), ValueError, "not one-hot"),
        ((X, -Y), ValueError, "run from -2 to 0"),
        ([(X, Y), (X[:, :1], Y)], ValueError, r"shapes \(2, 2\) and \(1, 2\); expected one"),
        ([({"a": X}, Y)], TypeError, "images of a batch are a dictionary of a"),
        ([(["a", "b"], [0, 1])], TypeError, "images of a batch are"),
        ([(X, ["a"] * 7)], TypeError, "labels of a batch are"),
        ([1, 2, 3, 4], ValueError, "no labels"),
        ((3, 4), ValueError, "shapes"),
    ],
)
def test_anything_else_is_refused_in_a_sentence(data, error, text):
    with pytest.raises(error, match=text):
        list(read_batches(data))


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "3"])
def test_bad_limits(limit):
    with pytest.raises(ValueError, match="limit is"):
        list(read_batches((X, Y), limit))
