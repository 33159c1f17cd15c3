"""The loss and the predictions around an example, over two directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from keras_robust.plots.class_colors import ClassColors, class_name
from keras_robust.plots.style import INK, NARROW, WIDE, disable_math_text, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ALONG, _ACROSS = "Along the gradient (L2 distance)", "Random direction (L2 distance)"
_LOSS = "Cross-entropy (nats)"


@styled
def loss_surface(
    steps: ArrayLike,
    losses: ArrayLike,
    labels: ArrayLike,
    label: int,
    class_names: Sequence[str] | None = None,
    *,
    ball: ArrayLike | None = None,
    flat: bool = True,
    narrow: bool = False,
) -> Figure:
    """Draws the loss over two directions, and the predicted classes next to it.

    Args:
        steps: `[points]`, L2 distance of each column, and of each row, from the example.
        losses: `[points, points]`; columns step along the gradient, rows along a random direction.
        labels: `[points, points]`, the predicted classes.
        label: the true class.
        class_names: one name per class; by default the numbers from 0.
        ball: `[corners, 2]`, the outline of the threat model on this square, such as
            `evaluation.input_surface(..., ball=ball).ball`: only the points inside are adversarial
            examples. None draws no outline.
        flat: draws the loss as color with contour lines; otherwise as a surface in three
            dimensions.
        narrow: lays out for the width of a phone, the classes below the loss.

    Returns:
        A matplotlib figure; a cross marks the example.

    Raises:
        ValueError: shapes that disagree, or non-finite numbers.

    Example:
        >>> steps = np.linspace(-1, 1, 3)
        >>> along, across = np.meshgrid(steps, steps)
        >>> figure = loss_surface(steps, along + across**2, along > 0.5, 0, ["cat", "dog"])
        >>> [axes.get_title() for axes in figure.axes if axes.get_title()]
        ['Loss', 'Predicted class (true: cat)']

    Reference: Bui et al., "Improving Adversarial Robustness by Enforcing Local and Global
    Compactness" (ADR, 2020), Figure 3.
    """
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    steps, losses, labels = _checked(steps, losses, labels)
    outline = _outline(ball)
    figure = new_figure(NARROW, 7.6) if narrow else new_figure(WIDE, 3.9)
    rows, columns = (2, 1) if narrow else (1, 2)
    if flat:
        _contours(figure, figure.add_subplot(rows, columns, 1), steps, losses, outline, narrow)
    else:
        _surface(figure.add_subplot(rows, columns, 1, projection="3d"), steps, losses, outline)
    axes = figure.add_subplot(rows, columns, 2)
    colors = ClassColors(labels, class_names)
    _classes(axes, steps, labels, outline, colors)
    axes.set_title(f"Predicted class (true: {class_name(label, class_names)})")
    colors.bar(figure, axes, "", narrow)
    marks = axes.get_legend_handles_labels()[0]
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks))
    # The layout forgets a part of the titles above axes of a fixed aspect.
    layout = figure.get_layout_engine()
    if isinstance(layout, ConstrainedLayoutEngine):
        layout.set(rect=(0, 0, 1, 0.97))
    disable_math_text(figure)
    return figure


def _surface(axes: Any, steps: np.ndarray, losses: np.ndarray, outline: np.ndarray | None) -> None:
    along, across = np.meshgrid(steps, steps)
    axes.plot_surface(
        along, across, losses, cmap="viridis", rcount=60, ccount=60, linewidth=0, antialiased=False
    )
    if outline is not None:
        axes.plot(*outline.T, zs=losses.min(), color=INK, linewidth=1.2, clip_on=True)
        axes.set(xlim=(steps[0], steps[-1]), ylim=(steps[0], steps[-1]))
    axes.set_title("Loss")
    axes.set_xlabel(_ALONG, fontsize=7)
    axes.set_ylabel(_ACROSS, fontsize=7)
    axes.set_zlabel(_LOSS, fontsize=7)
    axes.locator_params(nbins=4)
    axes.tick_params(pad=0, labelsize=7)
    axes.view_init(elev=28, azim=-125)
    axes.set_box_aspect((1, 1, 0.75), zoom=0.82)


def _contours(
    figure: Figure,
    axes: Axes,
    steps: np.ndarray,
    losses: np.ndarray,
    outline: np.ndarray | None,
    narrow: bool,
) -> None:
    from matplotlib.ticker import MaxNLocator

    areas = axes.contourf(steps, steps, losses, levels=24, cmap="viridis")
    areas.set_edgecolor("face")  # no seams between areas in vector graphics
    axes.contour(steps, steps, losses, levels=8, colors="white", linewidths=0.5, alpha=0.6)
    bar = figure.colorbar(
        areas, ax=axes, location="bottom" if narrow else "right", shrink=0.75, aspect=25
    )
    bar.outline.set_visible(False)
    bar.set_label(_LOSS)
    bar.locator = MaxNLocator(6)
    bar.update_ticks()
    axes.set_title("Loss")
    _mark_example(axes, outline)


def _classes(
    axes: Axes,
    steps: np.ndarray,
    labels: np.ndarray,
    outline: np.ndarray | None,
    colors: ClassColors,
) -> None:
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
    _mark_example(axes, outline)


def _mark_example(axes: Axes, outline: np.ndarray | None) -> None:
    """Marks the example, and the threat model around it, so that no color hides them."""
    limits = (axes.get_xlim(), axes.get_ylim())
    for color, width in (("white", 1.5), (INK, 0.0)):
        label = None if color == "white" else "threat model"
        if outline is not None:
            axes.plot(*outline.T, color=color, linewidth=1.4 + width, label=label)
        label = None if color == "white" else "example"
        axes.plot([0.0], [0.0], marker="x", color=color, linestyle="none", markersize=9,
                  markeredgewidth=1.8 + 1.5 * width, label=label)  # fmt: skip
    axes.set(xlabel=_ALONG, ylabel=_ACROSS, aspect="equal", xlim=limits[0], ylim=limits[1])
    axes.locator_params(nbins=5)


def _outline(ball: ArrayLike | None) -> np.ndarray | None:
    """The closed outline `[corners + 1, 2]` of a ball."""
    if ball is None:
        return None
    corners = np.asarray(ball, np.float64)
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3:
        raise ValueError(f"ball has shape {corners.shape}; expected [corners, 2], at least 3.")
    if not np.isfinite(corners).all():
        raise ValueError("Some corners of ball are not finite; expected finite numbers.")
    return np.concatenate([corners, corners[:1]])


def _checked(
    steps: ArrayLike, losses: ArrayLike, labels: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
