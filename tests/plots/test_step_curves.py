"""Curves over steps have the given values, and one color per name."""

from __future__ import annotations

import numpy as np
import pytest

from keras_robust.plots import step_curves


def test_panels():
    panels = {
        "Weight": {"_a": [0.5, 0.2], "b": [0.5, 0.8]},
        "Loss": {"b": [1.0, 2.0, 3.0]},
        "Norm": {"b": [1.0]},
    }
    figure = step_curves(panels)
    assert [axes.get_ylabel() for axes in figure.axes] == list(panels)
    assert {axes.get_xlabel() for axes in figure.axes} == {"Step"}
    first, second = figure.axes[0].get_lines()
    np.testing.assert_array_equal(first.get_xydata(), [[0, 0.5], [1, 0.2]])
    (other,) = figure.axes[1].get_lines()
    assert other.get_color() == second.get_color() != first.get_color()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [" _a", "b"]


@pytest.mark.parametrize("panels", [{}, {"Weight": {}}, {"Weight": {"a": []}}])
def test_nothing_to_draw(panels):
    with pytest.raises(ValueError, match="expected at least one|has no values"):
        step_curves(panels)
