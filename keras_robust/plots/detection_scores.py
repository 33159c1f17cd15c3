"""Histograms of a detection score on clean and attacked images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from keras_robust.core.validation import check_integer, check_number
from keras_robust.plots.style import (
    ATTACKED,
    CLEAN,
    INK,
    NARROW,
    WIDE,
    disable_math_text,
    new_figure,
    percent_ticks,
    shorten,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def detection_scores(
    clean_scores: ArrayLike,
    adversarial_scores: ArrayLike,
    threshold: float,
    *,
    score_name: str = "Detection score",
    bins: int = 30,
    narrow: bool = False,
) -> Figure:
    """Draws the histograms of clean and attacked scores over the same bins, and the threshold.

    Args:
        clean_scores: one score per clean image.
        adversarial_scores: one score per attacked image.
        threshold: scores above it are flagged.
        score_name: name of the score, with its unit.
        bins: number of bins between the lowest and the highest score.
        narrow: lays out for the width of a phone.

    Returns:
        A matplotlib figure; heights are fractions of the clean, or of the attacked, images.

    Raises:
        ValueError: empty or non-finite scores, a non-finite threshold, or invalid bins.

    Example:
        >>> figure = detection_scores([0.1, 0.2, 0.1], [0.8, 0.3], threshold=0.25)
        >>> figure.axes[0].get_xlabel()
        'Detection score'
    """
    check_number("threshold", threshold, -math.inf)
    check_integer("bins", bins, 1)
    clean, attacked = _scores("clean", clean_scores), _scores("attacked", adversarial_scores)
    edges = np.histogram_bin_edges(np.concatenate([clean, attacked]), bins=bins)
    figure = new_figure(NARROW, 3.9) if narrow else new_figure(WIDE, 3.6)
    axes = figure.subplots()
    for name, scores, color in (("clean", clean, CLEAN), ("attacked", attacked, ATTACKED)):
        heights = np.histogram(scores, edges)[0] / len(scores)
        # The outline separates the translucent areas where they overlap.
        axes.stairs(heights, edges, fill=True, color=color, alpha=0.3)
        dash = "-" if name == "clean" else "--"
        axes.stairs(heights, edges, color=color, linewidth=1.6, linestyle=dash, label=name)
    axes.axvline(
        threshold, color=INK, linewidth=1.4, linestyle=":", label=f"threshold {threshold:.3g}"
    )
    axes.set_xlabel(shorten(score_name, 44))
    axes.set_ylabel("Fraction of images")
    axes.set_ylim(bottom=0.0)
    percent_ticks(axes.yaxis)
    axes.grid(True, axis="y")
    figure.legend(loc="outside lower left" if narrow else "outside right upper")
    disable_math_text(figure)
    return figure


def _scores(name: str, scores: ArrayLike) -> np.ndarray:
    values = np.asarray(scores, dtype=np.float64).ravel()
    if not len(values) or not np.isfinite(values).all():
        raise ValueError(
            f"Received {len(values)} {name} scores, {int((~np.isfinite(values)).sum())} of them "
            "not finite; expected at least one, all finite."
        )
    return values
