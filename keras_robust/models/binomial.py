"""Exact inference on counts: a confidence bound of a probability, and a test of two counts."""

from __future__ import annotations

import numpy as np
from scipy import special


def lower_confidence_bound(successes: np.ndarray, trials: int, alpha: float) -> np.ndarray:
    """The Clopper-Pearson lower bound of a probability, float64.

    With probability at least `1 - alpha` it is at most the true one. It is the `p` at which
    `successes` or more of the trials have probability `alpha`.

    Example:
        >>> lower_confidence_bound(np.array([0, 10]), 10, 0.05).round(4).tolist()
        [0.0, 0.7411]

    Reference: Clopper and Pearson, "The Use of Confidence or Fiducial Limits Illustrated in the
    Case of the Binomial" (1934).
    """
    successes = np.asarray(successes, np.float64)
    positive = np.maximum(successes, 1)
    bound = special.betaincinv(positive, trials - positive + 1, alpha)
    return np.where(successes > 0, bound, 0.0)


def top_two_p_value(counts: np.ndarray) -> np.ndarray:
    """The two-sided p-value of the two largest counts having equal probability, float64.

    Args:
        counts: `[..., classes]`, at least two classes.

    Example:
        >>> top_two_p_value(np.array([[8, 2, 0], [5, 5, 0]])).round(4).tolist()
        [0.1094, 1.0]

    Reference: Hung and Fithian, "Rank Verification for Exponential Families" (2019), by which the
    test holds although the classes were selected by the counts.
    """
    second, first = np.moveaxis(np.sort(counts, axis=-1)[..., -2:], -1, 0)
    return np.minimum(2 * special.bdtr(second, first + second, 0.5), 1.0)
