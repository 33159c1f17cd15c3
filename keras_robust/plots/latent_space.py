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


@styled
def latent_space(
    points: ArrayLike,
    entropies: ArrayLike,
    labels: ArrayLike,
    adversarial: ArrayLike,
    class_names: Sequence[str] | None = None,
    *,
    flat: bool = False,
    narrow: bool = False,
) -> Figure:
    """Draws projected latents, with the entropy of the prediction as height.

    Dots are clean images, triangles with a black edge attacked ones; the color is the true class.
    The flat plot shows the entropy as color instead, and writes the name of each class at its clean
    images.

    Args:
        points: `[n, 2]`, such as `evaluation.project(latents.features)`.
        entropies: `[n]`, in nats.
        labels: `[n]`, true classes.
        adversarial: `[n]` bool, True for attacked images.
        class_names: one name per class; by default the numbers from 0.
        flat: draws in two dimensions.
        narrow: lays out for the width of a phone.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: no points, lengths that differ, or non-finite numbers.

    Example:
        >>> figure = latent_space([[0, 0], [1, 2]], [0.1, 0.7], [3, 3], [False, True])
        >>> figure.axes[0].get_zlabel()
        'Entropy (nats)'

    Reference: Bui et al., "Improving Adversarial Robustness by Enforcing Local and Global
    Compactness" (ADR, 2020), Figures 4 and 5.
    """
    places, heights, classes, attacked = _checked(points, entropies, labels, adversarial)
    figure = new_figure(NARROW, 4.6) if narrow else new_figure(0.8 * WIDE, 5.2)
    colors = ClassColors(classes, class_names)
    # Attacked images last, on top of the clean ones.
    kinds = {
        name: mask for name, mask in (("clean", ~attacked), ("attacked", attacked)) if mask.any()
    }
    if flat:
        axes = figure.subplots()
        _draw_flat(figure, axes, places, heights, kinds, narrow)
        _write_names(axes, places[~attacked], classes[~attacked], colors)
    else:
        axes = figure.add_subplot(projection="3d")
        _draw_3d(axes, places, heights, classes, kinds, colors)
        colors.bar(figure, axes, "True class", narrow)
        # The layout ignores the label of the height, so that the box has to leave room for it.
        axes.set_box_aspect((1, 1, 0.85), zoom=0.84 if narrow else 0.93)
    _legend(figure, list(kinds))
    disable_math_text(figure)
    return figure


def _draw_flat(
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
            x, y, c=entropies[mask], vmin=0.0, vmax=top, cmap="viridis", **_marker_style(name)
        )
    bar = figure.colorbar(
        dots, ax=axes, location="bottom" if narrow else "right", shrink=0.75, aspect=25
    )
    bar.set_label("Entropy (nats)")
    bar.outline.set_visible(False)
    axes.set(xticks=[], yticks=[], xlabel="t-SNE", aspect="equal", adjustable="datalim")


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
            **_marker_style(name),
        )
    axes.set(xticks=[], yticks=[], xlabel="t-SNE", zlabel="Entropy (nats)")
    axes.set_zlim(bottom=0.0)
    axes.xaxis.labelpad = -8
    axes.view_init(elev=22, azim=-60)
    axes.zaxis.labelpad = 2
    axes.tick_params(pad=0, labelsize=8)


def _marker_style(name: str) -> dict[str, Any]:
    if name == "clean":
        return {"marker": "o", "s": 12, "linewidths": 0, "alpha": 0.75}
    return {"marker": "^", "s": 26, "linewidths": 0.7, "edgecolors": "black"}


def _write_names(axes: Axes, places: np.ndarray, classes: np.ndarray, colors: ClassColors) -> None:
    from matplotlib.patheffects import withStroke

    for index, name in zip(colors.present, colors.names, strict=True):
        own = places[classes == index]
        if len(own):
            # The image nearest to the median: the median of two clusters is in neither.
            x, y = own[np.argmin(np.linalg.norm(own - np.median(own, axis=0), axis=1))]
            text = axes.text(x, y, name, ha="center", va="center", color=INK, weight="bold")
            text.set_path_effects([withStroke(linewidth=_HALO, foreground="white")])


def _legend(figure: Figure, kinds: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    marks = [
        Line2D(
            [],
            [],
            linestyle="none",
            marker=style["marker"],
            color="#bbbbbb",
            markeredgecolor=style.get("edgecolors", "#bbbbbb"),
            label=name,
        )
        for name, style in ((name, _marker_style(name)) for name in kinds)
    ]
    figure.legend(handles=marks, loc="outside upper left", ncols=2)


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
