"""Predictions of an ensemble and its members on an image, before and after an attack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from keras_robust.core.validation import check_integer
from keras_robust.plots.class_colors import class_name
from keras_robust.plots.style import (
    ATTACKED,
    CLEAN,
    NARROW,
    WIDE,
    disable_math_text,
    draw_image,
    new_figure,
    styled,
    unit_images,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAX_CLASSES = 10  # room for the bars
_KINDS = ("Clean", "Attacked")


@styled
def member_predictions(
    images: ArrayLike,
    member_probabilities: ArrayLike,
    probabilities: ArrayLike,
    label: int,
    class_names: Sequence[str] | None = None,
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    narrow: bool = False,
) -> Figure:
    """Draws a clean and an attacked image next to the class probabilities of all members.

    The bar of the true class has its own color. Of more than 10 classes, the true one and those
    with the largest probabilities are drawn.

    Args:
        images: `[2, height, width, channels]`: clean and attacked; 1 or 3 channels.
        member_probabilities: `[2, members, classes]`, of each member.
        probabilities: `[2, classes]`, of the ensemble.
        label: the true class.
        class_names: one name per class; by default the numbers from 0.
        bounds: the pixel values of black and white.
        narrow: lays out for the width of a phone, with clean and attacked as columns, not rows.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: shapes that disagree, pixels outside the bounds, or numbers that are not
            probabilities.

    Example:
        >>> images, members = np.zeros((2, 8, 8, 1)), np.full((2, 3, 4), 0.25)
        >>> figure = member_predictions(images, members, members.mean(axis=1), label=2)
        >>> [axes.get_title() for axes in figure.axes[:5]]
        ['true: 2', 'Member 1', 'Member 2', 'Member 3', 'Ensemble']

    Reference: Bui et al., "Improving Ensemble Robustness by Collaboratively Promoting and Demoting
    Adversarial Robustness" (2021), Figure 5.
    """
    images, heights = _checked(images, member_probabilities, probabilities, label)
    images = unit_images(images, bounds)
    columns = heights.shape[1] + 1
    shown = _classes(heights, label)
    names = [class_name(index, class_names) for index in shown]
    titles = [f"true: {class_name(label, class_names)}"]
    titles += [f"Member {number}" for number in range(1, columns - 1)] + ["Ensemble"]
    figure, grid = _grid(columns, narrow)
    for k, kind in enumerate(_KINDS):
        draw_image(grid[k, 0], images[k])
        for column in range(1, columns):
            _bars(grid[k, column], heights[k, column - 1, shown], names, shown == label)
        if narrow:
            grid[k, 0].set_title(kind)
        else:
            grid[k, 0].set_ylabel(kind)
            grid[k, 1].set_ylabel("Probability", fontsize=8)
    for column, title in enumerate(titles):
        if narrow:
            grid[0, column].set_ylabel(title, fontsize=9)
        else:
            grid[0, column].set_title(title, fontsize=9)
            if column:
                grid[-1, column].set_xlabel("Class", fontsize=8)
    disable_math_text(figure)
    return figure


def _checked(
    images: ArrayLike, member_probabilities: ArrayLike, probabilities: ArrayLike, label: int
) -> tuple[np.ndarray, np.ndarray]:
    """The images, and the probabilities `[2, members + 1, classes]`, the ensemble's last."""
    images = np.asarray(images, np.float64)
    members, ensemble = np.asarray(member_probabilities), np.asarray(probabilities)
    if images.ndim != 4 or len(images) != 2 or images.shape[-1] not in (1, 3):
        raise ValueError(
            f"images have shape {images.shape}; expected [2, height, width, 1 or 3]: a clean and "
            "an attacked image."
        )
    if members.ndim != 3 or len(members) != 2 or ensemble.shape != (2, members.shape[2]):
        raise ValueError(
            f"member_probabilities have shape {members.shape}, probabilities {ensemble.shape}; "
            "expected [2, members, classes] and [2, classes]."
        )
    heights = np.concatenate([members, ensemble[:, None]], axis=1)
    if not ((heights >= 0) & (heights <= 1.001)).all():
        raise ValueError("Some probabilities are outside [0, 1]; expected those of a softmax.")
    check_integer("label", label)
    if label >= heights.shape[2]:
        raise ValueError(f"label is {label}; expected a class below {heights.shape[2]}.")
    return images, heights


def _classes(heights: np.ndarray, label: int) -> np.ndarray:
    """The classes to draw, in their order."""
    largest = heights.max(axis=(0, 1))
    largest[label] = np.inf
    return np.sort(np.argsort(-largest, kind="stable")[:_MAX_CLASSES])


def _bars(axes: Axes, heights: np.ndarray, names: list[str], true: np.ndarray) -> None:
    places = np.arange(len(names))
    axes.bar(places, heights, color=[CLEAN if is_true else ATTACKED for is_true in true])
    crowded = len(names) > 4 and max(map(len, names)) > 2
    axes.set_xticks(places, names, rotation=90 if crowded else 0, fontsize=7)
    axes.set_ylim(0.0, 1.0)
    axes.set_yticks([0.0, 0.5, 1.0])
    axes.tick_params(axis="y", labelsize=7)
    axes.grid(True, axis="y")


def _grid(columns: int, narrow: bool) -> tuple[Figure, np.ndarray]:
    """A figure and its axes `[2, columns]`: clean and attacked by member, transposed if narrow."""
    if narrow:
        figure = new_figure(NARROW, 0.5 + 1.7 * columns)
        return figure, figure.subplots(columns, 2, squeeze=False).T
    figure = new_figure(min(WIDE, 0.4 + 2.0 * columns), 3.8)
    return figure, figure.subplots(2, columns, squeeze=False)
