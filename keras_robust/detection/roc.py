"""ROC curves of a detection score, the area under them, and its bootstrap interval."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from keras_robust.core.validation import check_integer, check_number


@dataclasses.dataclass(frozen=True, eq=False)
class Roc:
    """A ROC curve and the area under it.

    Args:
        false_alarm_rates: `[n]`, fraction of clean images flagged at each threshold, from 0 to 1.
        detection_rates: `[n]`, fraction of attacked images flagged.
        thresholds: `[n]`, descending from infinity; scores >= the threshold are flagged.
        auc: area under the curve: the probability that an attacked image scores above a clean one,
            ties counting half.
        interval: bootstrap interval of the area.
        level: confidence level of the interval.
        samples: numbers of clean and of attacked images.
    """

    false_alarm_rates: np.ndarray
    detection_rates: np.ndarray
    thresholds: np.ndarray
    auc: float
    interval: tuple[float, float]
    level: float
    samples: tuple[int, int]


def auc(clean: npt.ArrayLike, adversarial: npt.ArrayLike) -> float:
    """The area under the ROC curve, `P(adversarial > clean) + P(adversarial = clean) / 2`.

    1 is perfect separation, 0.5 is guessing.

    Args:
        clean: `[n]` finite scores of clean images.
        adversarial: `[m]` finite scores of attacked images.

    Raises:
        ValueError: no scores of a kind, or scores that are not finite.

    Example:
        >>> auc([0.1, 0.2, 0.3, 0.4], [0.2, 0.5])
        0.6875

    Reference: Hanley and McNeil, "The Meaning and Use of the Area under a ROC Curve" (1982).
    """
    return _area(*_histograms(_checked("clean", clean), _checked("adversarial", adversarial))[1:])


def roc(
    clean: npt.ArrayLike,
    adversarial: npt.ArrayLike,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Roc:
    """The ROC curve of a score, the area under it, and a bootstrap interval of the area.

    Clean and attacked images are resampled separately; the interval is between percentiles of the
    resampled areas.

    Args:
        clean, adversarial: as for `auc`.
        resamples: number of bootstrap resamples, >= 1.
        level: confidence level of the interval, in (0, 1).
        seed: seed of the resampling.

    Raises:
        ValueError: as for `auc`; invalid settings.

    Example:
        >>> found = roc([0.1, 0.2], [0.2, 0.5])
        >>> found.auc, found.false_alarm_rates.tolist(), found.detection_rates.tolist()
        (0.875, [0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0])

    Reference: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13.
    """
    check_integer("resamples", resamples, 1)
    check_number("level", level, above=0, below=1, hint=", such as 0.95")
    clean, adversarial = _checked("clean", clean), _checked("adversarial", adversarial)
    values, negative, positive = _histograms(clean, adversarial)
    tail = 50 * (1 - level)
    low, high = np.percentile(_areas(negative, positive, resamples, seed), [tail, 100 - tail])
    return Roc(
        false_alarm_rates=_fraction_above(negative),
        detection_rates=_fraction_above(positive),
        thresholds=np.concatenate([[np.inf], values[::-1]]),
        auc=_area(negative, positive),
        interval=(float(low), float(high)),
        level=level,
        samples=(len(clean), len(adversarial)),
    )


def _areas(negative: np.ndarray, positive: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """The area of each resample, drawn as counts of each distinct value."""
    random = np.random.default_rng(seed)
    found = np.empty(resamples)
    for number in range(resamples):
        drawn = (random.multinomial(c.sum(), c / c.sum()) for c in (negative, positive))
        found[number] = _area(*drawn)
    return found


def _histograms(
    clean: np.ndarray, adversarial: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct values, ascending, and the number of clean and of attacked scores at each."""
    values, which = np.unique(np.concatenate([clean, adversarial]), return_inverse=True)
    which = which.reshape(-1)  # NumPy 2.0 returns another shape
    negative, positive = (
        np.bincount(part, minlength=len(values)) for part in np.split(which, [len(clean)])
    )
    return values, negative, positive


def _area(negative: np.ndarray, positive: np.ndarray) -> float:
    below = np.cumsum(negative) - negative
    pairs = int(negative.sum()) * int(positive.sum())
    return float(np.dot(positive, below + 0.5 * negative) / pairs)


def _fraction_above(counts: np.ndarray) -> np.ndarray:
    """The fraction of scores >= each value, from the largest value down."""
    return np.concatenate([[0], np.cumsum(counts[::-1])]) / counts.sum()


def _checked(name: str, scores: npt.ArrayLike) -> np.ndarray:
    scores = np.asarray(scores, np.float64)
    finite = np.isfinite(scores).all()
    if scores.ndim != 1 or not scores.size or not finite:
        also = "" if finite else ", and some are not finite"
        raise ValueError(
            f"The {name} scores have shape {scores.shape}{also}; expected one finite number per "
            "image, shape [n], of at least one image."
        )
    return scores
