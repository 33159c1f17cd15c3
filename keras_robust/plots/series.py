"""Series of points with intervals: a measured number over a setting, or over another number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from keras_robust.plots.style import (
    MARKERS,
    WIDE,
    curve_style,
    disable_math_text,
    draw_band,
    legend_height,
    legend_label,
    new_figure,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def series(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x_label: str,
    y_label: str,
    *,
    intervals: Mapping[str, Sequence[tuple[float, float]]] | None = None,
) -> Figure:
    """Draws one line with markers per series, and its intervals as a band.

    Args:
        curves: name -> (x, y), of equal length, in the order in which the line joins them.
        x_label: of the horizontal axis.
        y_label: of the vertical axis.
        intervals: name of a series -> the ends of an interval for each point.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: no series, or one of different lengths.

    Example:
        >>> series({"UDR": ([0.1, 0.2], [0.9, 0.8])}, "tau", "accuracy").axes[0].get_xlabel()
        'tau'
    """
    if not curves:
        raise ValueError("curves is empty; expected at least one series.")
    figure = new_figure(WIDE, max(3.8, 0.4 + legend_height(map(legend_label, curves), 1)))
    axes = figure.subplots()
    for number, (name, (x, y)) in enumerate(curves.items()):
        band = (intervals or {}).get(name)
        if not len(x) or {len(x)} != {len(y), len(x if band is None else band)}:
            raise ValueError(
                f"The series {name!r} has {len(x)} x, {len(y)} y and "
                f"{'no' if band is None else len(band)} intervals; expected equal numbers, at "
                "least one."
            )
        style = curve_style(number)
        axes.plot(x, y, marker=MARKERS[number % len(MARKERS)], label=legend_label(name), **style)
        if band is not None:
            low, high = zip(*band, strict=True)
            draw_band(axes, x, low, high, style["color"])
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(True)
    figure.legend(loc="outside right upper")
    disable_math_text(figure)
    return figure
