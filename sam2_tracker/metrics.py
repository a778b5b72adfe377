# SPDX-License-Identifier: MIT
"""What one worker has done since its start, as Prometheus text for GET /metrics.

The figures are those of the log line of each request. A request for /metrics reaches one worker;
with several of them the label `worker` says whose figures these are.
"""

from collections.abc import Iterable
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from sam2_tracker.stopwatch import Stopwatch

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
NAMESPACE = "cvat_sam2"
# Seconds. CVAT's nginx waits 60 s, a request is refused if it would take longer than 25 s.
REQUEST_BUCKETS = (0.1, 0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 25, 30, 60)
# Else each series has a second one with the time of its first value.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    def __init__(self, worker_id: int, info: dict[str, str]) -> None:
        """info: what is running, for example {"version": "0.1.0", "model": "sam2.1_hiera_tiny"}."""
        self._worker = str(worker_id)
        self._registry = CollectorRegistry()
        self._requests = self._counter("requests", "Answers to POST by their status.", "status")
        self._seconds = Histogram(
            "request_seconds",
            "Seconds of a request in this function, all phases together.",
            ["worker"],
            namespace=NAMESPACE,
            buckets=REQUEST_BUCKETS,
            registry=self._registry,
        )
        self._phases = self._counter("phase_seconds", "Seconds by the phase of a request.", "phase")
        self._objects = self._counter(
            "objects", "Objects: started, continued, or failed with a code of their own.", "result"
        )
        self._image_bytes = self._counter("image_bytes", "Bytes of the encoded images.")
        self._store_bytes = self._counter(
            "store_bytes", "Bytes moved to and from the store.", "direction"
        )
        self._cache = self._counter(
            "cache_lookups", "Memory frames wanted: hit, or miss and read from the store.", "result"
        )
        self._store_answers = Gauge(
            "store_answers",
            "1 if the store answered when this was asked, else 0.",
            ["worker"],
            namespace=NAMESPACE,
            registry=self._registry,
        )
        running = Info(
            "running", "What is running.", ["worker"], namespace=NAMESPACE, registry=self._registry
        )
        running.labels(self._worker).info(info)
        self._registry.register(_WorkerProcess(self._worker))

    def count(self, status: int, watch: Stopwatch) -> None:
        """Adds one answered POST: its HTTP status and what its log line says."""
        self._requests.labels(self._worker, status).inc()
        self._seconds.labels(self._worker).observe(sum(watch.phases.values()))
        for phase, seconds in watch.phases.items():
            self._phases.labels(self._worker, phase).inc(seconds)
        for result, objects in (
            ("started", watch.started),
            ("continued", watch.continued),
            ("failed", watch.failed),
        ):
            self._objects.labels(self._worker, result).inc(objects)
        self._image_bytes.labels(self._worker).inc(watch.image_bytes)
        self._store_bytes.labels(self._worker, "read").inc(watch.traffic.read_bytes)
        self._store_bytes.labels(self._worker, "written").inc(watch.traffic.written_bytes)
        self._cache.labels(self._worker, "hit").inc(watch.traffic.cache_hits)
        self._cache.labels(self._worker, "miss").inc(watch.traffic.cache_misses)

    def text(self, store_answers: bool) -> str:
        """All figures in Prometheus's text format 0.0.4, whose content type is CONTENT_TYPE."""
        self._store_answers.labels(self._worker).set(store_answers)
        return generate_latest(self._registry).decode()

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(
            name,
            help_text,
            ["worker", *labels],
            namespace=NAMESPACE,
            registry=self._registry,
        )


class _WorkerProcess(Collector):
    """The figures of the process, with the label `worker`: they differ from worker to worker."""

    def __init__(self, worker: str) -> None:
        self._labels = {"worker": worker}
        self._process = ProcessCollector(namespace=NAMESPACE, registry=None)

    def collect(self) -> Iterable[Metric]:
        for family in self._process.collect():
            family.samples = [sample._replace(labels=self._labels) for sample in family.samples]
            yield family
