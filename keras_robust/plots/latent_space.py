"""Where clean and attacked images lie in the latent space, and how sure the model is of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_robust.plots.class_colors import ClassColors
from keras_robust.plots.style import INK, NARROW, WIDE, blank, plain_text, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HALO = 2.5  # points of white around a name, which is written over dots


@styled
def latent_space(
    points: np.ndarray,
    entropies: Sequence[float] | np.ndarray,
    labels: Sequence[int] | np.ndarray,
    adversarial: Sequence[bool] | np.ndarray,
    class_names: Sequence[str] | None = None,
    *,
    flat: bool = False,
    narrow: bool = False,
) -> Figure:
    """Draws projected latents, with the entropy of the prediction as height.

    Dots are clean images, triangles with a black edge attacked ones, and the colour is the true
    class. The flat plot shows the entropy as colour instead, and writes the name of each class
    where its clean images are.

    Args:
        points: `[n, 2]`, such as `evaluation.project(latents.features)`.
        entropies: `[n]`, in nats.
        labels: `[n]`, true classes.
        adversarial: `[n]` bool, which points are of attacked images.
        class_names: one name per class; by default the numbers from 0.
        flat: draws in two dimensions.
        narrow: draws for the width of a phone.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: when there is nothing to draw, lengths differ, or something is not finite.

    Example:
        >>> figure = latent_space([[0, 0], [1, 2]], [0.1, 0.7], [3, 3], [False, True])
        >>> figure.axes[0].get_zlabel()
        'Entropy (nats)'

    Reference: Bui et al., "Improving Adversarial Robustness by Enforcing Local and Global
    Compactness" (ADR, 2020), Figures 4 and 5.
    """
    places, heights, classes, attacked = _checked(points, entropies, labels, adversarial)
    figure = blank(NARROW, 4.6) if narrow else blank(0.8 * WIDE, 5.2)
    colors = ClassColors(classes, class_names)
    # Attacked images last: they are fewer to look for, and the question of the plot.
    kinds = [
        (name, mask) for name, mask in (("clean", ~attacked), ("attacked", attacked)) if mask.any()
    ]
    if flat:
        axes = figure.subplots()
        top = max(float(heights.max()), 1e-6)
        for name, mask in kinds:
            x, y = places[mask].T
            dots = axes.scatter(
                x, y, c=heights[mask], vmin=0.0, vmax=top, cmap="viridis", **_look(name)
            )
        _bar(figure, axes, dots, narrow)
        _write_names(axes, places[~attacked], classes[~attacked], colors)
        axes.set(xticks=[], yticks=[], xlabel="t-SNE", aspect="equal", adjustable="datalim")
    else:
        axes = figure.add_subplot(projection="3d")
        for name, mask in kinds:
            x, y = places[mask].T
            axes.scatter(
                x,
                y,
                heights[mask],
                c=colors.ranks(classes[mask]),
                cmap=colors.map,
                norm=colors.norm,
                depthshade=False,
                **_look(name),
            )
        colors.bar(figure, axes, "True class", narrow)
        _stand(axes, narrow)
    _legend(figure, kinds)
    plain_text(figure)
    return figure


def _look(name: str) -> dict[str, Any]:
    if name == "clean":
        return {"marker": "o", "s": 12, "linewidths": 0, "alpha": 0.75}
    return {"marker": "^", "s": 26, "linewidths": 0.7, "edgecolors": "black"}


def _stand(axes: Any, narrow: bool) -> None:
    """The box of a plot in three dimensions, in which two axes have no unit."""
    axes.set(xticks=[], yticks=[], xlabel="t-SNE", zlabel="Entropy (nats)")
    axes.set_zlim(bottom=0.0)
    axes.xaxis.labelpad = -8
    axes.view_init(elev=22, azim=-60)
    axes.zaxis.labelpad = 2
    axes.tick_params(pad=0, labelsize=8)
    # The layout does not know of the label of the height: there has to be room for it.
    axes.set_box_aspect((1, 1, 0.85), zoom=0.84 if narrow else 0.93)


def _bar(figure: Figure, axes: Any, dots: Any, narrow: bool) -> None:
    bar = figure.colorbar(
        dots, ax=axes, location="bottom" if narrow else "right", shrink=0.75, aspect=25
    )
    bar.set_label("Entropy (nats)")
    bar.outline.set_visible(False)


def _write_names(axes: Any, places: np.ndarray, classes: np.ndarray, colors: ClassColors) -> None:
    from matplotlib.patheffects import withStroke

    for index, name in zip(colors.present, colors.names, strict=True):
        own = places[classes == index]
        if len(own):
            # The image nearest to the middle: the middle of two clusters is in neither.
            middle = own[np.argmin(np.linalg.norm(own - np.median(own, axis=0), axis=1))]
            text = axes.text(*middle, name, ha="center", va="center", color=INK, weight="bold")
            text.set_path_effects([withStroke(linewidth=_HALO, foreground="white")])


def _legend(figure: Figure, kinds: list[tuple[str, np.ndarray]]) -> None:
    from matplotlib.lines import Line2D

    looks = {name: _look(name) for name, _ in kinds}
    marks = [
        Line2D(
            [],
            [],
            linestyle="none",
            marker=look["marker"],
            color="#bbbbbb",
            markeredgecolor=look.get("edgecolors", "#bbbbbb"),
            label=name,
        )
        for name, look in looks.items()
    ]
    figure.legend(handles=marks, loc="outside upper left", ncols=2)


def _checked(
    points: Any, entropies: Any, labels: Any, adversarial: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    places, heights = np.asarray(points, np.float64), np.asarray(entropies, np.float64)
    classes, attacked = np.asarray(labels), np.asarray(adversarial, bool)
    shapes = {name: part.shape for name, part in (
        ("entropies", heights), ("labels", classes), ("adversarial", attacked)
    )}  # fmt: skip
    if places.ndim != 2 or places.shape[1] != 2 or not len(places):
        raise ValueError(f"Points have shape {places.shape}; expected [n, 2], n at least 1.")
    if any(shape != (len(places),) for shape in shapes.values()):
        raise ValueError(f"For {len(places)} points there are {shapes}; expected one value each.")
    if not (np.isfinite(places).all() and np.isfinite(heights).all()):
        raise ValueError("Some points or entropies are not finite; expected finite numbers.")
    return places, heights, classes, attacked
