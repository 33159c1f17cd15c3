"""Histograms of the given scores, over the same bins."""

from __future__ import annotations

import numpy as np
import pytest

from keras_robust.plots import detection_scores

CLEAN = [0.0, 0.1, 0.1, 0.4]
ATTACKED = [0.5, 1.0]


@pytest.mark.parametrize("narrow", [False, True])
def test_heights_are_fractions_over_common_bins(narrow):
    axes = detection_scores(CLEAN, ATTACKED, 0.45, bins=4, narrow=narrow).axes[0]
    outlines = {patch.get_label(): patch.get_data() for patch in axes.patches}
    np.testing.assert_allclose(outlines["clean"].values, [0.75, 0.25, 0, 0])
    np.testing.assert_allclose(outlines["attacked"].values, [0, 0, 0.5, 0.5])
    for name in ("clean", "attacked"):
        np.testing.assert_allclose(outlines[name].edges, [0, 0.25, 0.5, 0.75, 1])


def test_the_threshold_is_a_line_with_its_number():
    axes = detection_scores(CLEAN, ATTACKED, 0.45).axes[0]
    (line,) = axes.get_lines()
    assert set(line.get_xdata()) == {0.45}
    assert line.get_label() == "threshold 0.45"


def test_axes_are_named():
    axes = detection_scores(CLEAN, ATTACKED, 0.45, score_name="entropy (nats)").axes[0]
    assert axes.get_xlabel() == "entropy (nats)"
    assert axes.get_ylabel() == "Fraction of images"
    assert axes.get_ylim()[0] == 0


def test_equal_scores_can_be_drawn():
    assert detection_scores([0.0, 0.0], [0.0], 0.0).axes


def test_bad_scores_are_refused():
    with pytest.raises(ValueError, match="Received 0 clean scores"):
        detection_scores([], [0.1], 0.5)
    with pytest.raises(ValueError, match="2 attacked scores, 1 of them not finite"):
        detection_scores([0.1], [0.1, float("nan")], 0.5)
    with pytest.raises(ValueError, match="threshold is nan; expected a finite number"):
        detection_scores([0.1], [0.1], float("nan"))
    with pytest.raises(ValueError, match="bins is 2.5; expected an integer >= 1"):
        detection_scores([0.1], [0.1], 0.5, bins=2.5)


def test_numbers_of_numpy_are_numbers():
    assert detection_scores(CLEAN, ATTACKED, np.float32(0.45), bins=np.int64(4)).axes
