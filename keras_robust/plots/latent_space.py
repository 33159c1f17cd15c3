"""Clean and attacked images in the latent space, with the entropy of their predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from keras_robust.plots.class_colors import ClassColors
from keras_robust.plots.style import INK, NARROW, WIDE, disable_math_text, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HALO = 2.5  # white outline, in points, of a name written over dots
_AXES = ("t-SNE, first coordinate", "t-SNE, second coordinate")
# From the bottom to the top of the plot: the fooled ones are few, and what one looks for.
_MARKERS: dict[str, dict[str, Any]] = {
    "clean": {"marker": "o", "s": 12, "linewidths": 0, "alpha": 0.75},
    "attacked": {"marker": "^", "s": 26, "linewidths": 0.7, "edgecolors": "black"},
    "attacked, correct": {"marker": "^", "s": 20, "linewidths": 0, "alpha": 0.75},
    "attacked, fooled": {"marker": "X", "s": 52, "linewidths": 0.6, "edgecolors": "black"},
}


@styled
def latent_space(
    points: ArrayLike,
    entropies: ArrayLike,
    labels: ArrayLike,
    adversarial: ArrayLike,
    class_names: Sequence[str] | None = None,
    *,
    fooled: ArrayLike | None = None,
    flat: bool = True,
    narrow: bool = False,
) -> Figure:
    """Draws projected latents: by true class, and by the entropy of the prediction.

    Dots are clean images, triangles attacked ones, and crosses attacked ones that fool the model.
    The first panel has the color of the true class, with its name at its clean images; the second
    has the entropy as color. In three dimensions one panel has the entropy as height.

    Args:
        points: `[n, 2]`, such as `evaluation.project(latents.features)`.
        entropies: `[n]`, in nats.
        labels: `[n]`, true classes.
        adversarial: `[n]` bool, True for attacked images.
        class_names: one name per class; by default the numbers from 0.
        fooled: `[n]` bool, True for attacked images that are misclassified, such as
            `latents.fooling`; None to mark all attacked images alike.
        flat: draws in two dimensions; otherwise in three.
        narrow: lays out for the width of a phone, one panel below the other.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: no points, lengths that differ, or non-finite numbers.

    Example:
        >>> figure = latent_space([[0, 0], [1, 2]], [0.1, 0.7], [3, 3], [False, True])
        >>> [axes.get_title() for axes in figure.axes[:2]]
        ['True class', 'Entropy of the prediction']

    Reference: Bui et al., "Improving Adversarial Robustness by Enforcing Local and Global
    Compactness" (ADR, 2020), Figures 4 and 5.
    """
    places, heights, classes, attacked = _checked(points, entropies, labels, adversarial)
    kinds = _kinds(attacked, fooled)
    colors = ClassColors(classes, class_names)
    if flat:
        figure = new_figure(NARROW, 8.0) if narrow else new_figure(WIDE, 4.4)
        first, second = figure.subplots(*((2, 1) if narrow else (1, 2)))
        _draw_classes(first, places, classes, kinds, colors)
        _write_names(first, places[~attacked], classes[~attacked], colors)
        _draw_entropies(figure, second, places, heights, kinds, narrow)
        for axes in (first, second):
            axes.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")
            axes.set_xlabel(_AXES[0])
            axes.set_ylabel(_AXES[1] if narrow or axes is first else "")
    else:
        figure = new_figure(NARROW, 4.6) if narrow else new_figure(0.8 * WIDE, 5.2)
        axes = figure.add_subplot(projection="3d")
        _draw_3d(axes, places, heights, classes, kinds, colors)
        colors.bar(figure, axes, "True class", narrow)
        # The layout ignores the label of the height, so that the box has to leave room for it.
        axes.set_box_aspect((1, 1, 0.85), zoom=0.84 if narrow else 0.93)
    _legend(figure, list(kinds), 2 if narrow else len(kinds))
    disable_math_text(figure)
    return figure


def _kinds(attacked: np.ndarray, fooled: ArrayLike | None) -> dict[str, np.ndarray]:
    """The images of each marker; kinds without images are left out."""
    masks = {"clean": ~attacked}
    if fooled is None:
        masks["attacked"] = attacked
    else:
        fooling = np.asarray(fooled, bool)
        if fooling.shape != attacked.shape or (fooling & ~attacked).any():
            raise ValueError(
                f"fooled has shape {fooling.shape} and {int(fooling.sum())} images; expected "
                f"[{len(attacked)}], some of the attacked images."
            )
        masks["attacked, correct"] = attacked & ~fooling
        masks["attacked, fooled"] = fooling
    return {name: mask for name, mask in masks.items() if mask.any()}


def _draw_classes(
    axes: Axes,
    places: np.ndarray,
    classes: np.ndarray,
    kinds: Mapping[str, np.ndarray],
    colors: ClassColors,
) -> None:
    for name, mask in kinds.items():
        x, y = places[mask].T
        ranks = colors.ranks(classes[mask])
        axes.scatter(x, y, c=ranks, cmap=colors.map, norm=colors.norm, **_MARKERS[name])
    axes.set_title("True class")


def _draw_entropies(
    figure: Figure,
    axes: Axes,
    places: np.ndarray,
    entropies: np.ndarray,
    kinds: Mapping[str, np.ndarray],
    narrow: bool,
) -> None:
    top = max(float(entropies.max()), 1e-6)
    for name, mask in kinds.items():
        x, y = places[mask].T
        dots = axes.scatter(
            x, y, c=entropies[mask], vmin=0.0, vmax=top, cmap="viridis", **_MARKERS[name]
        )
    bar = figure.colorbar(
        dots, ax=axes, location="bottom" if narrow else "right", shrink=0.75, aspect=25
    )
    bar.set_label("Entropy (nats)")
    bar.outline.set_visible(False)
    axes.set_title("Entropy of the prediction")


def _draw_3d(
    axes: Any,
    places: np.ndarray,
    entropies: np.ndarray,
    classes: np.ndarray,
    kinds: Mapping[str, np.ndarray],
    colors: ClassColors,
) -> None:
    for name, mask in kinds.items():
        x, y = places[mask].T
        axes.scatter(
            x,
            y,
            entropies[mask],
            c=colors.ranks(classes[mask]),
            cmap=colors.map,
            norm=colors.norm,
            depthshade=False,
            **_MARKERS[name],
        )
    axes.set(xticks=[], yticks=[], xlabel=_AXES[0], ylabel=_AXES[1], zlabel="Entropy (nats)")
    axes.set_zlim(bottom=0.0)
    axes.xaxis.labelpad = axes.yaxis.labelpad = -8
    axes.view_init(elev=22, azim=-60)
    axes.zaxis.labelpad = 2
    axes.tick_params(pad=0, labelsize=8)


def _write_names(axes: Axes, places: np.ndarray, classes: np.ndarray, colors: ClassColors) -> None:
    from matplotlib.patheffects import withStroke

    for index, name in zip(colors.present, colors.names, strict=True):
        own = places[classes == index]
        if len(own):
            # The image nearest to the median: the median of two clusters is in neither.
            x, y = own[np.argmin(np.linalg.norm(own - np.median(own, axis=0), axis=1))]
            text = axes.text(x, y, name, ha="center", va="center", color=INK, weight="bold")
            text.set_path_effects([withStroke(linewidth=_HALO, foreground="white")])


def _legend(figure: Figure, kinds: Sequence[str], columns: int) -> None:
    from matplotlib.lines import Line2D

    marks = [
        Line2D(
            [],
            [],
            linestyle="none",
            marker=style["marker"],
            markersize=style["s"] ** 0.5,
            color="#bbbbbb",
            markeredgecolor=style.get("edgecolors", "#bbbbbb"),
            label=name,
        )
        for name, style in ((name, _MARKERS[name]) for name in kinds)
    ]
    figure.legend(handles=marks, loc="outside upper left", ncols=columns)


def _checked(
    points: ArrayLike, entropies: ArrayLike, labels: ArrayLike, adversarial: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    places, heights = np.asarray(points, np.float64), np.asarray(entropies, np.float64)
    classes, attacked = np.asarray(labels), np.asarray(adversarial, bool)
    shapes = {name: part.shape for name, part in (
        ("entropies", heights), ("labels", classes), ("adversarial", attacked)
    )}  # fmt: skip
    if places.ndim != 2 or places.shape[1] != 2 or not len(places):
        raise ValueError(f"Points have shape {places.shape}; expected [n, 2], n at least 1.")
    if any(shape != (len(places),) for shape in shapes.values()):
        raise ValueError(f"Received {len(places)} points and {shapes}; expected equal lengths.")
    if not (np.isfinite(places).all() and np.isfinite(heights).all()):
        raise ValueError("Some points or entropies are not finite; expected finite numbers.")
    return places, heights, classes, attacked
