"""The embedded digits."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from keras_robust.data import digits


def test_pixels_are_sixteenths_and_nothing_is_lost():
    source = digits.read()
    images = np.concatenate([source.train.images, source.test.images])
    labels = np.concatenate([source.train.labels, source.test.labels])
    assert images.shape == (1797, 8, 8, 1) and images.dtype == np.float32
    bunch = load_digits()

    def rows(images, labels):
        flat = np.column_stack([images.reshape(len(images), -1), labels])
        return flat[np.lexsort(flat.T)]

    np.testing.assert_array_equal(rows(images * 16, labels), rows(bunch.images, bunch.target))


def test_the_split_is_stratified_and_fixed():
    """A fifth of each class, within one example; the drawn rows never change."""
    source = digits.read()
    assert len(source.train) == 1437 and len(source.test) == 360
    everything = np.bincount(load_digits().target)
    assert np.all(np.abs(np.bincount(source.test.labels) - everything * 360 / 1797) < 1)
    assert source.test.labels[:12].tolist() == [3, 7, 3, 9, 0, 8, 7, 0, 8, 0, 3, 3]
    assert int(source.test.images.sum() * 16) == 111717
    assert source.class_names == tuple("0123456789")
