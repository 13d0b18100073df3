"""What Prometheus is told: counters and histograms of requests, and how the service fares now."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..events import Answered, ServiceEvent, Shed, Swapped, Widened
from ..question import Reply
from .backend import Answering
from .limits import MemoryBudget
from .logs import log_event

# Seconds: fine where answers in time lie.
SECONDS = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0,
)  # fmt: skip
BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)
# Of `ms` of a reply, what is no stage of the search.
NO_SEARCH = {"decode", "queue", "prepare", "encode", "total"}
LABELS = ("route", "width", "strategy", "status")


class ServiceMetrics:
    """Counters of one service, in a registry of their own.

    Args:
        service: that is asked how it fares when somebody reads them.
        memory: of uploads and decoded images.
    """

    def __init__(self, service: Answering, memory: MemoryBudget) -> None:
        self.registry = CollectorRegistry()
        here = self.registry
        self._requests = Counter(
            "matmamba_requests", "Requests that were responded to.", LABELS, registry=here
        )
        self._seconds = _histogram(
            "request_seconds", "From the request's head to its response.", LABELS, here
        )
        self._decode = _histogram("decode_seconds", "Decoding of an image.", (), here)
        self._queue = _histogram("queue_seconds", "Waiting for the model.", ("width",), here)
        self._encode = _histogram("encode_seconds", "Encoding of a query.", ("width",), here)
        self._search = _histogram("search_seconds", "Search in the gallery.", ("strategy",), here)
        self._batch = Histogram(
            "matmamba_batch_size", "Images encoded at once.", ("width",), buckets=BATCHES, registry=here
        )
        self._shed = _counter("shed", "Questions that were turned away, and where.", ("where",), here)
        self._late = _counter("late", "Answers that came after their deadline.", ("width",), here)
        self._swaps = _counter("swaps", "Versions that took another one's place.", ("gallery",), here)
        here.register(_Fares(service, memory))

    def responded(self, labels: Mapping[str, str], seconds: float) -> None:
        """Count a response; labels are those of `LABELS`."""
        self._requests.labels(**labels).inc()
        self._seconds.labels(**labels).observe(seconds)

    def answered(self, reply: Reply, strategy: str, decode_ms: float | None) -> None:
        """Count the stages of an answer."""
        width, ms = reply.width or "none", reply.ms
        if decode_ms is not None:
            self._decode.observe(decode_ms / 1e3)
        self._queue.labels(width).observe(ms.get("queue", 0.0) / 1e3)
        if "encode" in ms:
            self._encode.labels(width).observe(ms["encode"] / 1e3)
        searched = sum(value for stage, value in ms.items() if stage not in NO_SEARCH)
        self._search.labels(strategy).observe(searched / 1e3)

    def shed(self, where: str) -> None:
        """Count a question that was turned away before it reached the model, and for want of what."""
        self._shed.labels(where).inc()

    def heard(self, event: ServiceEvent) -> None:
        """Count what the service tells of; what is rare is written down, too."""
        if isinstance(event, Answered):
            if event.width:
                self._batch.labels(event.width).observe(event.batch)
            if not event.in_time:
                self._late.labels(event.width or "none").inc()
        elif isinstance(event, Shed):
            self._shed.labels(event.where).inc()
        elif isinstance(event, Swapped):
            self._swaps.labels(event.gallery).inc()
            log_event("swapped", **asdict(event))
        elif isinstance(event, Widened):
            log_event("widened", level=logging.WARNING, **asdict(event))

    def text(self) -> bytes:
        """All of them as Prometheus reads them."""
        return generate_latest(self.registry)


def _counter(name: str, about: str, labels: Iterable[str], registry: CollectorRegistry) -> Counter:
    return Counter(f"matmamba_{name}", about, tuple(labels), registry=registry)


def _histogram(name: str, about: str, labels: Iterable[str], registry: CollectorRegistry) -> Histogram:
    return Histogram(f"matmamba_{name}", about, tuple(labels), buckets=SECONDS, registry=registry)


class _Fares(Collector):
    """Gauges that are read when somebody asks for them."""

    def __init__(self, service: Answering, memory: MemoryBudget) -> None:
        self._service, self._memory = service, memory

    def describe(self) -> Iterable[Metric]:
        """Nothing is collected when the collector is registered: the service may not have started."""
        return []

    def collect(self) -> Iterator[Metric]:
        status = self._service.status()
        yield GaugeMetricFamily("matmamba_ready", "Whether questions are answered.", float(status["ready"]))
        yield GaugeMetricFamily("matmamba_queue_length", "Questions that wait.", float(status["queue"]))
        yield GaugeMetricFamily("matmamba_in_flight", "Questions under way.", float(status["in_flight"]))
        held = "Bytes of uploads and decoded images."
        yield GaugeMetricFamily("matmamba_image_memory_bytes", held, float(self._memory.held))
        yield from _recall(status["recall"])
        images = GaugeMetricFamily(
            "matmamba_gallery_images", "Images of a gallery.", labels=("gallery", "version")
        )
        for name, version in status["galleries"].items():
            images.add_metric((name, str(version)), float(len(self._service.gallery(name))))
        yield images


def _recall(known: Mapping[str, Mapping[str, Any] | None]) -> Iterator[Metric]:
    """Of each width, how often its answers had the hits of the exact one; and the interval of that."""
    parts = {
        "recall": ("estimate", "Share of the exact first 10 hits that answers had lately."),
        "recall_low": ("low", "Lower end of its Wilson interval at 95 %."),
        "recall_high": ("high", "Upper end of its Wilson interval at 95 %."),
        "same_first": ("same_first", "Share of answers whose first hit was the exact one."),
        "recall_samples": ("samples", "Answers that were asked again."),
    }
    for name, (part, about) in parts.items():
        family = GaugeMetricFamily(f"matmamba_{name}", about, labels=("width",))
        for width, live in known.items():
            if live is not None:
                family.add_metric((width,), float(live[part]))
        yield family
