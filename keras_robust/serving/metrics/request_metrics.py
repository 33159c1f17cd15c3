"""The metrics of requests, versions and memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

import keras_robust
from keras_robust.serving.metrics.request_record import RequestRecord

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
# A version: model, number, name of its state, name of its status code.
Version = tuple[str, int, str, str]


class RequestMetrics:
    """Counts requests.

    Args:
        registry: where the metrics are collected.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.requests = Counter(
            "keras_robust_requests",
            "Requests, by the name of the status code of their answer.",
            ("interface", "method", "model", "signature", "status"),
            registry=registry,
        )
        self.seconds = Histogram(
            "keras_robust_request_seconds",
            "Seconds from the arrival of a request to its answer.",
            ("interface", "signature"),
            buckets=_SECONDS,
            registry=registry,
        )
        self.images = Histogram(
            "keras_robust_request_images",
            "Images of a request that was answered.",
            ("model", "signature"),
            buckets=_SIZES,
            registry=registry,
        )
        self.batches = Histogram(
            "keras_robust_batch_images",
            "Images of a batch that the model ran, of one request or of several.",
            ("model", "signature"),
            buckets=_SIZES,
            registry=registry,
        )
        self.running = Gauge(
            "keras_robust_requests_running",
            "Requests that have arrived and are not answered, with those that wait.",
            ("interface",),
            registry=registry,
        )
        self.waiting = Gauge(
            "keras_robust_requests_waiting",
            "Requests that wait for a thread, or for a batch.",
            ("interface",),
            registry=registry,
        )
        build = Gauge(
            "keras_robust_build_info", "The version of this program.", ("version",),
            registry=registry,
        )  # fmt: skip
        build.labels(keras_robust.__version__).set(1)
        ProcessCollector(registry=registry)

    def update(self, record: RequestRecord) -> None:
        """Takes a request that has been answered."""
        self.requests.labels(
            record.interface, record.method, record.model, record.signature, record.status
        ).inc()
        self.seconds.labels(record.interface, record.signature).observe(record.seconds)
        if record.images and record.status == "OK":
            self.images.labels(record.model, record.signature).observe(record.images)

    def batch(self, model: str, signature: str, images: int) -> None:
        """Takes a batch that the model runs."""
        self.batches.labels(model, signature).observe(images)

    def watch_queue(self, interface: str, length: Callable[[], float]) -> None:
        """Reads the length of a queue whenever the metrics are collected."""
        self.waiting.labels(interface).set_function(length)

    def watch_versions(self, versions: Callable[[], Iterable[Version]]) -> None:
        """Reads the states of the versions whenever the metrics are collected."""
        self._registry.register(_Versions(versions))


class _Versions(Collector):
    def __init__(self, versions: Callable[[], Iterable[Version]]) -> None:
        self._versions = versions

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "keras_robust_model_version",
            "1 for each version in its state, with the status of its load.",
            labels=("model", "version", "state", "status"),
        )
        for model, version, state, status in self._versions():
            family.add_metric((model, str(version), state, status), 1)
        yield family
