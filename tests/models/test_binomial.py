"""Exact binomial inference."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special

from keras_robust.models.binomial import lower_confidence_bound, top_two_p_value


def pmf(trials, p):
    """The probabilities of 0 to `trials` successes."""
    return [math.comb(trials, k) * p**k * (1 - p) ** (trials - k) for k in range(trials + 1)]


@pytest.mark.parametrize("alpha", [0.3, 0.05, 0.001])
@pytest.mark.parametrize("trials", [1, 20, 100])
def test_coverage_is_exact(trials, alpha):
    """For every probability the bound exceeds it in at most `alpha` of the outcomes."""
    bounds = lower_confidence_bound(np.arange(trials + 1), trials, alpha)
    assert bounds[0] == 0 and np.all(np.diff(bounds) > 0)
    for p in np.linspace(0.001, 0.999, 200):
        assert np.dot(pmf(trials, p), bounds > p) <= alpha * (1 + 1e-9)
    # Just below a bound the miss has probability `alpha`: no larger bound would be valid.
    for bound in bounds[1:]:
        assert np.dot(pmf(trials, bound * (1 - 1e-12)), bounds >= bound) == pytest.approx(
            alpha, rel=1e-8
        )


def test_all_of_many_is_a_closed_form():
    """`p^n = alpha`; and the definition for counts in between."""
    n, alpha = 100_000, 0.001
    assert lower_confidence_bound(n, n, alpha) == pytest.approx(alpha ** (1 / n), rel=1e-12)
    k = np.array([1, 500, 50_000, 99_999])
    tail = special.bdtrc(k - 1.0, n, lower_confidence_bound(k, n, alpha))
    np.testing.assert_allclose(tail, alpha, rtol=1e-8)


def test_the_p_value_is_that_of_two_counts():
    """Twice the tail of a fair coin, whatever the order and the counts of other classes."""
    for first, second in ((9, 1), (7, 3), (5, 4), (30, 0)):
        n = first + second
        tail = sum(math.comb(n, k) for k in range(second + 1)) / 2**n
        found = top_two_p_value(np.array([[0, second, first], [first, second, second]]))
        np.testing.assert_allclose(found, min(1.0, 2 * tail), rtol=1e-12)
    assert top_two_p_value(np.array([3, 3])) == 1.0
    assert top_two_p_value(np.array([0, 0])) == 1.0
