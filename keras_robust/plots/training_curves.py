"""A logged quantity over the epochs of training runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from keras_robust.plots.style import (
    WIDE,
    curve_style,
    disable_math_text,
    legend_label,
    new_figure,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def training_curves(curves: Mapping[str, Sequence[float]], label: str) -> Figure:
    """Draws one curve per training run over its epochs, counted from 1.

    Args:
        curves: name of a run -> its values, one per epoch.
        label: of the values.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: no values.

    Example:
        >>> training_curves({"UDR": [1.0, 0.6, 0.3]}, "dual variable").axes[0].get_ylabel()
        'dual variable'
    """
    from matplotlib.ticker import MaxNLocator

    if not any(len(values) for values in curves.values()):
        raise ValueError("curves has no values; expected at least one run of an epoch or more.")
    figure = new_figure(WIDE, max(3.2, 0.4 + 0.18 * (len(curves) + 1)))
    axes = figure.subplots()
    for number, (name, values) in enumerate(curves.items()):
        axes.plot(
            range(1, len(values) + 1),
            values,
            label=legend_label(name),
            **curve_style(number),
        )
    axes.set_xlabel("Epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel(label)
    axes.grid(True)
    figure.legend(loc="outside right upper")
    disable_math_text(figure)
    return figure
