"""Series have the given points and bands."""

from __future__ import annotations

import numpy as np
import pytest

from keras_robust.plots import series


def test_points_are_joined_in_their_order_and_bands_have_the_ends():
    curves = {"a": ([0.2, 0.1], [0.5, 0.7]), "b": ([0.3], [0.4])}
    axes = series(curves, "tau", "accuracy", intervals={"a": [(0.4, 0.6), (0.65, 0.75)]}).axes[0]
    first, second = axes.get_lines()
    np.testing.assert_array_equal(first.get_xydata(), [[0.2, 0.5], [0.1, 0.7]])
    np.testing.assert_array_equal(second.get_xydata(), [[0.3, 0.4]])
    (band,) = axes.collections
    corners = {tuple(corner) for corner in band.get_paths()[0].vertices.round(6)}
    assert {(0.2, 0.4), (0.2, 0.6), (0.1, 0.65), (0.1, 0.75)} <= corners
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("tau", "accuracy")


@pytest.mark.parametrize(
    ("curves", "intervals", "message"),
    [
        ({}, None, "curves is empty"),
        ({"a": ([1.0], [])}, None, "'a' has 1 x, 0 y"),
        ({"a": ([], [])}, None, "at least one"),
        ({"a": ([1.0], [1.0])}, {"a": []}, "0 intervals"),
    ],
)
def test_lengths_that_differ_are_refused(curves, intervals, message):
    with pytest.raises(ValueError, match=message):
        series(curves, "x", "y", intervals=intervals)
