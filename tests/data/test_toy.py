"""The toy problem in the plane."""

from __future__ import annotations

import numpy as np
import pytest

import keras_robust as kr
from keras_robust.data import toy
from trainers.recipes import toy as recipe


def test_clusters_are_where_the_thesis_puts_them():
    """Within four standard errors of their means, and of their variance."""
    source = toy.read()
    points, labels = toy.to_plane(source.train.images), source.train.labels
    assert np.bincount(labels).tolist() == [1100, 9900]
    # Drawn one after the other: 10 %, 50 % and 40 % of 11,000.
    for part, center in zip(np.split(points, [1100, 6600]), [-2, 2, 6], strict=True):
        error = 4 * np.sqrt(0.5 / len(part))
        np.testing.assert_allclose(part.mean(0), [center, 0], atol=error)
        np.testing.assert_allclose(part.var(0), 0.5, atol=4 * 0.5 * np.sqrt(2 / len(part)))


def test_no_point_is_near_the_range_of_an_image():
    """So that an attack of radius 2, and steps beyond it, is limited by its own ball alone."""
    source = toy.read()
    for part in (source.train, source.test):
        assert part.images.min() > 2.5 / toy.SIDE and part.images.max() < 1 - 2.5 / toy.SIDE


def test_the_plane_and_the_images_are_one():
    points = np.array([[-2.0, 0.0], [6.5, 1.25]])
    np.testing.assert_allclose(toy.to_plane(toy.to_image(points)), points, atol=1e-5)
    assert (toy.SIDE, toy.OFFSET) == (recipe.SIDE, recipe.OFFSET)


def test_it_is_loaded_by_its_name():
    splits = kr.data.load("toy", validation=1000)
    assert (splits.info.train_size, splits.info.test_size) == (10_000, 2_000)
    assert splits.info.class_names == ("A", "B")
    with pytest.raises(ValueError, match="Did you mean toy"):
        kr.data.load("toi")


def test_another_draw_has_other_points_from_the_same_clusters():
    first, again, other = (kr.data.load(f"toy/{draw}").test for draw in (0, 0, 1))
    (x, y), (same, _), (others, labels) = (next(iter(one)) for one in (first, again, other))
    np.testing.assert_array_equal(x, same)
    np.testing.assert_array_equal(y, labels)
    assert (np.asarray(x) != np.asarray(others)).any()
    assert (np.asarray(x) != np.asarray(next(iter(kr.data.load("toy").test))[0])).any()
    with pytest.raises(ValueError, match="name is 'toy/x'; expected the number of a draw"):
        kr.data.load("toy/x")
