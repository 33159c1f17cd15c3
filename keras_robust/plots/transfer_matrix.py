"""Heat map of the transfer of adversarial examples between models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from keras_robust.plots.style import (
    INK,
    NARROW,
    WIDE,
    disable_math_text,
    new_figure,
    shorten,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LETTERS = 16  # room for a name
_MAX_NUMBERS = 10  # models up to which each cell has room for its number


@styled
def transfer_matrix(
    names: Sequence[str],
    accuracy: ArrayLike,
    clean: ArrayLike | None = None,
    *,
    narrow: bool = False,
) -> Figure:
    """Draws the accuracy of each target model on the examples crafted on each source model.

    Args:
        names: of the models, which are both sources and targets.
        accuracy: `[sources, targets]`, fractions; dark cells mark successful transfer.
        clean: the accuracy of each model on clean images, drawn as the first row.
        narrow: lays out for the width of a phone.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: shapes that disagree, or a number outside [0, 1].

    Example:
        >>> figure = transfer_matrix(["a", "b"], [[0.1, 0.8], [0.7, 0.2]], clean=[0.99, 0.98])
        >>> figure.axes[0].get_xlabel()
        'Target model'

    Reference: Bui et al., "Improving Ensemble Robustness by Collaboratively Promoting and Demoting
    Adversarial Robustness" (2021), Tables 12 and 13.
    """
    cells, rows = _checked(names, accuracy, clean)
    width = NARROW if narrow else min(WIDE, 3.2 + 0.8 * len(names))
    figure = new_figure(width, 1.6 + 0.42 * len(rows))
    axes = figure.subplots()
    image = axes.imshow(cells, cmap="viridis", vmin=0.0, vmax=1.0, aspect="auto")
    if len(names) <= _MAX_NUMBERS:
        digits = 1 if not narrow or len(names) <= 4 else 0
        for (row, column), value in np.ndenumerate(cells):
            ink = INK if value > 0.6 else "white"
            text = f"{100 * value:.{digits}f}"
            axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=8)
    labels = [shorten(name, _LETTERS) for name in names]
    axes.set_xticks(range(len(names)), labels, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), [shorten(name, _LETTERS) for name in rows])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("Target model")
    axes.set_ylabel("Crafted on")
    bar = figure.colorbar(image, ax=axes, format=lambda value, _: f"{value:.0%}")
    bar.set_label("Accuracy")
    bar.outline.set_visible(False)
    disable_math_text(figure)
    return figure


def _checked(
    names: Sequence[str], accuracy: ArrayLike, clean: ArrayLike | None
) -> tuple[np.ndarray, list[str]]:
    """The cells `[rows, targets]`, and the names of the rows."""
    cells, rows = np.asarray(accuracy, float), list(names)
    if cells.shape != (len(names), len(names)) or not len(names):
        raise ValueError(
            f"accuracy has shape {cells.shape} for {len(names)} names; expected "
            f"({len(names)}, {len(names)}), sources by targets."
        )
    if clean is not None:
        top = np.asarray(clean, float)
        if top.shape != (len(names),):
            raise ValueError(f"clean has shape {top.shape}; expected one number per name.")
        cells, rows = np.concatenate([top[None], cells]), ["no attack", *rows]
    if not ((cells >= 0) & (cells <= 1)).all():
        raise ValueError("accuracy or clean has values outside [0, 1]; expected fractions.")
    return cells, rows
