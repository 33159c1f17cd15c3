"""The style of the plots, which leaves no trace after them."""

from __future__ import annotations

import itertools
import re
import sys
import warnings

import numpy as np
import pytest

from keras_robust import plots
from keras_robust.detection import roc
from keras_robust.plots import style

SPACE = ([[0.0, 0.0], [1.0, 1.0]], [0.1, 0.9], [0, 1], [False, True])
SURFACE = ([-1.0, 1.0], [[0.0, 1.0], [0.5, 2.0]], [[0, 1], [0, 1]], 0)
PREDICTIONS = (np.zeros((2, 4, 4, 3)), np.full((2, 3, 5), 0.2), np.full((2, 5), 0.2), 4)
ROC = roc([0.1, 0.2], [0.2, 0.5], resamples=10)
CURVES = {"m": {"a": ([0.0, 0.1], [0.9, 0.5])}}
PANEL = plots.Panel("p", [[0.0, 0.0], [1.0, 1.0]], [0, 1], [[[0.0, 0.0]], [[1.0, 0.0]]], 1.0)
FIELD = [[0.0, 1.0], [0.0, 1.0]]
PAIRS = [[False, True], [True, False]]

DRAWERS = {
    "accuracy_over_radius": lambda: plots.accuracy_over_radius(CURVES),
    "confusion_matrix": lambda: plots.confusion_matrix([[1, 0], [0, 1]]),
    "contrast_pairs": lambda: plots.contrast_pairs(
        np.zeros((2, 4, 4, 1)), [0, 1], [False, True], [0], PAIRS, PAIRS
    ),
    "decision_regions": lambda: plots.decision_regions([PANEL], [FIELD], (-1, 2, -1, 2)),
    "detection_scores": lambda: plots.detection_scores([0.1], [0.2], 0.15),
    "example_images": lambda: plots.example_images(
        [[[[0.0]]]], [[[[0.1]]]], [0], [0], [1], ["x", "y"]
    ),
    "gradient_histogram": lambda: plots.gradient_histogram([0.1], [0.2]),
    "latent_space": lambda: plots.latent_space(*SPACE),
    "latent_space, 3d": lambda: plots.latent_space(*SPACE, flat=False),
    "loss_surface": lambda: plots.loss_surface(*SURFACE),
    "loss_surface, 3d": lambda: plots.loss_surface(*SURFACE, flat=False),
    "member_predictions": lambda: plots.member_predictions(*PREDICTIONS),
    "roc_curves": lambda: plots.roc_curves({"a": ROC}, false_alarm_rate=0.05),
    "roc_curves, radii": lambda: plots.roc_curves({0.1: ROC, 0.2: ROC}),
    "series": lambda: plots.series({"a": ([0.1, 0.2], [1.0, 0.5])}, "tau", "accuracy"),
    "step_curves": lambda: plots.step_curves({"Loss": {"a": [1.0, 0.5]}}),
    "training_curves": lambda: plots.training_curves({"a": [1.0, 0.5]}, "loss"),
    "transfer_matrix": lambda: plots.transfer_matrix(["a"], [[0.5]]),
}


def test_every_plot_is_in_the_table():
    assert {name.split(",")[0] for name in DRAWERS} | {"Panel", "to_png", "to_svg"} == set(
        plots.__all__
    )


@pytest.mark.parametrize("draw", DRAWERS.values(), ids=DRAWERS)
def test_same_data_same_bytes_whatever_the_settings_of_the_caller(draw):
    """No setting changes, no figure enters the registry of pyplot, and no text is mathematics."""
    import matplotlib.pyplot
    from matplotlib.text import Text

    open_figures = matplotlib.pyplot.get_fignums()
    figure = draw()
    plain = plots.to_svg(figure)
    assert not [text for text in figure.findobj(Text) if "mathdefault" in text.get_text()]
    with matplotlib.rc_context(
        {"font.size": 30.0, "axes.titleweight": "bold", "axes.linewidth": 5}
    ):
        before = dict(matplotlib.rcParams)
        assert plots.to_svg(draw()) == plain
        assert dict(matplotlib.rcParams) == before
    assert matplotlib.pyplot.get_fignums() == open_figures


def test_png():
    first, second = (plots.to_png(DRAWERS["transfer_matrix"](), dpi=50) for _ in range(2))
    assert first.startswith(b"\x89PNG") and first == second


