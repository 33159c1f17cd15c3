"""Histograms of the given scores, over the same bins."""

from __future__ import annotations

import numpy as np
import pytest

from keras_robust.plots import detection_scores

CLEAN = [0.0, 0.1, 0.1, 0.4]
ATTACKED = [0.5, 1.0]


ADAPTIVE = [0.2, 0.3, 0.6, 1.0]


@pytest.mark.parametrize("narrow", [False, True])
def test_heights_are_fractions_over_common_bins(narrow):
    figure = detection_scores(
        CLEAN, ATTACKED, 0.45, adaptive_scores=ADAPTIVE, bins=4, narrow=narrow
    )
    expected = ([0.75, 0.25, 0, 0], [0, 0, 0.5, 0.5], [0.25, 0.25, 0.25, 0.25])
    for axes, heights in zip(figure.axes, expected, strict=True):
        for patch in axes.patches:
            np.testing.assert_allclose(patch.get_data().values, heights)
            np.testing.assert_allclose(patch.get_data().edges, [0, 0.25, 0.5, 0.75, 1])
        assert axes.get_xlim() == figure.axes[0].get_xlim()


def test_a_panel_tells_the_fraction_above_the_threshold():
    figure = detection_scores(CLEAN, ATTACKED, 0.45, adaptive_scores=ADAPTIVE)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "Clean: 0% flagged",
        "Attacked, oblivious: 100% flagged",
        "Attacked, adaptive: 50% flagged",
    ]


def test_the_threshold_is_a_line_with_its_number():
    figure = detection_scores(CLEAN, ATTACKED, 0.45)
    for axes in figure.axes:
        (line,) = axes.get_lines()
        assert set(line.get_xdata()) == {0.45}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["threshold 0.45"]


def test_axes_are_named():
    figure = detection_scores(CLEAN, ATTACKED, 0.45, score_name="entropy (nats)")
    assert figure.axes[-1].get_xlabel() == "entropy (nats)"
    assert figure.get_supylabel() == "Fraction of images"
    assert figure.axes[0].get_ylim()[0] == 0


def test_equal_scores_can_be_drawn():
    assert detection_scores([0.0, 0.0], [0.0], 0.0).axes


def test_bad_scores_are_refused():
    with pytest.raises(ValueError, match="Received 0 clean scores"):
        detection_scores([], [0.1], 0.5)
    with pytest.raises(ValueError, match="2 attacked scores, 1 of them not finite"):
        detection_scores([0.1], [0.1, float("nan")], 0.5)
    with pytest.raises(ValueError, match="0 adaptively attacked scores"):
        detection_scores([0.1], [0.1], 0.5, adaptive_scores=[])
    with pytest.raises(ValueError, match="threshold is nan; expected a finite number"):
        detection_scores([0.1], [0.1], float("nan"))
    with pytest.raises(ValueError, match="bins is 2.5; expected an integer >= 1"):
        detection_scores([0.1], [0.1], 0.5, bins=2.5)


def test_numbers_of_numpy_are_numbers():
    assert detection_scores(CLEAN, ATTACKED, np.float32(0.45), bins=np.int64(4)).axes
