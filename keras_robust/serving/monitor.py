"""A stream's alarm: tests whether detection scores are still those of clean images."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from keras_robust.core.validation import check_integer, check_number
from keras_robust.serving.exporting.clean_scores import check_clean_scores

# Bets that a fraction `share` of the p-values is at most `level`, and that the rest is uniform.
_LEVELS = (0.005, 0.01, 0.02, 0.05, 0.1)
_SHARES = (0.03, 0.1)


class Monitor:
    """Raises an alarm when a stream of detection scores has drifted to larger ones.

    Each score has a conformal p-value among the clean scores and all earlier ones. While the stream
    is clean, p-values are independent and uniform; attacks make small ones frequent. Ten bets
    on that are multiplied to martingales and added up as by Shiryaev and Roberts, so that attacks
    may begin at any time: `R_t = (R_(t-1) + 1) f(p_t)`, the mean over the bets `f`. The alarm is
    raised where `R_t >= alarm_every`; then the statistic and the scores start again.

    The rate of false alarms holds by proof while clean scores and the stream's are exchangeable,
    such as drawn independently from one distribution: `R_t - t` is then a martingale, so that the
    mean number of requests until a false alarm is at least `alarm_every`. From `memory` scores on,
    none are added, and it holds approximately. Requests that come in series, such as the frames of
    a film, are not exchangeable.

    Args:
        clean_scores: `[n]` scores of clean images that the model was not trained on, at least 20,
            such as `detector.score_dataset(validation)`.
        alarm_every: the mean number of clean requests until a false alarm, at least.
        memory: the largest number of scores that are kept, 8 bytes each.
        seed: of the random numbers that break ties.

    Attributes:
        requests: number of scores so far.
        alarms: number of alarms so far.

    Raises:
        ValueError: too few clean scores, or scores that are not finite; a number out of range.

    Example:
        >>> random = np.random.default_rng(0)
        >>> monitor = Monitor(random.normal(size=500))
        >>> any(monitor.update_many(random.normal(size=1000)))
        False
        >>> attacked = random.normal(size=500) + 4 * (random.uniform(size=500) < 0.1)
        >>> any(monitor.update_many(attacked))
        True

    Reference: Vovk, Nouretdinov and Gammerman, "Testing Exchangeability On-Line" (2003); Vovk et
    al., "Retrain or Not Retrain: Conformal Test Martingales for Change-Point Detection" (2021),
    section 4, for the procedure of Shiryaev and Roberts.
    """

    def __init__(
        self,
        clean_scores: npt.ArrayLike,
        alarm_every: float = 1_000_000,
        *,
        memory: int = 50_000,
        seed: int = 0,
    ):
        clean = check_clean_scores(clean_scores)
        check_number("alarm_every", alarm_every, above=1, hint=", such as 1_000_000 requests")
        check_integer("memory", memory, len(clean))
        check_integer("seed", seed)
        self.alarm_every, self.memory = float(alarm_every), int(memory)
        self.requests, self.alarms = 0, 0
        self._clean = sorted(clean.tolist())
        self._random = np.random.default_rng(seed)
        self._bets = [(level, share) for level in _LEVELS for share in _SHARES]
        self._restart()

    @property
    def evidence(self) -> float:
        """How close the alarm is: the logarithm of the statistic, as a fraction of the alarm's.

        0 without evidence, 1 at the alarm.
        """
        return min(max(math.log(max(self._statistic, 1.0)) / math.log(self.alarm_every), 0.0), 1.0)

    def update(self, score: float) -> bool:
        """Takes the score of the next request.

        Args:
            score: its detection score; NaN counts as infinitely large.

        Returns:
            Whether the alarm is raised.
        """
        score = float(score)
        if math.isnan(score):
            score = math.inf
        p = self._p_value(score)
        self.requests += 1
        for number, (level, share) in enumerate(self._bets):
            factor = 1 - share + (share / level if p <= level else 0.0)
            self._values[number] = (self._values[number] + 1) * factor
        self._statistic = sum(self._values) / len(self._values)
        if self._statistic < self.alarm_every:
            return False
        self.alarms += 1
        self._restart()
        return True

    def update_many(self, scores: Iterable[float]) -> np.ndarray:
        """Takes the scores of several requests in their order; whether each raises the alarm."""
        return np.fromiter((self.update(score) for score in scores), bool)

    def _p_value(self, score: float) -> float:
        """The p-value among the scores so far, ties broken at random; adds the score to them."""
        scores = self._scores
        first, last = bisect.bisect_left(scores, score), bisect.bisect_right(scores, score)
        above, equal = len(scores) - last, last - first
        # In (0, 1]: a p-value of 0 has probability 0.
        p = (above + (1 - self._random.random()) * (equal + 1)) / (len(scores) + 1)
        if len(scores) < self.memory:
            scores.insert(last, score)
        return p

    def _restart(self) -> None:
        self._scores = list(self._clean)
        self._values = [0.0] * len(self._bets)
        self._statistic = 0.0
