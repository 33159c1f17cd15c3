"""How a number that a training logs moves from epoch to epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from keras_robust.plots.style import COLORS, DASHES, WIDE, blank, legend_label, plain_text, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def training_curves(curves: Mapping[str, Sequence[float]], label: str) -> Figure:
    """Draws a curve for each training over its epochs, from 1.

    Args:
        curves: the name of a training -> its values, one for each epoch.
        label: what the values are.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: when there is nothing to draw.

    Example:
        >>> training_curves({"UDR": [1.0, 0.6, 0.3]}, "dual variable").axes[0].get_ylabel()
        'dual variable'
    """
    if not any(len(values) for values in curves.values()):
        raise ValueError("No curves to draw; expected at least one training of an epoch or more.")
    figure = blank(WIDE, max(3.2, 0.4 + 0.18 * (len(curves) + 1)))
    axes = figure.subplots()
    for number, (name, values) in enumerate(curves.items()):
        axes.plot(
            range(1, len(values) + 1),
            values,
            color=COLORS[number % len(COLORS)],
            linestyle=DASHES[number % len(DASHES)],
            label=legend_label(name),
        )
    axes.set_xlabel("Epoch")
    axes.set_ylabel(label)
    axes.grid(True)
    figure.legend(loc="outside right upper")
    plain_text(figure)
    return figure
