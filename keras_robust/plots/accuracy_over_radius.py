"""Robust accuracy as a function of the attack radius."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from keras_robust.plots.style import (
    FAINT,
    MARKERS,
    NARROW,
    WIDE,
    curve_style,
    disable_math_text,
    draw_band,
    legend_height,
    legend_label,
    new_figure,
    percent_ticks,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def accuracy_over_radius(
    curves: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
    *,
    intervals: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]] | None = None,
    chance: float | None = None,
    radius: float | None = None,
    narrow: bool = False,
) -> Figure:
    """Draws accuracy over radius: one color per model, one dash pattern per attack.

    With a single model, each attack has its own color. A certified accuracy is drawn in the same
    way, under the name of its method.

    Args:
        curves: model name -> attack name -> (radii in the units of the images, accuracies in
            [0, 1]), of equal length.
        intervals: model name -> attack name -> the ends of an interval for each radius, drawn as a
            band.
        chance: the accuracy of a guess, such as 1 / classes, to mark.
        radius: a radius to mark, such as the one of a report.
        narrow: lays out for the width of a phone, with the legend below.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: no curves, or a curve or its intervals of different lengths.

    Example:
        >>> figure = accuracy_over_radius({"TRADES": {"PGD": ([0.0, 0.1], [0.97, 0.61])}})
        >>> figure.axes[0].get_ylabel()
        'Accuracy'
    """
    lines = _lines(curves, intervals or {})
    legend = legend_height((line.label for line in lines), 3)
    figure = (
        new_figure(NARROW, 3.5 + legend) if narrow else new_figure(WIDE, max(3.8, 0.4 + legend))
    )
    axes = figure.subplots()
    for line in lines:
        axes.plot(line.radii, line.accuracies, label=line.label, **line.style)
        if line.band is not None:
            low, high = zip(*line.band, strict=True)
            draw_band(axes, line.radii, low, high, line.style["color"])
    if chance is not None:
        label = f"chance ({100 * chance:.3g}%)"
        axes.axhline(chance, color=FAINT, linewidth=1.0, linestyle=":", label=label)
    if radius is not None:
        axes.axvline(
            radius, color=FAINT, linewidth=1.0, dashes=(4, 3), label="radius of the report"
        )
    axes.set_xlabel("Radius (in the units of the images)")
    axes.set_ylabel("Accuracy")
    axes.set_ylim(0.0, 1.03)
    right = max([max(line.radii) for line in lines] + [radius or 0.0])
    if right > 0:
        axes.set_xlim(-0.02 * right, 1.03 * right)
    percent_ticks(axes.yaxis)
    axes.grid(True)
    figure.legend(loc="outside lower left" if narrow else "outside right upper")
    disable_math_text(figure)
    return figure


class _Line(NamedTuple):
    label: str
    radii: Sequence[float]
    accuracies: Sequence[float]
    band: Sequence[tuple[float, float]] | None
    style: dict[str, Any]


def _lines(
    curves: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
    intervals: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]],
) -> list[_Line]:
    attacks = list(dict.fromkeys(attack for by_attack in curves.values() for attack in by_attack))
    if not attacks:
        raise ValueError("curves is empty; expected at least one model with one attack.")
    lines = []
    for m, (model, by_attack) in enumerate(curves.items()):
        for attack, (radii, accuracies) in by_attack.items():
            band = intervals.get(model, {}).get(attack)
            counts = (len(radii), len(accuracies), len(radii if band is None else band))
            if len(set(counts)) > 1 or len(radii) == 0:
                raise ValueError(
                    f"The curve of {model!r}, {attack!r} has {len(radii)} radii, "
                    f"{len(accuracies)} accuracies and "
                    f"{'no' if band is None else len(band)} intervals; expected the same number, "
                    "at least one."
                )
            a = attacks.index(attack)
            index = m if len(curves) > 1 else a
            label = legend_label(attack) if len(curves) == 1 else legend_label(model, attack)
            style = curve_style(m, dashes=a) if len(curves) > 1 else curve_style(a)
            style["marker"] = MARKERS[index % len(MARKERS)]
            lines.append(_Line(label, radii, accuracies, band, style))
    return lines
