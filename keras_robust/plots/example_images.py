"""Examples of clean images, perturbations and attacked images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

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


def amplification(clean: ArrayLike, adversarial: ArrayLike) -> float:
    """The factor that makes a perturbation visible without clipping.

    Args:
        clean: images in [0, 1].
        adversarial: attacked images of the same shape.

    Returns:
        The largest factor of two digits that keeps every difference within half the pixel range,
        at least 1; 1 for identical images.

    Example:
        >>> amplification(np.zeros((1, 2, 2, 1)), np.full((1, 2, 2, 1), 0.03))
        16.0
    """
    largest = float(np.max(np.abs(np.asarray(adversarial) - np.asarray(clean)), initial=0.0))
    if largest == 0.0:
        return 1.0
    factor = 0.5 / largest
    unit = 10.0 ** (math.floor(math.log10(factor)) - 1)
    # The tolerance keeps rounding errors of float32 images from turning 5.0 into 4.9.
    return max(1.0, round(math.floor(factor / unit + 1e-4) * unit, 12))


@styled
def example_images(
    clean: ArrayLike,
    adversarial: ArrayLike,
    labels: Sequence[int],
    clean_predictions: Sequence[int],
    adversarial_predictions: Sequence[int],
    class_names: Sequence[str] | None = None,
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    narrow: bool = False,
) -> Figure:
    """Draws clean images, amplified perturbations (mid-gray for no change), and attacked images.

    Args:
        clean: `[n, height, width, channels]`, with 1 or 3 channels.
        adversarial: the same shape.
        labels: `[n]` true classes.
        clean_predictions: `[n]` predicted classes of the clean images.
        adversarial_predictions: `[n]` predicted classes of the attacked images.
        class_names: one name per class; by default the numbers from 0.
        bounds: the pixel values of black and white.
        narrow: lays out for the width of a phone, one row per image, not one column.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: shapes or lengths that disagree, or pixels outside the bounds.

    Example:
        >>> images = np.zeros((2, 8, 8, 1))
        >>> figure = example_images(images, images + 0.1, [3, 1], [3, 1], [8, 1])
        >>> figure.axes[2].get_ylabel()
        'Change × 5'
    """
    clean, adversarial = (unit_images(x, bounds) for x in _checked(clean, adversarial))
    count = len(clean)
    for values in (labels, clean_predictions, adversarial_predictions):
        if len(values) != count:
            raise ValueError(
                f"Received {len(values)} labels or predictions; expected {count}, one per image."
            )
    factor = amplification(clean, adversarial)
    change = np.clip(0.5 + factor * (adversarial - clean), 0.0, 1.0)
    kinds = (
        ("Clean", clean, clean_predictions),
        (f"Change \N{MULTIPLICATION SIGN} {factor:g}", change, None),
        ("Attacked", adversarial, adversarial_predictions),
    )
    figure, grid = _grid(count, clean.shape[1] / clean.shape[2], narrow)
    for k, (kind, images, predictions) in enumerate(kinds):
        for n in range(count):
            axes = grid[k, n]
            draw_image(axes, images[n])
            if predictions is not None:
                _caption(axes, int(predictions[n]), int(labels[n]), class_names)
            if n == 0 and narrow:
                axes.set_title(kind)
            elif n == 0:
                axes.set_ylabel(kind)
            if k == 0:
                truth = f"true: {class_name(int(labels[n]), class_names)}"
                axes.set_ylabel(truth, fontsize=9) if narrow else axes.set_title(truth, fontsize=9)
    disable_math_text(figure)
    return figure


def _checked(clean: ArrayLike, adversarial: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    clean, adversarial = np.asarray(clean, np.float64), np.asarray(adversarial, np.float64)
    if clean.ndim != 4 or clean.shape[-1] not in (1, 3) or not len(clean):
        raise ValueError(
            f"Images have shape {clean.shape}; expected [n, height, width, 1 or 3], n at least 1."
        )
    if adversarial.shape != clean.shape:
        raise ValueError(
            f"Attacked images have shape {adversarial.shape}, clean ones {clean.shape}; "
            "expected the same."
        )
    return clean, adversarial


def _grid(count: int, aspect: float, narrow: bool) -> tuple[Figure, np.ndarray]:
    """A figure and its axes `[3, count]`: kinds by images, transposed if narrow."""
    if narrow:
        figure = new_figure(NARROW, 0.4 + count * (1.05 * aspect + 0.3))
        return figure, figure.subplots(count, 3, squeeze=False).T
    width = min(WIDE, 0.6 + 1.15 * count)
    side = (width - 0.6) / count - 0.1
    figure = new_figure(width, 0.4 + 3 * (side * aspect + 0.2))
    return figure, figure.subplots(3, count, squeeze=False)


def _caption(axes: Axes, predicted: int, label: int, class_names: Sequence[str] | None) -> None:
    """Writes the predicted class below an image, with a sign and a color for correctness."""
    correct = predicted == label
    axes.set_xlabel(
        f"{class_name(predicted, class_names)} {'✓' if correct else '✗'}",
        fontsize=9,
        color=CLEAN if correct else ATTACKED,
        labelpad=2,
    )
