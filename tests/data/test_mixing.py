"""MixUp and CutMix: images and shares recomputed from what they return."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_robust.data import cutmix, mixup

COUNT, HEIGHT, WIDTH = 64, 10, 14
# The value of each pixel names its image, and the label too.
X = np.broadcast_to(np.arange(COUNT)[:, None, None, None] / COUNT, (COUNT, HEIGHT, WIDTH, 1))
X = np.ascontiguousarray(X, "float32")
Y = tf.range(COUNT)


def drawn(mixing, seed):
    function = tf.function(mixing)
    return [part.numpy() for part in function(tf.constant(X), Y, tf.constant([0, seed]))]


def test_mixup_is_the_weighted_mean_of_an_image_and_another():
    x, labels, others, shares = drawn(mixup(), 1)
    expected = shares * X[:, 0, 0, 0] + (1 - shares) * X[others, 0, 0, 0]
    np.testing.assert_allclose(
        x, np.broadcast_to(expected[:, None, None, None], x.shape), atol=1e-6
    )
    np.testing.assert_array_equal(labels, Y)
    assert sorted(others) == list(range(COUNT))  # a permutation
    assert shares.min() >= 0.5 and shares.max() <= 1 and len(set(shares)) == COUNT


def test_cutmix_replaces_a_rectangle_whose_pixels_are_counted():
    x, labels, others, shares = drawn(cutmix(), 2)
    swapped = 0
    for i in range(COUNT):
        own = x[i, :, :, 0] == X[i, 0, 0, 0]
        partner = others[i] if labels[i] == i else labels[i]
        swapped += labels[i] != i
        assert np.all(own | (x[i, :, :, 0] == X[partner, 0, 0, 0]))
        rows, columns = np.where((~own).any(axis=1))[0], np.where((~own).any(axis=0))[0]
        if len(rows):  # all of the rectangle, and nothing else
            assert not own[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].any()
        if partner != i:
            share = own.mean()
            assert shares[i] == pytest.approx(max(share, 1 - share), abs=1e-6)
            assert (labels[i] == i) == (share >= 0.5)
    assert 0 < swapped < COUNT / 2 and shares.min() >= 0.5


@pytest.mark.parametrize("alpha", [0.01, 0.2, 1.0, 5.0])
def test_shares_have_the_moments_of_their_distribution(alpha):
    """E (2 s - 1)^2 = 4 Var s = 1 / (2 alpha + 1) of Beta(alpha, alpha), and of the larger part."""
    x = tf.zeros([4000, 1, 1, 1])
    _, _, _, shares = mixup(alpha)(x, tf.zeros([4000], tf.int32), tf.constant([0, 3]))
    spread = np.square(2 * shares.numpy() - 1)
    tolerance = 4 * spread.std() / np.sqrt(4000) + 1e-6
    assert spread.mean() == pytest.approx(1 / (2 * alpha + 1), abs=tolerance)
    assert np.isfinite(shares).all()


@pytest.mark.parametrize("mixing", [mixup(), cutmix()])
def test_the_seed_decides(mixing):
    for one, two in zip(drawn(mixing, 4), drawn(mixing, 4), strict=True):
        np.testing.assert_array_equal(one, two)
    assert np.any(drawn(mixing, 4)[0] != drawn(mixing, 5)[0])


@pytest.mark.parametrize("mixing", [mixup, cutmix])
@pytest.mark.parametrize("alpha", [0, -1, float("nan"), "1"])
def test_alpha_is_positive(mixing, alpha):
    with pytest.raises(ValueError, match=f"{mixing.__name__}: alpha is .*expected a finite"):
        mixing(alpha)


def test_cutmix_needs_images():
    with pytest.raises(
        ValueError, match=r"images have shape \(3, 4\); expected \[batch, h, w, c\]"
    ):
        cutmix()(tf.zeros([3, 4]), tf.zeros([3], tf.int32), tf.constant([0, 1]))
