"""Points, paths and boundaries are drawn where the data says."""

from __future__ import annotations

import numpy as np
import pytest

from keras_robust.plots import Panel, decision_regions

EXTENT = (-1.0, 3.0, -1.0, 1.0)
FIELD = np.linspace(0, 1, 5) * np.ones([3, 1])  # class 1 to the right of x = 1
POINTS, LABELS = np.array([[0.0, 0.5], [2.0, 0.0], [2.5, -0.5]]), np.array([0, 1, 1])
PATHS = np.array([[[0.0, 0.5]], [[0.5, 0.5]], [[1.5, 0.5]]])


def test_points_paths_squares_and_the_boundary():
    axes = decision_regions(
        [Panel("PGD", POINTS, LABELS, PATHS, 0.5)], [FIELD], EXTENT, ("A", "B")
    ).axes[0]
    assert axes.get_title() == "PGD"
    drawn = {c.get_label(): np.asarray(c.get_offsets()) for c in axes.collections}
    np.testing.assert_array_equal(drawn["class A"], POINTS[:1])
    np.testing.assert_array_equal(drawn["class B"], POINTS[1:])
    np.testing.assert_array_equal(drawn["attacked"], PATHS[-1])
    (line,) = axes.get_lines()
    np.testing.assert_array_equal(line.get_xydata(), PATHS[:, 0])
    (square,) = axes.patches
    assert (square.get_xy(), square.get_width()) == ((-0.5, 0.0), 1.0)
    boundary = [c for c in axes.collections if len(c.get_paths()) and not len(c.get_offsets()) > 1]
    vertices = np.concatenate([p.vertices for c in boundary for p in c.get_paths()])
    assert np.any(np.isclose(vertices[:, 0], 1.0))
    assert (*axes.get_xlim(), *axes.get_ylim()) == EXTENT


def test_panels_are_in_two_columns_with_one_legend():
    panels = [Panel("a", POINTS, LABELS), Panel("b", POINTS, LABELS, PATHS)]
    figure = decision_regions([*panels, panels[0]], [FIELD] * 3, EXTENT)
    assert [axes.get_title() for axes in figure.axes if axes.get_visible()] == ["a", "b", "a"]
    assert len(figure.axes) == 4
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["class 0", "class 1", "attacked"]
    # The lowest panel of each column has numbers at its axis.
    numbered = [axes.xaxis.get_tick_params()["labelbottom"] for axes in figure.axes[:3]]
    assert numbered == [False, True, True]


def test_a_panel_without_a_field():
    with pytest.raises(ValueError, match="1 panels and 0 fields"):
        decision_regions([Panel("a", POINTS, LABELS)], [], EXTENT)
