"""Confusion matrices before and after an attack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from keras_robust.plots.class_colors import MAX_NAMES
from keras_robust.plots.style import (
    INK,
    NARROW,
    ON_COLOR,
    WIDE,
    disable_math_text,
    new_figure,
    shorten,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

MAX_COUNTS = 12  # classes up to which each cell has room for its count


@styled
def confusion_matrix(
    clean: ArrayLike | None,
    adversarial: ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
    *,
    narrow: bool = False,
) -> Figure:
    """Draws confusion matrices of clean and attacked images, shaded by fraction of the true class.

    Args:
        clean: counts `[classes, classes]`, one row per true class; or None.
        adversarial: the same on attacked images; or None.
        class_names: one name per class; by default the numbers from 0.
        narrow: lays out for the width of a phone, the attacked matrix below the clean one.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: no matrix, or a matrix that is not square or does not match the names.

    Example:
        >>> figure = confusion_matrix([[9, 1], [0, 10]], [[4, 6], [7, 3]], ["cat", "dog"])
        >>> [axes.get_title() for axes in figure.axes[:2]]
        ['Clean', 'Attacked']
    """
    panels = [
        (title, _square(title, matrix, class_names))
        for title, matrix in (("Clean", clean), ("Attacked", adversarial))
        if matrix is not None
    ]
    if not panels:
        raise ValueError("clean and adversarial are None; expected at least one confusion matrix.")
    names = [str(name) for name in (class_names or range(len(panels[0][1])))]
    if narrow:
        figure = new_figure(NARROW, 0.7 + (4.0 if _upright(names) else 3.6) * len(panels))
        grid = figure.subplots(len(panels), 1, squeeze=False)
    else:
        figure = new_figure(WIDE if len(panels) == 2 else 4.2, 4.7 if _upright(names) else 4.3)
        grid = figure.subplots(1, len(panels), squeeze=False)
    for axes, (title, counts) in zip(grid.flat, panels, strict=True):
        image = _panel(axes, title, counts, names)
    bar = figure.colorbar(
        image,
        ax=list(grid.flat),
        orientation="horizontal",
        location="bottom",
        shrink=0.6,
        aspect=30,
        format=lambda value, _: f"{value:.0%}",
    )
    bar.set_label("Fraction of the true class")
    bar.outline.set_visible(False)
    disable_math_text(figure)
    return figure


def _square(title: str, matrix: ArrayLike, class_names: Sequence[str] | None) -> np.ndarray:
    counts = np.asarray(matrix)
    expected = len(class_names) if class_names else len(counts)
    if counts.shape != (expected, expected) or expected == 0:
        raise ValueError(
            f"The confusion matrix {title!r} has shape {counts.shape}; "
            f"expected ({expected}, {expected})."
        )
    return counts


def _panel(axes: Axes, title: str, counts: np.ndarray, names: list[str]) -> AxesImage:
    """Draws one matrix; a class without images has a white row."""
    classes = len(names)
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(fractions, cmap=_shades(), vmin=0.0, vmax=1.0, interpolation="none")
    if classes <= MAX_COUNTS:
        for row, column in np.argwhere(counts > 0):
            ink = ON_COLOR if fractions[row, column] > 0.55 else INK
            text = f"{counts[row, column]}"
            axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=7.5)
    shown = np.arange(0, classes, -(-classes // MAX_NAMES))  # every class, or every second, ...
    labels = [shorten(names[index], 12) for index in shown]
    axes.set_xticks(shown, labels, rotation=90 if _upright(names) else 0, fontsize=8)
    axes.set_yticks(shown, labels, fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title)
    axes.set_xlabel("Predicted class")
    axes.set_ylabel("True class")
    return image


def _shades() -> ListedColormap:
    """From no color to blue, on paper of any color."""
    from matplotlib.colors import ListedColormap, to_rgb

    return ListedColormap([(*to_rgb("#0b5ea8"), alpha / 255) for alpha in range(256)])


def _upright(names: list[str]) -> bool:
    """Whether the names below a matrix are too wide for a cell and must be rotated."""
    return len(names) > MAX_COUNTS or max(map(len, names)) > 2
