"""The alarm of a stream: its rate of false alarms, and its delay under attack."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest

import keras_robust as kr
from keras_robust.serving import Monitor

ALARM_EVERY = 1_000_000
SEEDS = range(20)


def first_alarm(monitor, scores):
    """The number of requests until the alarm; None without one."""
    for number, score in enumerate(scores, start=1):
        if monitor.update(score):
            return number
    return None


def test_p_values_are_uniform_even_with_ties():
    random = np.random.default_rng(0)
    monitor = Monitor(random.integers(0, 4, size=50))
    found = [monitor._p_value(score) for score in random.integers(0, 4, size=3000)]
    counts, _ = np.histogram(found, bins=10, range=(0, 1))
    assert (abs(counts - 300) < 5 * math.sqrt(300)).all()


def test_a_bet_pays_what_the_p_value_says():
    """A score above all: p is below 1/21, the bets on 0.05 and 0.1 win, the others depend."""
    monitor = Monitor(np.arange(20), seed=1)
    monitor._p_value = lambda score: 0.05
    monitor.update(99.0)
    expected = {0.05: lambda s: 1 - s + s / 0.05, 0.1: lambda s: 1 - s + s / 0.1}
    for (level, share), value in zip(monitor._bets, monitor._values, strict=True):
        assert value == pytest.approx(expected.get(level, lambda s: 1 - s)(share))
    assert monitor._statistic == pytest.approx(np.mean(monitor._values))


def test_a_mean_of_clean_requests_until_an_alarm():
    """The proven mean is at least `alarm_every`, here 200; over 60 streams."""
    random = np.random.default_rng(0)
    until = []
    for seed in range(60):
        monitor = Monitor(random.uniform(size=30), 200, seed=seed)
        until.append(first_alarm(monitor, random.uniform(size=4000)) or 4000)
    assert np.mean(until) >= 200


def test_an_alarm_starts_again_and_nan_is_suspicious():
    monitor = Monitor(np.arange(100.0), 1000)
    assert monitor.evidence == 0
    alarms = monitor.update_many([math.nan] * 20)
    assert alarms.any() and monitor.alarms == alarms.sum()
    assert monitor.requests == 20
    monitor = Monitor(np.arange(100.0), 1000)
    monitor.update_many([200.0] * 2)
    assert 0 < monitor.evidence < 1


def test_memory_is_bounded():
    monitor = Monitor(np.arange(30.0), memory=40)
    monitor.update_many(np.full(50, 3.0))
    assert len(monitor._scores) == 40


def test_what_cannot_be_monitored_is_refused():
    with pytest.raises(ValueError, match=r"shape \(3,\); expected at least 20 finite"):
        Monitor([0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="finite"):
        Monitor([math.nan] * 30)
    with pytest.raises(ValueError, match="alarm_every is 1"):
        Monitor(np.arange(30.0), 1)
    with pytest.raises(ValueError, match="memory is 5"):
        Monitor(np.arange(30.0), memory=5)


@pytest.fixture(scope="module")
def real_scores():
    """Scores of a trained model's held-out images, and of minimum-norm attacks on them."""
    keras.utils.set_random_seed(0)
    model = kr.models.small_cnn((8, 8, 1), 10)
    train, validation, test = kr.data.load("digits")
    robust = kr.defenses.standard(model)
    robust.compile(keras.optimizers.Adam(1e-3))
    robust.fit(train, epochs=15, verbose=0)
    detector = kr.detection.Detector(model, scored_by="least_confidence")
    x, y = (np.concatenate(part) for part in zip(*test, strict=True))
    ball = kr.L2Ball(2.0)
    attack = kr.attacks.carlini_wagner(ball, 40, 0.05, initial_const=1.0, binary_search_steps=3)
    attacked = attack.compiled(model)(x, y).numpy()
    fooled = model(attacked)["logits"].numpy().argmax(1) != y
    clean = np.concatenate([detector.score_dataset(part) for part in (validation, test)])
    return clean, detector.score_dataset((attacked[fooled],))


@pytest.mark.slow
def test_attacks_raise_it_within_500_requests(real_scores):
    """A tenth of the requests are attacks, after 1,000 clean ones; most of them are flagged at 5 %.

    A detector that flags few of the attacks needs more requests: no test can do without.
    """
    clean, attacked = real_scores
    delays = []
    for seed in SEEDS:
        random = np.random.default_rng(seed)
        monitor = Monitor(random.choice(clean, 500), ALARM_EVERY, seed=seed)
        assert not monitor.update_many(random.choice(clean, 1000)).any()
        is_attack = random.uniform(size=500) < 0.1
        stream = np.where(is_attack, random.choice(attacked, 500), random.choice(clean, 500))
        delays.append(first_alarm(monitor, stream))
    print(f"delays: {sorted(delays, key=lambda d: d or math.inf)}")
    assert None not in delays


@pytest.mark.slow
def test_clean_requests_raise_it_at_most_once_in_100_000(real_scores):
    clean, _ = real_scores
    alarms = []
    for seed in SEEDS:
        random = np.random.default_rng(1000 + seed)
        monitor = Monitor(random.choice(clean, 500), ALARM_EVERY, seed=seed)
        alarms.append(int(monitor.update_many(random.choice(clean, 100_000)).sum()))
    print(f"alarms: {alarms}")
    assert max(alarms) <= 1
