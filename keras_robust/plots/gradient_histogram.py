"""Histograms of the gradients that push and pull the images of a soft-ball attack."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from keras_robust.plots.style import ATTACKED, CLEAN, WIDE, disable_math_text, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BINS = 60


@styled
def gradient_histogram(push: ArrayLike, pull: ArrayLike) -> Figure:
    """Draws the distribution of the gradients of the loss and of the cost, a panel each.

    Args:
        push: gradients of the loss, of any shape.
        pull: gradients of the transport cost, of any shape.

    Returns:
        A matplotlib figure; counts are on a logarithmic scale, as most pixels hardly count.

    Raises:
        ValueError: no numbers, or numbers that are not finite.

    Example:
        >>> figure = gradient_histogram([1e-4, -2e-4], [0.1, -0.3])
        >>> [axes.get_xlabel() for axes in figure.axes]
        ['Gradient of the loss', 'Gradient of the cost']

    Reference: Bui et al., "A Unified Wasserstein Distributional Robustness Framework for
    Adversarial Training" (2022), Figure 7.
    """
    panels = {"loss": np.ravel(push), "cost": np.ravel(pull)}
    for name, values in panels.items():
        if not len(values) or not np.isfinite(values).all():
            raise ValueError(
                f"The gradients of the {name} are {len(values)} numbers, or not finite; expected "
                "finite numbers, at least one."
            )
    figure = new_figure(WIDE, 3.0)
    for axes, color, (name, values) in zip(
        figure.subplots(1, 2, sharey=True), (ATTACKED, CLEAN), panels.items(), strict=True
    ):
        largest = float(np.abs(values).max()) or 1.0
        axes.hist(values, bins=_BINS, range=(-largest, largest), color=color)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:,.0f}")  # not as powers, which are mathematical text
        axes.set_xlabel(f"Gradient of the {name}")
        axes.ticklabel_format(axis="x", scilimits=(-2, 3))
    figure.axes[0].set_ylabel("Pixels")
    disable_math_text(figure)
    return figure
