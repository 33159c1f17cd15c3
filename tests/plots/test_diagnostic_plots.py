"""Plots of diagnostics: pairs and gradients."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex

from keras_robust.plots import contrast_pairs, gradient_histogram
from keras_robust.plots.style import ATTACKED, CLEAN


def test_pairs_of_an_anchor():
    """The anchor, at most two positives, and one negative; attacked images have another edge."""
    views = np.linspace(0, 1, 5)[:, None, None, None] * np.ones((5, 4, 4, 1))
    positives, negatives = np.zeros((2, 5, 5), bool)
    positives[0, 1:4], negatives[0, 4] = True, True
    attacked = [False, True, False, False, True]
    figure = contrast_pairs(views, range(5), attacked, [0], positives, negatives, shown=2)
    anchor, first, second, negative, empty = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["0", "1", "2", "4", ""]
    assert (first.get_ylabel(), negative.get_ylabel()) == ("3 positives", "1 negatives")
    edges = [to_hex(axes.spines["left"].get_edgecolor()) for axes in (anchor, first, second)]
    assert edges == [CLEAN, ATTACKED, CLEAN]
    assert not empty.images and second.images[0].get_array().max() == 0.5
    with pytest.raises(ValueError, match="Received 0 anchors"):
        contrast_pairs(views, range(5), attacked, [], positives, negatives)


def test_histograms_count_every_number():
    push, pull = np.array([[1.0, -2.0], [0.5, 0.0]]), np.array([0.3, -0.3])
    for axes, values in zip(gradient_histogram(push, pull).axes, (push, pull), strict=True):
        assert sum(bar.get_height() for bar in axes.patches) == values.size
        edges = [bar.get_x() for bar in axes.patches]
        assert edges[0] == pytest.approx(-np.abs(values).max())
    with pytest.raises(ValueError, match="gradients of the cost are 0 numbers"):
        gradient_histogram(push, [])
