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
    styled,
    wrap,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LETTERS = 22  # of a line of a name
_MAX_NUMBERS = 10  # models up to which each cell has room for its number


@styled
def transfer_matrix(
    names: Sequence[str],
    accuracy: ArrayLike,
    clean: ArrayLike | None = None,
    *,
    attack: str = "",
    radius: float | None = None,
    samples: int | None = None,
    narrow: bool = False,
) -> Figure:
    """Draws the accuracy of each target model on the examples crafted on each source model.

    White-box cells, in which source and target are the same model, have a frame.

    Args:
        names: of the models, which are both sources and targets.
        accuracy: `[sources, targets]`, fractions; dark cells mark successful transfer.
        clean: the accuracy of each model on clean images, drawn as the first row.
        attack: name of the attack, for the title, as the next two.
        radius: radius of its ball.
        samples: number of images.
        narrow: lays out for the width of a phone.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: shapes that disagree, or a number outside [0, 1].

    Example:
        >>> figure = transfer_matrix(
        ...     ["a", "b"], [[0.1, 0.8], [0.7, 0.2]], attack="PGD-20", radius=0.3, samples=200
        ... )
        >>> figure.axes[0].get_title()
        'PGD-20, radius 0.3, n = 200'

    Reference: Bui et al., "Improving Ensemble Robustness by Collaboratively Promoting and Demoting
    Adversarial Robustness" (2021), Tables 12 and 13.
    """
    cells, rows = _checked(names, accuracy, clean)
    labels = [wrap(name, _LETTERS) for name in names]
    lines = 1 + max(label.count("\n") for label in labels)  # of the longest name
    width = NARROW if narrow else min(WIDE, 3.2 + 0.9 * len(names))
    figure = new_figure(
        width, (3.0 if narrow else 2.0) + max(0.42, 0.2 * lines) * len(rows) + 0.12 * lines
    )
    axes = figure.subplots()
    image = axes.imshow(cells, cmap="viridis", vmin=0.0, vmax=1.0, aspect="auto")
    if len(names) <= _MAX_NUMBERS:
        digits = 1 if not narrow or len(names) <= 4 else 0
        for (row, column), value in np.ndenumerate(cells):
            ink = INK if value > 0.6 else "white"
            text = f"{100 * value:.{digits}f}"
            axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=8)
    axes.set_xticks(
        range(len(names)),
        labels,
        rotation=90 if narrow else 35,
        ha="right",
        va="center" if narrow else "top",
        rotation_mode="anchor",
        fontsize=8,
    )
    axes.set_yticks(range(len(rows)), [wrap(name, _LETTERS) for name in rows], fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("Target model")
    axes.set_ylabel("Crafted on")
    _mark_cells(axes, len(names), clean is not None)
    about = (
        attack,
        "" if radius is None else f"radius {radius:.4g}",
        "" if samples is None else f"n = {samples:,}",
    )
    axes.set_title(wrap(", ".join(filter(None, about)), 30 if narrow else 70))
    bar = figure.colorbar(
        image,
        ax=axes,
        location="bottom" if narrow else "right",
        format=lambda value, _: f"{value:.0%}",
    )
    bar.set_label("Accuracy")
    bar.outline.set_visible(False)
    disable_math_text(figure)
    return figure


def _mark_cells(axes: Axes, count: int, has_clean: bool) -> None:
    """Frames the diagonal, and sets the row without an attack apart."""
    from matplotlib.patches import Rectangle

    for index in range(count):
        corner = (index - 0.5, index + int(has_clean) - 0.5)
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="white", linewidth=1.6))
    if has_clean:
        axes.axhline(0.5, color="white", linewidth=4)


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
