"""A logged quantity over the epochs of training runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_robust.plots.style import (
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
def training_curves(
    curves: Mapping[str, Sequence[float] | Sequence[Sequence[float]]], label: str
) -> Figure:
    """Draws one curve per training over its epochs, counted from 1.

    Of several seeds the curve is their mean, in a band from the lowest to the highest.

    Args:
        curves: name of a training -> its values, one per epoch; or one such row per seed, of equal
            length.
        label: of the values.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: no values, or seeds of different lengths.

    Example:
        >>> training_curves({"UDR": [1.0, 0.6, 0.3]}, "dual variable").axes[0].get_ylabel()
        'dual variable'
    """
    from matplotlib.ticker import MaxNLocator

    if not any(len(values) for values in curves.values()):
        raise ValueError("curves has no values; expected at least one run of an epoch or more.")
    figure = new_figure(WIDE, max(3.2, 0.6 + legend_height(map(legend_label, curves), 2)))
    axes = figure.subplots()
    seeds = set()
    for number, (name, values) in enumerate(curves.items()):
        rows = _rows(name, values)
        epochs, style = range(1, rows.shape[1] + 1), curve_style(number)
        axes.plot(epochs, rows.mean(axis=0), label=legend_label(name), **style)
        if len(rows) > 1:
            draw_band(axes, epochs, rows.min(axis=0), rows.max(axis=0), style["color"])
            seeds.add(len(rows))
    axes.set_xlabel("Epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel(label)
    axes.grid(True)
    spread = f"mean, and range of {'/'.join(map(str, sorted(seeds)))} seeds" if seeds else None
    figure.legend(loc="outside right upper", title=spread, alignment="left", title_fontsize=9)
    disable_math_text(figure)
    return figure


def _rows(name: str, values: Sequence[float] | Sequence[Sequence[float]]) -> np.ndarray:
    """The values as `[seeds, epochs]`."""
    lengths = {np.size(row) for row in values}
    if len(lengths) > 1:
        raise ValueError(
            f"The seeds of {name!r} have {sorted(lengths)} epochs; expected equal numbers."
        )
    return np.atleast_2d(np.asarray(values, np.float64))
