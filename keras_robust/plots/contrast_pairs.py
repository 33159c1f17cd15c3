"""Anchors of contrastive training with some of their positives and negatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from keras_robust.plots.class_colors import class_name
from keras_robust.plots.style import (
    ATTACKED,
    CLEAN,
    INK,
    WIDE,
    disable_math_text,
    draw_image,
    new_figure,
    shorten,
    styled,
    unit_images,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@styled
def contrast_pairs(
    images: ArrayLike,
    predictions: ArrayLike,
    adversarial: ArrayLike,
    anchors: Sequence[int],
    positives: ArrayLike,
    negatives: ArrayLike,
    class_names: Sequence[str] | None = None,
    *,
    shown: int = 5,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Figure:
    """Draws one row per anchor: the anchor, its first positives, and its first negatives.

    Above each image is its prediction; the edge of an attacked image is of the color of attacks.

    Args:
        images: `[views, height, width, channels]`, with 1 or 3 channels.
        predictions: `[views]`, predicted classes.
        adversarial: `[views]` bool, which views are attacked images.
        anchors: the views whose pairs are drawn.
        positives, negatives: `[views, views]` bool, the pairs of each view.
        class_names: one name per class; by default the numbers from 0.
        shown: the largest number of positives, and of negatives, that are drawn.
        bounds: the pixel values of black and white.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: no anchors, or masks of another shape.

    Example:
        >>> views, other = np.zeros((2, 8, 8, 1)), np.eye(2, dtype=bool)[::-1]
        >>> figure = contrast_pairs(views, [3, 5], [False, True], [0], other, ~other & other)
        >>> figure.axes[0].get_ylabel()
        'Anchor'

    Reference: Bui et al., "Understanding and Achieving Efficient Robustness with Adversarial
    Supervised Contrastive Learning" (2021), Figure 9.
    """
    pixels, guesses = unit_images(images, bounds), np.asarray(predictions)
    attacked = np.asarray(adversarial, bool)
    masks = {"positives": np.asarray(positives, bool), "negatives": np.asarray(negatives, bool)}
    if not len(anchors) or any(mask.shape != (len(pixels),) * 2 for mask in masks.values()):
        shapes = ", ".join(str(mask.shape) for mask in masks.values())
        raise ValueError(
            f"Received {len(anchors)} anchors, {len(pixels)} images and masks of shapes {shapes}; "
            "expected an anchor or more, and masks [views, views]."
        )
    columns = 1 + 2 * shown
    figure = new_figure(WIDE, 0.3 + 1.0 * len(anchors))
    grid = figure.subplots(len(anchors), columns, squeeze=False)
    for row, anchor in zip(grid, anchors, strict=True):
        views = {0: anchor}
        for group, mask in enumerate(masks.values()):
            found = np.flatnonzero(mask[anchor])[:shown]
            views |= dict(enumerate(found, start=1 + group * shown))
        for column, axes in enumerate(row):
            if column in views:
                view = views[column]
                name = class_name(int(guesses[view]), class_names)
                _draw(axes, pixels[view], name, bool(attacked[view]))
            else:
                axes.set_axis_off()
        row[0].set_ylabel("Anchor", color=INK)
        counts = [int(mask[anchor].sum()) for mask in masks.values()]
        for group, (kind, count) in enumerate(zip(masks, counts, strict=True)):
            row[1 + group * shown].set_ylabel(f"{count} {kind}", fontsize=7, color=INK)
    disable_math_text(figure)
    return figure


def _draw(axes: Axes, image: np.ndarray, name: str, attacked: bool) -> None:
    draw_image(axes, image)
    color = ATTACKED if attacked else CLEAN
    axes.spines[:].set(visible=True, color=color, linewidth=1.6)
    axes.set_title(shorten(name, 8), fontsize=7, color=color, pad=2)
