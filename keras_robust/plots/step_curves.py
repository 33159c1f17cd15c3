"""Quantities over the steps of an attack, a panel each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from keras_robust.plots.style import (
    WIDE,
    curve_style,
    disable_math_text,
    legend_height,
    legend_label,
    new_figure,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = 2


@styled
def step_curves(panels: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Draws one panel per quantity, with a curve per task or per attack, over steps from 0.

    Args:
        panels: label of the quantity -> name of the curve -> its values, one per step. A name has
            the same color in all panels.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: a panel without values.

    Example:
        >>> figure = step_curves({"Weight": {"task 1": [0.5, 0.2], "task 2": [0.5, 0.8]}})
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['Weight']
    """
    from matplotlib.ticker import MaxNLocator

    for label, curves in panels.items():
        if not any(len(values) for values in curves.values()):
            raise ValueError(f"The panel {label!r} has no values; expected a curve of a step.")
    if not panels:
        raise ValueError("There are no panels; expected at least one.")
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(WIDE, max(2.8 * rows, 0.4 + legend_height(map(legend_label, names), 1)))
    grid = figure.subplots(rows, columns, squeeze=False)
    every = list(grid.flat)
    for axes, (label, curves) in zip(every, panels.items(), strict=False):
        for name, values in curves.items():
            style = curve_style(names.index(name))
            axes.plot(range(len(values)), values, label=legend_label(name), **style)
        axes.set_xlabel("Step")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel(label)
        axes.grid(True)
    for axes in every[len(panels) :]:
        axes.remove()
    # One entry per name, from the first panel that has it.
    handles = {
        handle.get_label(): handle
        for axes in figure.axes
        for handle in reversed(axes.get_legend_handles_labels()[0])
    }
    ordered = [handles[legend_label(name)] for name in names]
    figure.legend(handles=ordered, loc="outside right upper")
    disable_math_text(figure)
    return figure
