"""ROC: the area by hand, by counting pairs, and how sure the interval is of it."""

from __future__ import annotations

import numpy as np
import pytest

from keras_robust.detection import auc, roc


def counted(clean, adversarial):
    """`P(a > c) + P(a = c) / 2`, pair by pair."""
    pairs = np.subtract.outer(adversarial, clean)
    return (pairs > 0).mean() + (pairs == 0).mean() / 2


def test_area_of_known_scores():
    """Of the 8 pairs of [1, 2, 3, 4] and [2, 5]: 1 + 4 above, one tie: 5.5 / 8."""
    assert auc([1, 2, 3, 4], [2, 5]) == 5.5 / 8
    assert auc([1, 2], [3, 4]) == 1 and auc([3, 4], [1, 2]) == 0
    assert auc([7, 7, 7], [7]) == 0.5


def test_area_is_the_count_of_pairs_and_the_area_under_the_curve():
    random = np.random.default_rng(0)
    for _ in range(20):
        clean, adversarial = random.integers(0, 9, 13), random.integers(2, 11, 7)  # many ties
        found = roc(clean, adversarial, resamples=1)
        assert found.auc == pytest.approx(counted(clean, adversarial))
        trapezoids = np.trapezoid if hasattr(np, "trapezoid") else np.trapz
        area = trapezoids(found.detection_rates, found.false_alarm_rates)
        assert found.auc == pytest.approx(area)


def test_every_point_of_the_curve_is_a_threshold():
    random = np.random.default_rng(1)
    clean, adversarial = random.normal(size=30).round(1), random.normal(1, 1, 20).round(1)
    found = roc(clean, adversarial, resamples=1)
    points = zip(found.thresholds, found.false_alarm_rates, found.detection_rates, strict=True)
    for threshold, alarms, detected in points:
        assert alarms == (clean >= threshold).mean()
        assert detected == (adversarial >= threshold).mean()
    assert (alarms, detected) == (1, 1) and found.thresholds[0] == np.inf
    assert found.samples == (30, 20)


def test_the_interval_holds_the_area_as_often_as_it_says():
    """Of normal scores one apart the area is Phi(1 / sqrt 2) = 0.7602; in 95 of 100, about."""
    random = np.random.default_rng(2)
    held = 0
    for seed in range(100):
        found = roc(random.normal(size=60), random.normal(1, 1, 60), resamples=200, seed=seed)
        assert found.interval[0] <= found.auc <= found.interval[1]
        held += found.interval[0] <= 0.7602 <= found.interval[1]
    assert 88 <= held <= 100


def test_a_higher_level_is_wider_and_more_images_are_narrower():
    random = np.random.default_rng(3)
    clean, adversarial = random.normal(size=400), random.normal(1, 1, 400)

    def width(n, level):
        low, high = roc(clean[:n], adversarial[:n], level=level, resamples=300).interval
        return high - low

    assert width(50, 0.5) < width(50, 0.95) and width(400, 0.95) < 0.6 * width(50, 0.95)


def test_the_seed_decides():
    random = np.random.default_rng(4)
    clean, adversarial = random.normal(size=40), random.normal(size=40)
    first, again, other = (
        roc(clean, adversarial, resamples=50, seed=seed).interval for seed in (1, 1, 2)
    )
    assert first == again != other


@pytest.mark.parametrize("scores", [[], [[0.1]], [0.1, np.nan], [np.inf], 0.5])
def test_scores_that_are_none_are_refused(scores):
    with pytest.raises(ValueError, match="clean scores have shape"):
        auc(scores, [0.1])
    with pytest.raises(ValueError, match="adversarial scores have shape"):
        roc([0.1], scores)


def test_bad_numbers_are_refused():
    for settings in ({"resamples": 0}, {"resamples": 1.5}, {"level": 1.0}, {"level": 95}):
        with pytest.raises(ValueError, match=f"{next(iter(settings))} is"):
            roc([0.1], [0.2], **settings)
