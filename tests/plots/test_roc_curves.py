"""Curves have the measured points; the legend has their areas with intervals."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from keras_robust.detection import roc
from keras_robust.plots import roc_curves

CURVE = roc([0.1, 0.2], [0.2, 0.5], resamples=10)


def lines(figure):
    return {line.get_label(): line for line in figure.axes[0].get_lines()}


@pytest.mark.parametrize("narrow", [False, True])
def test_points_are_those_of_the_curve(narrow):
    exact = dataclasses.replace(CURVE, auc=0.875, interval=(0.5, 1.0))
    (label, line), *_ = lines(roc_curves({"PGD-20": exact}, narrow=narrow)).items()
    assert label == "PGD-20\nAUC 0.875 (0.500 to 1.000)"
    np.testing.assert_array_equal(line.get_xdata(), [0.0, 0.0, 0.5, 1.0])
    np.testing.assert_array_equal(line.get_ydata(), [0.0, 0.5, 1.0, 1.0])


def test_a_score_without_information_is_on_the_diagonal():
    drawn = lines(roc_curves({"a": roc([1.0, 1.0], [1.0], resamples=3)}))
    chance = drawn.pop("chance")
    (line,) = drawn.values()
    for mine, theirs in ((line.get_xdata(), chance.get_xdata()),
                         (line.get_ydata(), chance.get_ydata())):  # fmt: skip
        np.testing.assert_array_equal(mine, theirs)


def test_attacks_have_their_own_colors_and_radii_a_scale():
    by_attack = lines(roc_curves(dict.fromkeys(("PGD", "BIM", "MIM"), CURVE)))
    by_radius = lines(roc_curves(dict.fromkeys((0.2, 0.1, 0.3), CURVE)))
    for drawn in (by_attack, by_radius):
        drawn.pop("chance")
        assert len({line.get_color() for line in drawn.values()}) == 3
    assert [label.split("\n")[0] for label in by_radius] == [f"radius {r}" for r in (0.2, 0.1, 0.3)]
    colors = {label.split("\n")[0]: line.get_color() for label, line in by_radius.items()}
    light = {name: sum(bytes.fromhex(color[1:])) for name, color in colors.items()}
    assert light["radius 0.1"] < light["radius 0.2"] < light["radius 0.3"]


def test_a_rate_is_marked():
    line = lines(roc_curves({"a": CURVE}, false_alarm_rate=0.05))["false-alarm rate 0.05"]
    assert set(line.get_xdata()) == {0.05}


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="curves is empty"):
        roc_curves({})


def test_a_rate_outside_of_its_range():
    with pytest.raises(ValueError, match=r"false_alarm_rate is 1.5; expected a number in \[0, 1\]"):
        roc_curves({"a": CURVE}, false_alarm_rate=1.5)


def test_an_adaptive_attack_has_the_color_of_its_curve():
    figure = roc_curves({0.1: CURVE, 0.2: CURVE}, adaptive={0.2: CURVE})
    plain, other, adaptive, _ = figure.axes[0].get_lines()
    assert adaptive.get_label().startswith("adaptive ")
    assert adaptive.get_color() == other.get_color() != plain.get_color()
    assert adaptive.is_dashed() and not other.is_dashed()
    with pytest.raises(ValueError, match=r"adaptive has \['0.3'\]"):
        roc_curves({0.1: CURVE}, adaptive={0.3: CURVE})
