"""The surface has the given heights, and the classes are where they were predicted."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from keras_robust.plots import loss_surface
from keras_robust.plots.class_colors import CLASS_COLORS

STEPS = np.linspace(-0.4, 0.4, 5)
ALONG, ACROSS = np.meshgrid(STEPS, STEPS)
LOSSES = 1 + 2 * ALONG + ACROSS**2
LABELS = np.where(ALONG > 0.1, 4, 1)
LABELS[4, 0] = 2  # the last step across, the first along
DATA = (STEPS, LOSSES, LABELS, 1)
NAMES = ["ant", "bee", "cow", "dog", "eel"]


def panels(figure):
    return [axes for axes in figure.axes if axes.get_title()]


@pytest.mark.parametrize("narrow", [False, True])
def test_heights_are_the_losses(narrow):
    axes = panels(loss_surface(*DATA, flat=False, narrow=narrow))[0]
    (surface,) = axes.collections
    corners = [LOSSES[:-1, :-1], LOSSES[1:, :-1], LOSSES[:-1, 1:], LOSSES[1:, 1:]]
    np.testing.assert_allclose(surface.get_array(), np.mean(corners, axis=0).ravel())  # of faces
    for limits, values in ((axes.get_xlim(), STEPS), (axes.get_zlim(), LOSSES)):
        assert limits[0] <= values.min() and limits[1] >= values.max()
    assert axes.get_xlabel() == "Along the gradient (L2 distance)"
    assert axes.get_zlabel() == "Cross-entropy (nats)"


@pytest.mark.parametrize("narrow", [False, True])
def test_flat_the_loss_is_the_color(narrow):
    figure = loss_surface(*DATA, narrow=narrow)
    axes = panels(figure)[0]
    areas = axes.collections[0]
    low, high = areas.levels[0], areas.levels[-1]
    assert low <= LOSSES.min() and high >= LOSSES.max() and len(areas.levels) > 10
    assert axes.get_xlim() == axes.get_ylim() == (-0.4, 0.4)
    units = {label for axes in figure.axes for label in (axes.get_xlabel(), axes.get_ylabel())}
    assert "Cross-entropy (nats)" in units


BALL = [[0.1, 0.2], [-0.1, 0.2], [-0.1, -0.2], [0.1, -0.2]]


@pytest.mark.parametrize("flat", [False, True])
def test_the_ball_is_a_closed_line_in_every_panel(flat):
    for axes in panels(loss_surface(*DATA, ball=BALL, flat=flat)):
        lines = [line for line in axes.get_lines() if len(line.get_xdata()) == 5]
        assert lines
        for line in lines:
            points = np.stack([np.asarray(part) for part in line.get_data()[:2]], axis=1)
            np.testing.assert_allclose(points, [*BALL, BALL[0]])


def test_a_ball_beyond_the_square_leaves_its_limits():
    for axes in panels(loss_surface(*DATA, ball=10 * np.array(BALL))):
        assert max(axes.get_xlim()) <= 0.5


@pytest.mark.parametrize("ball", [[[0.0, 1.0]], np.zeros((4, 3)), np.full((4, 2), np.nan)])
def test_bad_balls_are_refused(ball):
    with pytest.raises(ValueError, match=r"ball has shape|not finite"):
        loss_surface(*DATA, ball=ball)


@pytest.mark.parametrize("flat", [False, True])
def test_classes_are_where_they_were_predicted(flat):
    axes = panels(loss_surface(*DATA, NAMES, flat=flat))[1]
    (image,) = axes.images
    colors = image.to_rgba(image.get_array())
    expected = [[to_rgba(CLASS_COLORS[label]) for label in row] for row in LABELS]
    np.testing.assert_allclose(colors, expected)
    assert image.origin == "lower"  # steps across grow upwards, as in the other panel
    np.testing.assert_allclose(image.get_extent(), [-0.5, 0.5, -0.5, 0.5])  # whole cells
    assert axes.get_title() == "Predicted class (true: bee)"


def test_a_cross_marks_the_example():
    for axes in panels(loss_surface(*DATA)):
        assert {tuple(map(float, *line.get_data()[:1])) for line in axes.get_lines()} == {(0.0,)}
        assert axes.get_lines()[-1].get_marker() == "x"


def test_the_bar_names_the_classes_that_are_there():
    wide = loss_surface(*DATA, NAMES).axes[-1]
    assert [text.get_text() for text in wide.get_yticklabels()] == ["bee", "cow", "eel"]
    assert wide.yaxis_inverted()  # from the top
    narrow = loss_surface(*DATA, NAMES, narrow=True).axes[-1]
    assert [text.get_text() for text in narrow.get_xticklabels()] == ["bee", "cow", "eel"]


def test_panels_are_side_by_side_or_one_below_the_other():
    for flat in (False, True):
        wide = panels(loss_surface(*DATA, flat=flat))
        narrow = panels(loss_surface(*DATA, flat=flat, narrow=True))
        assert wide[0].get_subplotspec().colspan != wide[1].get_subplotspec().colspan
        assert narrow[0].get_subplotspec().rowspan != narrow[1].get_subplotspec().rowspan


@pytest.mark.parametrize("flat", [False, True])
def test_a_flat_loss_of_one_class_can_be_drawn(flat):
    same = np.zeros((5, 5))
    assert panels(loss_surface(STEPS, same, same, 0, flat=flat))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({1: LOSSES[:4]}, r"losses \(4, 5\)"),
        ({2: LABELS[:, :2]}, r"labels \(5, 2\)"),
        ({0: [0.0], 1: [[1.0]], 2: [[0]]}, "at least 2 points"),
        ({1: LOSSES * np.inf}, "not finite"),
        ({4: ["a", "b"]}, "Classes run from 1 to 4; expected numbers of 2 classes"),
    ],
)
def test_bad_surfaces_are_refused(changes, text):
    arguments = [changes.get(index, part) for index, part in enumerate((*DATA, None))]
    with pytest.raises(ValueError, match=text):
        loss_surface(*arguments)
