"""Bars are the given probabilities, of the member in the title."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex

from keras_robust.plots import member_predictions
from keras_robust.plots.style import ATTACKED, CLEAN

IMAGES = np.random.default_rng(0).random((2, 5, 4, 1))
MEMBERS = np.random.default_rng(1).dirichlet(np.ones(3), (2, 2))  # two members, three classes
WHOLE = np.random.default_rng(2).dirichlet(np.ones(3), 2)  # as of a vote: not their mean
NAMES = ["cat", "dog", "owl"]


@pytest.mark.parametrize("narrow", [False, True])
def test_bars_are_the_probabilities(narrow):
    figure = member_predictions(IMAGES, MEMBERS, WHOLE, 1, NAMES, narrow=narrow)
    grid = np.array(figure.axes).reshape((4, 2) if narrow else (2, 4))
    grid = grid.T if narrow else grid
    titles = [axes.get_ylabel() if narrow else axes.get_title() for axes in grid[0]]
    assert titles == ["true: dog", "Member 1", "Member 2", "Ensemble"]
    kinds = [axes.get_title() if narrow else axes.get_ylabel() for axes in grid[:, 0]]
    assert kinds == ["Clean", "Attacked"]
    for k in range(2):
        np.testing.assert_allclose(np.asarray(grid[k, 0].images[0].get_array()), IMAGES[k, ..., 0])
        for axes, expected in zip(grid[k, 1:], [*MEMBERS[k], WHOLE[k]], strict=True):
            np.testing.assert_allclose([bar.get_height() for bar in axes.patches], expected)
            assert axes.get_ylim() == (0.0, 1.0)
            colors = [to_hex(bar.get_facecolor()) for bar in axes.patches]
            assert colors == [ATTACKED, CLEAN, ATTACKED]
            assert [text.get_text() for text in axes.get_xticklabels()] == NAMES


def test_of_many_classes_the_most_likely_are_drawn_and_the_true_one():
    members = np.zeros((2, 1, 100))
    members[0, 0, 50:59] = 0.1
    members[1, 0, 70] = 0.9
    figure = member_predictions(IMAGES, members, members[:, 0], 3)
    shown = [text.get_text() for text in figure.axes[1].get_xticklabels()]
    # Ten of eleven: ties go to the first.
    assert shown == ["3", *map(str, range(50, 58)), "70"]
    assert figure.axes[4].patches[9].get_height() == 0.9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": IMAGES[:1]}, r"expected \[2, height, width, 1 or 3\]"),
        ({"probabilities": WHOLE[:, :2]}, r"expected \[2, members, classes\] and \[2, classes\]"),
        ({"member_probabilities": MEMBERS - 1}, "outside"),
        ({"member_probabilities": MEMBERS * np.nan}, "outside"),
        ({"label": 3}, "label is 3; expected a class below 3"),
    ],
)
def test_invalid_arguments(changes, message):
    arguments = {
        "images": IMAGES,
        "member_probabilities": MEMBERS,
        "probabilities": WHOLE,
        "label": 1,
    }
    with pytest.raises(ValueError, match=message):
        member_predictions(**{**arguments, **changes})
