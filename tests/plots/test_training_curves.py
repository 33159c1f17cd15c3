"""Curves over epochs have the given values."""

from __future__ import annotations

import numpy as np
import pytest

from keras_robust.plots import training_curves


def test_epochs_are_counted_from_one():
    axes = training_curves({"_a": [3.0, 2.0], "b": [1.0]}, "dual variable").axes[0]
    first, second = axes.get_lines()
    np.testing.assert_array_equal(first.get_xydata(), [[1, 3.0], [2, 2.0]])
    np.testing.assert_array_equal(second.get_xydata(), [[1, 1.0]])
    assert first.get_color() != second.get_color()
    assert all(tick == int(tick) for tick in axes.get_xticks())
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Epoch", "dual variable")
    assert [t.get_text() for t in axes.figure.legends[0].get_texts()] == [" _a", "b"]


@pytest.mark.parametrize("curves", [{}, {"a": []}])
def test_nothing_to_draw(curves):
    with pytest.raises(ValueError, match="curves has no values"):
        training_curves(curves, "loss")


def test_seeds_are_a_mean_in_a_band():
    seeds = [[3.0, 2.0], [1.0, 4.0], [2.0, 3.0]]
    figure = training_curves({"a": seeds, "b": [1.0, 1.0]}, "lambda")
    axes = figure.axes[0]
    np.testing.assert_allclose(axes.get_lines()[0].get_xydata(), [[1, 2.0], [2, 3.0]])
    (band,) = axes.collections  # of one seed there is none
    corners = band.get_paths()[0].vertices
    for epoch, low, high in ((1, 1.0, 3.0), (2, 2.0, 4.0)):
        heights = corners[corners[:, 0] == epoch, 1]
        assert (heights.min(), heights.max()) == (low, high)
    assert figure.legends[0].get_title().get_text() == "mean, and range of 3 seeds"


def test_seeds_of_other_lengths():
    with pytest.raises(ValueError, match=r"seeds of 'a' have \[1, 2\] epochs"):
        training_curves({"a": [[1.0, 2.0], [1.0]]}, "lambda")
