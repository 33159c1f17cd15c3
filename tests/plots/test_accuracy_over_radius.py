"""Lines over radius hold the numbers they were given."""

from __future__ import annotations

import numpy as np
import pytest

from keras_robust.plots import accuracy_over_radius

RADII = [0.0, 0.1, 0.3]
CURVES = {
    "standard": {"FGSM": (RADII, [0.97, 0.4, 0.1]), "PGD": (RADII, [0.97, 0.1, 0.0])},
    "TRADES": {"FGSM": (RADII, [0.95, 0.8, 0.6]), "PGD": (RADII, [0.95, 0.7, 0.3])},
}


@pytest.mark.parametrize("narrow", [False, True])
def test_lines_hold_the_data(narrow):
    axes = accuracy_over_radius(CURVES, radius=0.2, narrow=narrow).axes[0]
    lines = {line.get_label(): line for line in axes.get_lines()}
    for model, by_attack in CURVES.items():
        for attack, (radii, accuracies) in by_attack.items():
            line = lines[f"{model}, {attack}"]
            np.testing.assert_array_equal(line.get_xdata(), radii)
            np.testing.assert_array_equal(line.get_ydata(), accuracies)
    assert set(lines["radius of the report"].get_xdata()) == {0.2}
    assert len(lines) == 5


def test_color_is_the_model_and_dashes_are_the_attack():
    axes = accuracy_over_radius(CURVES).axes[0]
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert lines["standard, FGSM"].get_color() == lines["standard, PGD"].get_color()
    assert lines["standard, PGD"].get_color() != lines["TRADES, PGD"].get_color()
    assert lines["standard, PGD"].get_linestyle() == lines["TRADES, PGD"].get_linestyle()
    assert lines["standard, PGD"].get_linestyle() != lines["standard, FGSM"].get_linestyle()


def test_attacks_on_one_model_have_colors_and_short_names():
    axes = accuracy_over_radius({"TRADES": CURVES["TRADES"]}).axes[0]
    assert [line.get_label() for line in axes.get_lines()] == ["FGSM", "PGD"]
    assert len({line.get_color() for line in axes.get_lines()}) == 2


def test_axes_show_all_of_the_range_with_units():
    axes = accuracy_over_radius(CURVES, radius=0.5).axes[0]
    assert axes.get_xlabel() == "Radius (in the units of the images)"
    assert axes.get_ylabel() == "Accuracy"
    assert axes.get_ylim()[0] == 0 and axes.get_ylim()[1] > 1
    assert axes.get_xlim()[0] < 0 and axes.get_xlim()[1] > 0.5
    assert [axes.yaxis.get_major_formatter()(v) for v in (0.5, 0.125)] == ["50%", "12.5%"]


def test_the_legend_names_every_line_even_with_an_underscore():
    figure = accuracy_over_radius({"_a": {"_p": ([0.1], [0.5])}, "b": {"q": ([0.1], [0.6])}})
    texts = [text.get_text().strip() for text in figure.legends[0].get_texts()]
    assert texts == ["_a, _p", "b, q"]


def test_a_single_point_at_radius_zero_can_be_drawn():
    axes = accuracy_over_radius({"m": {"a": ([0.0], [0.5])}}).axes[0]
    assert axes.get_xlim()[0] < axes.get_xlim()[1]


def test_intervals_are_bands_around_their_curve():
    bands = {"m": {"a": [(0.8, 0.95), (0.3, 0.6)]}}
    curves = {"m": {"a": ([0.0, 0.1], [0.9, 0.5]), "b": ([0.0, 0.1], [0.9, 0.4])}}
    axes = accuracy_over_radius(curves, intervals=bands).axes[0]
    (band,) = axes.collections
    corners = band.get_paths()[0].vertices
    for radius, (low, high) in zip([0.0, 0.1], bands["m"]["a"], strict=True):
        heights = corners[corners[:, 0] == radius, 1]
        assert (heights.min(), heights.max()) == (low, high)
    with pytest.raises(ValueError, match="1 intervals; expected the same number"):
        accuracy_over_radius(curves, intervals={"m": {"b": [(0.1, 0.2)]}})


def test_chance_is_a_line():
    axes = accuracy_over_radius({"m": {"a": ([0.0], [0.5])}}, chance=0.125).axes[0]
    line = axes.get_lines()[-1]
    assert set(line.get_ydata()) == {0.125} and line.get_label() == "chance (12.5%)"


@pytest.mark.parametrize("narrow", [False, True])
def test_the_legend_has_whole_names(narrow):
    name = "a_defense_with_a_long_name, trained with PGD of 40 steps at radius 8/255"
    figure = accuracy_over_radius({"m": {name: ([0.1], [0.5])}}, narrow=narrow)
    (text,) = figure.legends[0].get_texts()
    assert " ".join(text.get_text().split("\n")).replace("_ ", "_") == name
    figure.canvas.draw()
    box = text.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width


def test_bad_curves_are_refused():
    with pytest.raises(ValueError, match="curves is empty"):
        accuracy_over_radius({"m": {}})
    with pytest.raises(ValueError, match="2 radii, 1 accuracies"):
        accuracy_over_radius({"m": {"a": ([0.0, 0.1], [0.5])}})
    with pytest.raises(ValueError, match="at least one"):
        accuracy_over_radius({"m": {"a": ([], [])}})
