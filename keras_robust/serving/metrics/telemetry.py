"""Watches requests: updates the metrics and the alarms, and writes the log."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator

import numpy as np
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from keras_robust.core.validation import check_number
from keras_robust.serving.exporting.clean_scores import find_clean_scores, read_clean_scores
from keras_robust.serving.exporting.version_directory import versions
from keras_robust.serving.metrics.detection_metrics import DetectionMetrics
from keras_robust.serving.metrics.recorder import Recorder
from keras_robust.serving.metrics.request_log import RequestLog
from keras_robust.serving.metrics.request_metrics import RequestMetrics
from keras_robust.serving.metrics.request_record import FLAGS, SCORES, RequestRecord
from keras_robust.serving.status import Code, ServingError, code_of_http

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
# The second one is TensorFlow Serving's.
METRICS_PATHS = ("/metrics", "/monitoring/prometheus/metrics")


@dataclasses.dataclass(frozen=True)
class Monitoring:
    """What a server measures and writes down.

    Args:
        metrics: whether `/metrics` is served.
        alarm_every: the alarm of a stream: the mean number of clean images until a false alarm, at
            least.
        clean_scores: an `.npy` file with the detection scores of clean images; None for those that
            the version holds.
        request_log: a file to which requests are appended as lines of JSON; None for no log.
        sampling_rate: the share of requests that are logged.
        log_images: whether the log has the images of the requests.
        log_max_mb: the size at which the log begins anew, in MiB; the one before is kept.

    Raises:
        ValueError: a number out of range.
    """

    metrics: bool = True
    alarm_every: float = 1_000_000
    clean_scores: str | os.PathLike[str] | None = None
    request_log: str | os.PathLike[str] | None = None
    sampling_rate: float = 1.0
    log_images: bool = False
    log_max_mb: float = 100.0

    def __post_init__(self) -> None:
        check_number("alarm_every", self.alarm_every, above=1)
        check_number("sampling_rate", self.sampling_rate, 0, 1)
        check_number("log_max_mb", self.log_max_mb, above=0)


class Telemetry:
    """Watches the requests of a server.

    Args:
        monitoring: what is measured.
        model_base_path: parent of the version directories, which hold clean scores; None if they
            are not known.

    Attributes:
        requests: the metrics of requests, versions and queues.
        detection: the metrics of detection scores.
        registry: a registry of `prometheus_client`, for further metrics.
        exposed: all metrics as they are shown.

    Raises:
        ValueError, OSError: the clean scores cannot be read, or the log cannot be opened.
    """

    def __init__(
        self,
        monitoring: Monitoring | None = None,
        model_base_path: str | os.PathLike[str] | None = None,
    ) -> None:
        self.monitoring = monitoring or Monitoring()
        self._base = model_base_path
        given = self.monitoring.clean_scores
        self._given_scores = None if given is None else read_clean_scores(given)
        self.registry = CollectorRegistry()
        self.requests = RequestMetrics(self.registry)
        self.detection = DetectionMetrics(self._clean_scores, self.monitoring.alarm_every)
        self.registry.register(self.detection)
        self._recorder = Recorder(self._take)
        self.exposed = _Exposed(self.registry, self._recorder.flush)
        self._log = None
        if self.monitoring.request_log is not None:
            self._log = RequestLog(
                self.monitoring.request_log,
                self.monitoring.sampling_rate,
                images=self.monitoring.log_images,
                max_mb=self.monitoring.log_max_mb,
            )
            self.registry.register(_LogLines(self._log, self._recorder))

    def text(self) -> bytes:
        """The metrics in Prometheus' text format, with all requests that were answered before."""
        return generate_latest(self.exposed)

    @contextlib.contextmanager
    def request(self, interface: str, method: str = "") -> Iterator[RequestRecord]:
        """Yields the record of a request, which ends with the `with` block.

        An error becomes its status: the code of a `ServingError`, INTERNAL of others.
        """
        record = RequestRecord(interface, method)
        begin = time.perf_counter()
        running = self.requests.running.labels(interface)
        running.inc()
        try:
            yield record
        except BaseException as error:
            record.status = _code(error).name
            raise
        finally:
            running.dec()
            record.seconds = time.perf_counter() - begin
            self.update(record)

    def update(self, record: RequestRecord) -> None:
        """Takes a request that has been answered."""
        self.requests.update(record)
        if self._log is None or not self.monitoring.log_images:
            record.inputs = {}
        if self._log is not None or record.outputs:
            self._recorder.put(record)

    def replay(self, record: RequestRecord) -> None:
        """Takes a request of a log, in this thread."""
        self.requests.update(record)
        self._take(record)

    def close(self) -> None:
        """Writes what is left, and ends the thread of the records."""
        self._recorder.close()

    def _take(self, record: RequestRecord) -> None:
        if record.status == "OK" and record.version is not None:
            self._detect(record, record.version)
        if self._log is not None:
            self._log.write(record)

    def _detect(self, record: RequestRecord, version: int) -> None:
        """Takes scores and flags; a version may withhold one of them."""
        scores, flags = record.outputs.get(SCORES), record.outputs.get(FLAGS)
        if scores is None and flags is None:
            return
        both = np.broadcast_arrays(
            np.nan if scores is None else scores, False if flags is None else flags
        )
        values, flagged = (array.tolist() for array in both)
        self.detection.update(record.model, version, None if scores is None else values, flagged)

    def _clean_scores(self, model: str, version: int) -> np.ndarray | None:
        if self._given_scores is not None or self._base is None:
            return self._given_scores
        path = versions(self._base).get(version)
        return None if path is None else find_clean_scores(path)


def _code(error: BaseException) -> Code:
    """The code of an error; other layers give theirs as an HTTP status."""
    if isinstance(error, ServingError):
        return error.code
    if isinstance(status := getattr(error, "status", None), int):
        return code_of_http(status)
    return Code.INTERNAL if isinstance(error, Exception) else Code.CANCELLED


class _Exposed(CollectorRegistry):
    """The metrics, once all records before are taken, and without the times of their beginning."""

    def __init__(self, registry: CollectorRegistry, flush: Callable[[], None]) -> None:
        super().__init__()
        self._whole, self._flush = registry, flush

    def collect(self) -> Iterator[Metric]:
        self._flush()
        for metric in self._whole.collect():
            metric.samples = [one for one in metric.samples if not one.name.endswith("_created")]
            yield metric


class _LogLines(Collector):
    def __init__(self, log: RequestLog, recorder: Recorder) -> None:
        self._log, self._recorder = log, recorder

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(
            "keras_robust_request_log_lines", "Lines of the request log.", labels=("outcome",)
        )
        family.add_metric(("written",), self._log.written)
        family.add_metric(("failed",), self._log.failed + self._recorder.dropped)
        yield family
