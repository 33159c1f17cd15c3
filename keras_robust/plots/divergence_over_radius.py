"""The divergence of the latent space over the radius of an attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from keras_robust.plots.style import (
    COLORS,
    MARKERS,
    WIDE,
    disable_math_text,
    legend_label,
    new_figure,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def divergence_over_radius(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Figure:
    """Draws R-DIV over the radius of the attack, a curve per model.

    Args:
        curves: name of a model -> (radii in the units of the images, values), of equal length.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: no curves, or a curve of different lengths.

    Example:
        >>> figure = divergence_over_radius({"ASCL": ([0.0, 0.1], [0.2, 0.4])})
        >>> figure.axes[0].get_ylabel()
        'R-DIV'

    Reference: Bui et al., "Understanding and Achieving Efficient Robustness with Adversarial
    Supervised Contrastive Learning" (2021), Figures 2c and 5.
    """
    if not curves:
        raise ValueError("curves is empty; expected at least one model.")
    figure = new_figure(WIDE, max(3.2, 0.4 + 0.18 * (len(curves) + 1)))
    axes = figure.subplots()
    for number, (name, (radii, values)) in enumerate(curves.items()):
        if len(radii) != len(values) or not len(radii):
            raise ValueError(
                f"The curve of {name!r} has {len(radii)} radii and {len(values)} values; expected "
                "the same number, at least one."
            )
        axes.plot(
            radii,
            values,
            color=COLORS[number % len(COLORS)],
            marker=MARKERS[number % len(MARKERS)],
            label=legend_label(name),
        )
    axes.set_xlabel("Radius (in the units of the images)")
    axes.set_ylabel("R-DIV")
    axes.grid(True)
    figure.legend(loc="outside right upper")
    disable_math_text(figure)
    return figure
