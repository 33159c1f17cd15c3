"""Histograms of a detection score on clean and attacked images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from keras_robust.core.validation import check_integer, check_number
from keras_robust.plots.style import (
    ADAPTIVE,
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
    adaptive_scores: ArrayLike | None = None,
    score_name: str = "Detection score",
    bins: int = 30,
    narrow: bool = False,
) -> Figure:
    """Draws histograms of clean and attacked scores, one above the other, and the threshold.

    Args:
        clean_scores: one score per clean image.
        adversarial_scores: one score per image of the oblivious attack.
        threshold: scores above it are flagged.
        adaptive_scores: one score per image of the adaptive attack, the one that tells how good a
            detector is; None leaves its panel out.
        score_name: name of the score, with its unit.
        bins: number of bins between the lowest and the highest score.
        narrow: lays out for the width of a phone.

    Returns:
        A matplotlib figure; heights are fractions of the images of a panel, whose title has the
        fraction above the threshold.

    Raises:
        ValueError: empty or non-finite scores, a non-finite threshold, or invalid bins.

    Example:
        >>> figure = detection_scores([0.1, 0.2, 0.1], [0.8, 0.3], threshold=0.25)
        >>> [axes.get_title(loc="left") for axes in figure.axes]
        ['Clean: 0% flagged', 'Attacked: 100% flagged']
    """
    check_number("threshold", threshold, -math.inf)
    check_integer("bins", bins, 1)
    known = adaptive_scores is not None
    panels = {
        "Clean": (_scores("clean", clean_scores), CLEAN),
        "Attacked, oblivious" if known else "Attacked": (
            _scores("attacked", adversarial_scores),
            ATTACKED,
        ),
    }
    if adaptive_scores is not None:
        panels["Attacked, adaptive"] = (_scores("adaptively attacked", adaptive_scores), ADAPTIVE)
    together = np.concatenate([scores for scores, _ in panels.values()])
    edges = np.histogram_bin_edges(together, bins=bins)
    figure = new_figure(NARROW if narrow else WIDE, 0.9 + 1.25 * len(panels))
    grid = np.atleast_1d(figure.subplots(len(panels), 1, sharex=True))
    for axes, (name, (scores, color)) in zip(grid, panels.items(), strict=True):
        heights = np.histogram(scores, edges)[0] / len(scores)
        axes.stairs(heights, edges, fill=True, color=color, alpha=0.3)
        axes.stairs(heights, edges, color=color, linewidth=1.6, label=name)
        line = axes.axvline(threshold, color=INK, linewidth=1.4, linestyle=":")
        flagged = float((scores > threshold).mean())
        axes.set_title(f"{name}: {100 * flagged:.3g}% flagged", loc="left", fontsize=10)
        axes.set_ylim(bottom=0.0)
        percent_ticks(axes.yaxis)
        axes.grid(True, axis="y")
    grid[-1].set_xlabel(shorten(score_name, 44))
    figure.supylabel("Fraction of images", fontsize=10)
    figure.legend([line], [f"threshold {threshold:.3g}"], loc="outside upper right")
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
