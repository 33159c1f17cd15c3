"""Who errs on the adversarial examples that were crafted on whom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_robust.plots.style import INK, NARROW, WIDE, blank, plain_text, shorten, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LETTERS = 16  # of a name that have room
_NUMBERED = 10  # up to so many models each cell has room for its number


@styled
def transfer_matrix(
    names: Sequence[str],
    accuracy: Any,
    clean: Sequence[float] | None = None,
    *,
    narrow: bool = False,
) -> Figure:
    """Draws the accuracy of each model on the examples crafted on each, as a heat map.

    Args:
        names: of the models, sources and targets alike.
        accuracy: `[sources, targets]`, shares; a dark cell is one where the examples fool.
        clean: the accuracy of each model on clean images, drawn as a row above.
        narrow: draws for the width of a phone.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: when shapes disagree, or a number is no share.

    Example:
        >>> figure = transfer_matrix(["a", "b"], [[0.1, 0.8], [0.7, 0.2]], clean=[0.99, 0.98])
        >>> figure.axes[0].get_xlabel()
        'Accuracy of'

    Reference: Bui et al., "Improving Ensemble Robustness by Collaboratively Promoting and Demoting
    Adversarial Robustness" (2021), Tables 12 and 13.
    """
    cells, rows = _checked(names, accuracy, clean)
    width = NARROW if narrow else min(WIDE, 3.2 + 0.8 * len(names))
    figure = blank(width, 1.6 + 0.42 * len(rows))
    axes = figure.subplots()
    image = axes.imshow(cells, cmap="viridis", vmin=0.0, vmax=1.0, aspect="auto")
    if len(names) <= _NUMBERED:
        for (row, column), share in np.ndenumerate(cells):
            ink = INK if share > 0.6 else "white"
            text = f"{100 * share:.1f}" if not narrow or len(names) <= 4 else f"{100 * share:.0f}"
            axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=8)
    labels = [shorten(name, _LETTERS) for name in names]
    axes.set_xticks(range(len(names)), labels, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), [shorten(name, _LETTERS) for name in rows])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("Accuracy of")
    axes.set_ylabel("Crafted on")
    bar = figure.colorbar(image, ax=axes, format=lambda value, _: f"{value:.0%}")
    bar.outline.set_visible(False)
    plain_text(figure)
    return figure


def _checked(names: Sequence[str], accuracy: Any, clean: Any) -> tuple[np.ndarray, list[str]]:
    """The cells, and the names of their rows."""
    cells, rows = np.asarray(accuracy, float), list(names)
    if cells.shape != (len(names), len(names)) or not len(names):
        raise ValueError(
            f"accuracy has shape {cells.shape} for {len(names)} names; expected "
            f"({len(names)}, {len(names)}), sources by targets."
        )
    if clean is not None:
        top = np.asarray(clean, float)
        if top.shape != (len(names),):
            raise ValueError(f"clean has shape {top.shape}; expected one share for each name.")
        cells, rows = np.concatenate([top[None], cells]), ["no attack", *rows]
    if not ((cells >= 0) & (cells <= 1)).all():
        raise ValueError("accuracy and clean hold what is no share; expected numbers in [0, 1].")
    return cells, rows
