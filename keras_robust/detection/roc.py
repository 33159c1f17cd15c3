"""ROC: how well a score tells attacked images from clean ones, over all thresholds."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from keras_robust.core.validation import check_integer


@dataclasses.dataclass(frozen=True, eq=False)
class Roc:
    """A ROC curve with the area under it.

    Args:
        false_alarm_rates: `[n]`, share of clean images above each threshold; from 0 to 1.
        detection_rates: `[n]`, share of attacked images above it.
        thresholds: `[n]`, descending, from infinity; an image is flagged from the threshold on.
        auc: the area: how often an attacked image scores above a clean one, ties counting half.
        interval: the ends of the bootstrap interval of the area.
        level: how often such an interval holds the area.
        samples: how many clean and how many attacked images.
    """

    false_alarm_rates: np.ndarray
    detection_rates: np.ndarray
    thresholds: np.ndarray
    auc: float
    interval: tuple[float, float]
    level: float
    samples: tuple[int, int]


def auc(clean: Any, adversarial: Any) -> float:
    """The area under the ROC curve, `P(adversarial > clean) + P(adversarial = clean) / 2`.

    Args:
        clean: `[n]` finite scores of clean images.
        adversarial: `[m]` of attacked ones.

    Returns:
        0.5 for a score that tells nothing, 1 for one that tells all.

    Raises:
        ValueError: no scores of a kind, or such that are not finite.

    Example:
        >>> auc([0.1, 0.2, 0.3, 0.4], [0.2, 0.5])
        0.6875

    Reference: Mann and Whitney (1947); Hanley and McNeil, "The Meaning and Use of the Area under a
    ROC Curve" (1982).
    """
    return _area(*_histograms(_checked("clean", clean), _checked("adversarial", adversarial))[1:])


def roc(
    clean: Any, adversarial: Any, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> Roc:
    """The ROC curve of a score, the area under it, and a bootstrap interval of the area.

    Clean and attacked images are resampled apart, each as often as there are of them; the interval
    is between the percentiles of the areas.

    Args:
        clean: `[n]` finite scores of clean images.
        adversarial: `[m]` of attacked ones.
        resamples: how many areas the interval is made from, >= 1.
        level: of the interval, in (0, 1).
        seed: of the resampling.

    Returns:
        The curve.

    Raises:
        ValueError: no scores of a kind, or such that are not finite; no such number or level.

    Example:
        >>> found = roc([0.1, 0.2], [0.2, 0.5])
        >>> found.auc, found.false_alarm_rates.tolist(), found.detection_rates.tolist()
        (0.875, [0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0])

    Reference: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13.
    """
    check_integer("resamples", resamples, 1)
    if not 0 < level < 1:
        raise ValueError(f"level is {level!r}; expected a share in (0, 1), such as 0.95.")
    clean, adversarial = _checked("clean", clean), _checked("adversarial", adversarial)
    values, negative, positive = _histograms(clean, adversarial)
    tail = 50 * (1 - level)
    low, high = np.percentile(_areas(negative, positive, resamples, seed), [tail, 100 - tail])
    return Roc(
        false_alarm_rates=_above(negative),
        detection_rates=_above(positive),
        thresholds=np.concatenate([[np.inf], values[::-1]]),
        auc=_area(negative, positive),
        interval=(float(low), float(high)),
        level=level,
        samples=(len(clean), len(adversarial)),
    )


def _areas(negative: np.ndarray, positive: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """The area for each resample: how often each value was drawn is all that counts."""
    random = np.random.default_rng(seed)
    found = np.empty(resamples)
    for number in range(resamples):
        drawn = (random.multinomial(c.sum(), c / c.sum()) for c in (negative, positive))
        found[number] = _area(*drawn)
    return found


def _histograms(
    clean: np.ndarray, adversarial: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The values there are, ascending, and how many scores of each kind have each."""
    values, which = np.unique(np.concatenate([clean, adversarial]), return_inverse=True)
    which = which.reshape(-1)  # NumPy 2.0 alone gives it another shape
    negative, positive = (
        np.bincount(part, minlength=len(values)) for part in np.split(which, [len(clean)])
    )
    return values, negative, positive


def _area(negative: np.ndarray, positive: np.ndarray) -> float:
    below = np.cumsum(negative) - negative
    pairs = int(negative.sum()) * int(positive.sum())
    return float(np.dot(positive, below + 0.5 * negative) / pairs)


def _above(counts: np.ndarray) -> np.ndarray:
    """The share of scores at each value or above it, from the largest on."""
    return np.concatenate([[0], np.cumsum(counts[::-1])]) / counts.sum()


def _checked(name: str, scores: Any) -> np.ndarray:
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1 or not scores.size or not np.isfinite(scores).all():
        raise ValueError(
            f"The {name} scores have shape {scores.shape}"
            f"{'' if np.isfinite(scores).all() else ', and some are not finite'}; expected one "
            "finite number per image, shape [n], of at least one image."
        )
    return scores
