"""Classifiers of points in the plane: decision regions, data and attack trajectories."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from keras_robust.plots.style import (
    COLORS,
    FAINT,
    INK,
    MARKERS,
    WIDE,
    disable_math_text,
    new_figure,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 2


@dataclasses.dataclass(frozen=True, eq=False)
class Panel:
    """One panel of `decision_regions`: a classifier, or an attack on it.

    Args:
        title: of the panel.
        points: `[n, 2]`.
        labels: their classes `[n]`, 0 or 1.
        paths: attack trajectories, `[steps, paths, 2]`; None for none.
        radius: of the Linf ball drawn around the start of each path; None for none.
    """

    title: str
    points: ArrayLike
    labels: ArrayLike
    paths: ArrayLike | None = None
    radius: float | None = None


@styled
def decision_regions(
    panels: Sequence[Panel],
    fields: Sequence[ArrayLike],
    extent: tuple[float, float, float, float],
    class_names: Sequence[str] = ("0", "1"),
) -> Figure:
    """Draws panels in two columns, shaded by the probability of class 1, with the line of 1/2.

    Args:
        panels: at least one.
        fields: one per panel: the probability of class 1 on a grid of the extent,
            `[rows, columns]` from the lower left corner.
        extent: `(left, right, bottom, top)` of the plane.
        class_names: of the two classes.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: no panels, or a different number of fields.

    Example:
        >>> panel = Panel("PGD", points=[[0.0, 0.0]], labels=[1])
        >>> figure = decision_regions([panel], [[[0.0, 1.0], [0.0, 1.0]]], (-1, 1, -1, 1))
        >>> figure.axes[0].get_title()
        'PGD'
    """
    if not panels or len(panels) != len(fields):
        raise ValueError(
            f"Received {len(panels)} panels and {len(fields)} fields; expected the same number, at "
            "least one."
        )
    rows = -(-len(panels) // _COLUMNS)
    width = WIDE if len(panels) > 1 else WIDE / _COLUMNS + 0.6
    columns = min(len(panels), _COLUMNS)
    height = (width / columns) * (extent[3] - extent[2]) / (extent[1] - extent[0]) + 0.55
    figure = new_figure(width, rows * height + 0.4)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes in grid.flat[: len(panels)][-columns:]:  # the lowest of each column
        axes.tick_params(labelbottom=True)
    for axes, panel, field in zip(grid.flat, panels, fields, strict=False):
        _draw(axes, panel, np.asarray(field), extent, class_names)
    figure.supxlabel("First coordinate", fontsize=10)
    figure.supylabel("Second coordinate", fontsize=10)
    handles = _legend_handles(grid.flat)
    names = list(handles)
    figure.legend(
        handles.values(), names, loc="outside upper center", ncols=len(names), markerscale=2
    )
    disable_math_text(figure)
    return figure


def _legend_handles(grid: Iterable[Axes]) -> dict[str, Artist]:
    """Every label of any panel, once."""
    handles: dict[str, Artist] = {}
    for axes in grid:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    return handles


def _draw(
    axes: Axes,
    panel: Panel,
    field: np.ndarray,
    extent: tuple[float, float, float, float],
    class_names: Sequence[str],
) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    shades = LinearSegmentedColormap.from_list("classes", (COLORS[1], "white", COLORS[0]))
    axes.imshow(
        field, extent=extent, origin="lower", cmap=shades, vmin=0, vmax=1, alpha=0.35, aspect="auto"
    )
    xs = np.linspace(extent[0], extent[1], field.shape[1])
    ys = np.linspace(extent[2], extent[3], field.shape[0])
    if field.min() < 0.5 < field.max():
        axes.contour(xs, ys, field, levels=[0.5], colors=INK, linewidths=1.5)
    points, labels = np.asarray(panel.points), np.asarray(panel.labels)
    for label, color, name in zip((0, 1), (COLORS[1], COLORS[0]), class_names, strict=True):
        x, y = points[labels == label].T
        axes.scatter(
            x, y, s=4, color=color, marker=MARKERS[label], linewidths=0, label=f"class {name}"
        )
    if panel.paths is not None:
        paths = np.asarray(panel.paths)
        axes.plot(paths[..., 0], paths[..., 1], color=INK, linewidth=0.8, alpha=0.8)
        x, y = paths[-1].T
        axes.scatter(x, y, s=16, color=INK, marker="x", linewidths=1, label="attacked")
        if panel.radius is not None:
            _draw_balls(axes, paths[0], panel.radius)
    axes.set_xlim(extent[:2])
    axes.set_ylim(extent[2:])
    axes.set_title(panel.title)


def _draw_balls(axes: Axes, centers: np.ndarray, radius: float) -> None:
    from matplotlib.patches import Rectangle

    for x, y in centers:
        axes.add_patch(
            Rectangle(
                (x - radius, y - radius), 2 * radius, 2 * radius, fill=False, color=FAINT, lw=0.6
            )
        )
