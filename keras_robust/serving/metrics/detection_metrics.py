"""The detection metrics of all versions, in the server and in its sidecar."""

from __future__ import annotations

import collections
import logging
import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from keras_robust.serving.metrics.score_stream import RECENT, ScoreStream

_LOG = logging.getLogger(__name__)
PREFIX = "keras_robust_detection"
# Each new version adds time series; those of older ones are dropped.
MAX_VERSIONS = 10
LABELS = ("model", "version")
CleanScores = Callable[[str, int], np.ndarray | None]


class DetectionMetrics(Collector):
    """Collects the detection scores of all versions, as a collector of `prometheus_client`.

    Args:
        clean_scores: finds the clean scores of a model's version; None for none, which gives no
            alarm.
        alarm_every: the mean number of clean images until a false alarm, at least.
    """

    def __init__(self, clean_scores: CleanScores, alarm_every: float) -> None:
        self._clean_scores, self._alarm_every = clean_scores, alarm_every
        self._streams: collections.OrderedDict[tuple[str, int], ScoreStream] = (
            collections.OrderedDict()
        )
        self._lock = threading.Lock()

    def stream(self, model: str, version: int) -> ScoreStream:
        """The stream of a version, made at its first use."""
        key = model, version
        with self._lock:
            if key not in self._streams:
                self._streams[key] = self._new_stream(model, version)
                if len(self._streams) > MAX_VERSIONS:
                    self._streams.popitem(last=False)
            self._streams.move_to_end(key)
            return self._streams[key]

    def streams(self) -> dict[tuple[str, int], ScoreStream]:
        """`{(model, version): stream}` of the versions that were last used."""
        with self._lock:
            return dict(self._streams)

    def update(
        self, model: str, version: int, scores: Sequence[float] | None, flags: Sequence[bool]
    ) -> None:
        """Takes the images of a request: their scores, if known, and whether each was flagged."""
        self.stream(model, version).update(scores, flags)

    def _new_stream(self, model: str, version: int) -> ScoreStream:
        name = f"{model} version {version}"
        try:
            clean = self._clean_scores(model, version)
        except (ValueError, OSError) as error:
            _LOG.warning("%s has no alarm: %s", name, error)
            clean = None
        return ScoreStream(name, clean, self._alarm_every)

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics, with the labels `model` and `version`."""
        streams = [((model, str(number)), one) for (model, number), one in self.streams().items()]
        for name, text, read in _COUNTERS:
            counter = CounterMetricFamily(f"{PREFIX}_{name}", text, labels=LABELS)
            for labels, stream in streams:
                if (value := read(stream)) is not None:
                    counter.add_metric(labels, value)
            yield counter
        for name, text, read in _GAUGES:
            gauge = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=LABELS)
            for labels, stream in streams:
                if (value := read(stream)) is not None:
                    gauge.add_metric(labels, value)
            yield gauge
        histogram = HistogramMetricFamily(f"{PREFIX}_score", "Detection scores.", labels=LABELS)
        for labels, stream in streams:
            histogram.add_metric(labels, *stream.histogram())
        yield histogram


Reading = Callable[[ScoreStream], float | None]
_COUNTERS: tuple[tuple[str, str, Reading], ...] = (
    ("images", "Images with a detection score.", lambda stream: stream.images),
    ("flagged", "Images whose score is above the threshold.", lambda stream: stream.flagged),
    (
        "alarms",
        "Alarms: the scores have drifted from those of clean images.",
        lambda stream: stream.alarms,
    ),
)
_GAUGES: tuple[tuple[str, str, Reading], ...] = (
    (
        "flagged_ratio",
        f"Share of flagged images among the last {RECENT}.",
        lambda stream: stream.flagged_ratio,
    ),
    (
        "alarm_evidence",
        "How close the alarm is: 0 without evidence, 1 at the alarm.",
        lambda stream: stream.evidence,
    ),
    (
        "last_alarm_timestamp_seconds",
        "Time of the last alarm; 0 before.",
        lambda stream: None if stream.alarms is None else stream.alarmed,
    ),
)
