"""The loss around an example, and what the model says there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_robust.plots.class_colors import ClassColors, class_name
from keras_robust.plots.style import INK, NARROW, WIDE, blank, plain_text, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ALONG, _ACROSS = "Gradient direction", "Random direction"


@styled
def loss_surface(
    steps: Sequence[float] | np.ndarray,
    losses: np.ndarray,
    labels: np.ndarray,
    label: int,
    class_names: Sequence[str] | None = None,
    *,
    flat: bool = False,
    narrow: bool = False,
) -> Figure:
    """Draws the loss over two directions as a surface, and the predicted classes beside it.

    Args:
        steps: `[points]`, how far each column, and each row, is from the example.
        losses: `[points, points]`; a column is a step along the gradient, a row one across it.
        labels: `[points, points]`, the predicted classes.
        label: the true class.
        class_names: one name per class; by default the numbers from 0.
        flat: draws the loss as colour, with lines of equal loss.
        narrow: draws for the width of a phone, the classes below the loss.

    Returns:
        A matplotlib figure; a cross marks the example.

    Raises:
        ValueError: when shapes differ, or something is not finite.

    Example:
        >>> steps = np.linspace(-1, 1, 3)
        >>> along, across = np.meshgrid(steps, steps)
        >>> figure = loss_surface(steps, along + across**2, along > 0.5, 0, ["cat", "dog"])
        >>> [axes.get_title() for axes in figure.axes[:2]]
        ['Loss', 'Predicted class (true: cat)']

    Reference: Bui et al., "Improving Adversarial Robustness by Enforcing Local and Global
    Compactness" (ADR, 2020), Figure 3.
    """
    steps, losses, labels = _checked(steps, losses, labels)
    figure = blank(NARROW, 7.2) if narrow else blank(WIDE, 3.9)
    place = (2, 1) if narrow else (1, 2)
    if flat:
        _contours(figure, figure.add_subplot(*place, 1), steps, losses, narrow)
    else:
        _heights(figure.add_subplot(*place, 1, projection="3d"), steps, losses)
    _classes(figure, figure.add_subplot(*place, 2), steps, labels, (label, class_names, narrow))
    plain_text(figure)
    return figure


def _heights(axes: Any, steps: np.ndarray, losses: np.ndarray) -> None:
    along, across = np.meshgrid(steps, steps)
    axes.plot_surface(
        along, across, losses, cmap="viridis", rcount=60, ccount=60, linewidth=0, antialiased=False
    )
    axes.set_title("Loss")
    axes.set(xlabel=_ALONG, ylabel=_ACROSS)
    axes.locator_params(nbins=4)
    axes.tick_params(pad=0, labelsize=8)
    axes.view_init(elev=28, azim=-125)
    axes.set_box_aspect((1, 1, 0.75), zoom=0.88)


def _contours(
    figure: Figure, axes: Any, steps: np.ndarray, losses: np.ndarray, narrow: bool
) -> None:
    areas = axes.contourf(steps, steps, losses, levels=24, cmap="viridis")
    areas.set_edgecolor("face")  # no seams between areas where they are drawn as outlines
    axes.contour(steps, steps, losses, levels=8, colors="white", linewidths=0.5, alpha=0.6)
    bar = figure.colorbar(
        areas, ax=axes, location="bottom" if narrow else "right", shrink=0.75, aspect=25
    )
    bar.outline.set_visible(False)
    bar.locator = _few_ticks()
    bar.update_ticks()
    axes.set_title("Loss")
    _square(axes)


def _classes(
    figure: Figure,
    axes: Any,
    steps: np.ndarray,
    labels: np.ndarray,
    words: tuple[int, Sequence[str] | None, bool],
) -> None:
    label, class_names, narrow = words
    colors = ClassColors(labels, class_names)
    half = (steps[1] - steps[0]) / 2
    edges = (steps[0] - half, steps[-1] + half)
    axes.imshow(
        colors.ranks(labels),
        cmap=colors.map,
        norm=colors.norm,
        extent=(*edges, *edges),
        origin="lower",
        interpolation="nearest",
    )
    axes.set_title(f"Predicted class (true: {class_name(label, class_names)})")
    _square(axes)
    colors.bar(figure, axes, "", narrow)


def _square(axes: Any) -> None:
    for color, width in (("white", 4.0), (INK, 1.8)):  # seen on every colour
        axes.plot([0.0], [0.0], marker="x", color=color, markersize=9, markeredgewidth=width)
    axes.set(xlabel=_ALONG, ylabel=_ACROSS, aspect="equal")
    axes.locator_params(nbins=5)


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(6)


def _checked(steps: Any, losses: Any, labels: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    steps, losses, labels = np.asarray(steps, np.float64), np.asarray(losses), np.asarray(labels)
    square = (len(steps), len(steps))
    if steps.ndim != 1 or len(steps) < 2 or losses.shape != square or labels.shape != square:
        raise ValueError(
            f"Steps have shape {steps.shape}, losses {losses.shape}, labels {labels.shape}; "
            "expected [points], [points, points] and [points, points], with at least 2 points."
        )
    if not (np.isfinite(steps).all() and np.isfinite(losses).all()):
        raise ValueError("Some steps or losses are not finite; expected finite numbers.")
    return steps, losses, labels.astype(int)
