"""The detection scores of one version's requests: counts, a histogram and the alarm."""

from __future__ import annotations

import bisect
import collections
import itertools
import logging
import math
import threading
import time
from collections.abc import Sequence

import numpy as np

from keras_robust.serving.monitor import Monitor

_LOG = logging.getLogger(__name__)
# Of the share of flagged images.
RECENT = 1000
# An attack that lasts raises the alarm again and again; a line of the log is enough.
LOG_SECONDS = 60.0
# Without clean scores, their size is unknown.
_ANY_SIZE = (-100, -10, -1, 0, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)
_QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
# Above the clean scores, in units of their range.
_BEYOND = (0.25, 0.5, 1.0, 2.0, 4.0)


def score_buckets(clean: np.ndarray | None) -> list[float]:
    """Upper bounds of the buckets of a histogram: quantiles of clean scores, and larger ones.

    Args:
        clean: `[n]` scores; None for bounds that fit scores of any size.

    Example:
        >>> score_buckets(np.arange(101.0))[:4], score_buckets(np.arange(101.0))[-3:]
        ([0.0, 10.0, 25.0, 50.0], [200.0, 300.0, 500.0])
    """
    if clean is None:
        return [float(bound) for bound in _ANY_SIZE]
    top = float(clean.max())
    span = (top - float(clean.min())) or max(1.0, abs(top))
    bounds = [*np.quantile(clean, _QUANTILES), *(top + part * span for part in _BEYOND)]
    return sorted({float(f"{bound:.3g}") for bound in bounds})


class ScoreStream:
    """Counts the images of one version, and raises the alarm of their scores.

    Args:
        name: the model and its version, for the log.
        clean: scores of clean images; None for no alarm.
        alarm_every: as for `Monitor`.

    Attributes:
        images, flagged: number of images so far, and of those that were flagged.
        bounds, counts: upper bounds of the histogram's buckets; the images in each, and above.
        total: sum of the finite scores.
        alarmed: time of the last alarm in seconds since the epoch; 0 before.

    Example:
        >>> stream = ScoreStream("digits 1", np.linspace(0, 1, 100), 1000)
        >>> stream.update([0.5, 0.2, 9.0], [False, False, True])
        >>> stream.images, stream.flagged, stream.alarms
        (3, 1, 0)
    """

    def __init__(self, name: str, clean: np.ndarray | None, alarm_every: float) -> None:
        self.name = name
        self.images = self.flagged = 0
        self.bounds = score_buckets(clean)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total, self.alarmed, self._logged = 0.0, 0.0, 0.0
        self._recent: collections.deque[bool] = collections.deque(maxlen=RECENT)
        self._lock = threading.Lock()
        self._monitor = None if clean is None else Monitor(clean, alarm_every)

    @property
    def flagged_ratio(self) -> float:
        """The share of flagged images among the last 1,000."""
        with self._lock:
            return sum(self._recent) / max(1, len(self._recent))

    @property
    def alarms(self) -> int | None:
        """Number of alarms so far; None without clean scores, or where answers have no scores."""
        monitor = self._monitor
        if monitor is None or (self.images and not monitor.requests):
            return None
        return monitor.alarms

    @property
    def evidence(self) -> float | None:
        """How close the alarm is, from 0 to 1; None where there is no alarm."""
        return None if self._monitor is None or self.alarms is None else self._monitor.evidence

    def histogram(self) -> tuple[list[tuple[str, float]], float]:
        """`(upper bound, number of images up to it)` of each bucket, and the sum of all scores."""
        with self._lock:
            bounds = [*map(str, self.bounds), "+Inf"]
            upto = itertools.accumulate(self.counts)
            return list(zip(bounds, map(float, upto), strict=True)), self.total

    def update(self, scores: Sequence[float] | None, flags: Sequence[bool]) -> None:
        """Takes the images of a request: their scores, if known, and whether each was flagged."""
        with self._lock:
            for index, flag in enumerate(flags):
                self.images += 1
                self.flagged += bool(flag)
                self._recent.append(bool(flag))
                if scores is not None:
                    self._count(float(scores[index]))

    def _count(self, score: float) -> None:
        # NaN is larger than everything, as for the alarm.
        place = len(self.bounds) if math.isnan(score) else bisect.bisect_left(self.bounds, score)
        self.counts[place] += 1
        if math.isfinite(score):
            self.total += score
        if self._monitor is None or not self._monitor.update(score):
            return
        before, self.alarmed = self._logged, time.time()
        if self.alarmed - before >= LOG_SECONDS:
            self._logged = self.alarmed
            _LOG.warning(
                "The detection scores of %s have drifted: alarm %d, after %d images; %.1f %% of "
                "the last %d were flagged.",
                self.name,
                self._monitor.alarms,
                self.images,
                100 * sum(self._recent) / len(self._recent),
                len(self._recent),
            )
