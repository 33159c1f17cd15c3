"""How far a detector's score keeps clean images and attacked ones apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_robust.plots.style import (
    ATTACKED,
    CLEAN,
    INK,
    NARROW,
    WIDE,
    blank,
    plain_text,
    shorten,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def detection_scores(
    clean_scores: Sequence[float] | np.ndarray,
    adversarial_scores: Sequence[float] | np.ndarray,
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
        score_name: what the score is, with its unit.
        bins: how many bins between the lowest and the highest score.
        narrow: draws for the width of a phone.

    Returns:
        A matplotlib figure; heights are shares of the clean, or of the attacked, images.

    Raises:
        ValueError: when a set of scores is empty or holds something not finite.

    Example:
        >>> figure = detection_scores([0.1, 0.2, 0.1], [0.8, 0.3], threshold=0.25)
        >>> figure.axes[0].get_xlabel()
        'Detection score'
    """
    from matplotlib.ticker import PercentFormatter

    clean, attacked = _scores("clean", clean_scores), _scores("attacked", adversarial_scores)
    edges = np.histogram_bin_edges(np.concatenate([clean, attacked]), bins=bins)
    figure = blank(NARROW, 3.9) if narrow else blank(WIDE, 3.6)
    axes = figure.subplots()
    for name, scores, color in (("clean", clean, CLEAN), ("attacked", attacked, ATTACKED)):
        heights = np.histogram(scores, edges)[0] / len(scores)
        # The outline beside the translucent area keeps the two apart where they overlap.
        axes.stairs(heights, edges, fill=True, color=color, alpha=0.3)
        dash = "-" if name == "clean" else "--"
        axes.stairs(heights, edges, color=color, linewidth=1.6, linestyle=dash, label=name)
    axes.axvline(
        threshold, color=INK, linewidth=1.4, linestyle=":", label=f"threshold {threshold:.3g}"
    )
    axes.set_xlabel(shorten(score_name, 44))
    axes.set_ylabel("Share of images")
    axes.set_ylim(bottom=0.0)
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1.0, decimals=0))
    axes.grid(True, axis="y")
    figure.legend(loc="outside lower left" if narrow else "outside right upper")
    plain_text(figure)
    return figure


def _scores(name: str, scores: Sequence[float] | np.ndarray) -> np.ndarray:
    values = np.asarray(scores, dtype=np.float64).ravel()
    if not len(values) or not np.isfinite(values).all():
        raise ValueError(
            f"Got {len(values)} {name} scores, {int((~np.isfinite(values)).sum())} of them not "
            "finite; expected at least one, all finite."
        )
    return values