@pytest.mark.parametrize("draw", DRAWERS.values(), ids=DRAWERS)
def test_without_matplotlib_the_error_names_the_extra(draw, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install keras_robust\[report\]"):
        draw()


def test_names_with_dollar_signs_are_not_mathematics():
    figure = plots.confusion_matrix([[1, 0], [0, 1]], class_names=["$\\frac$", "a$b"])
    assert b"<svg" in plots.to_svg(figure)


@pytest.mark.parametrize("narrow", [False, True])
def test_long_and_many_names_leave_room_for_the_plot(narrow):
    long = "a_name_without_any_space" * 5
    points = ([0.0, 0.1], [0.9, 0.5])
    curves = {f"{long} {m}": {f"{a} {long}": points for a in range(4)} for m in range(8)}
    names = [f"{index} {long}" for index in range(10)]
    images = np.zeros((2, 4, 4, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a layout that finds no room warns
        for figure in (
            plots.accuracy_over_radius(curves, radius=0.1, narrow=narrow),
            plots.confusion_matrix(
                np.eye(10, dtype=int), np.eye(10, dtype=int), names, narrow=narrow
            ),
            plots.detection_scores([0.1], [0.2], 0.15, score_name=long, narrow=narrow),
            plots.example_images(images, images, [0, 1], [0, 1], [1, 1], names, narrow=narrow),
            plots.member_predictions(
                images, np.full((2, 3, 10), 0.1), np.full((2, 10), 0.1), 3, names, narrow=narrow
            ),
            plots.roc_curves({f"{n} {long}": ROC for n in range(8)}, narrow=narrow),
            *(plots.latent_space(*SPACE, names, flat=flat, narrow=narrow) for flat in (0, 1)),
            *(plots.loss_surface(*SURFACE, names, flat=flat, narrow=narrow) for flat in (0, 1)),
        ):
            style.styled(figure.draw_without_rendering)()
            size = figure.axes[0].get_window_extent().size / figure.dpi
            assert size.min() > 0.8  # inches


def test_the_colors_of_the_palette_differ():
    assert len(set(style.COLORS)) == len(style.COLORS) == len(style.MARKERS)


def test_curves_differ_in_color_and_dashes():
    """In color from the next six, in dashes from the next three, in one of both up to 28."""
    found = [style.curve_style(number) for number in range(28)]
    assert len({tuple(one.values()) for one in found}) == 28
    for one, following in itertools.pairwise(found):
        assert one["color"] != following["color"] and one["linestyle"] != following["linestyle"]


def test_every_plot_of_curves_has_the_same_styles():
    names = [f"run {number}" for number in range(9)]
    drawn = {
        "training_curves": plots.training_curves({name: [0.1, 0.2] for name in names}, "y"),
        "series": plots.series({name: ([0, 1], [0, 1]) for name in names}, "x", "y"),
        "step_curves": plots.step_curves({"y": {name: [0.1, 0.2] for name in names}}),
        "roc_curves": plots.roc_curves(dict.fromkeys(names, ROC)),
        "accuracy_over_radius": plots.accuracy_over_radius(
            {"m": {name: ([0.0, 0.1], [0.9, 0.5]) for name in names}}
        ),
    }
    expected = [tuple(style.curve_style(number).values()) for number in range(9)]
    for name, figure in drawn.items():
        lines = figure.axes[0].get_lines()[:9]
        assert [(line.get_color(), line.get_linestyle()) for line in lines] == expected, name


def test_svg_has_colors_for_dark_pages_on_request():
    figure = DRAWERS["accuracy_over_radius"]()
    plain, dark = plots.to_svg(figure).decode(), plots.to_svg(figure, dark=True).decode()
    assert "prefers-color-scheme" not in plain
    assert "@media(prefers-color-scheme:dark)" in dark
    style = dark[dark.index("<style>") : dark.index("</style>") + len("</style>")]
    assert dark.replace(style, "") == plain
    # Every color that is drawn has one for the dark.
    for color in set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", plain)):
        assert f"fill: {color}" in style


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("mnist_cce_robustness_2", ["mnist_cce_", "robustness_2"]),
        ("short", ["short"]),
        ("x" * 30, ["x" * 11, "x" * 11, "x" * 8]),
        ("", [""]),
    ],
)
def test_names_are_wrapped_whole(name, lines):
    assert style.wrap(name, 12).split("\n") == lines
