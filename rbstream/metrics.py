"""Every metric, declared once: name, labels, unit, meaning, buckets. `docs/metrics.md` is made from these declarations.

Alerts are counted once they are committed: `observe` sums a micro-batch up while it is scored, `Metrics.commit` counts
it after the commit, so that a batch that is aborted and consumed again is counted once.
"""

import platform
from collections import Counter as Tally
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from rbstream import __revision__, __version__
from rbstream.collectors import Declared, GpuCollector, Histogram
from rbstream.packet.alert import Rejected
from rbstream.pipeline import Outcome

# They would be a second series beside every counter, of which nobody asks anything.
disable_created_metrics()  # type: ignore[no-untyped-call]


@dataclass(slots=True)
class Observed:
    """What the metrics want to know of a micro-batch: alerts by (verdict, reason, topic), scores, masks.

    drb: float64 (N,) of the N scored; difference: float64 (M,), drb minus the packet's own, of those that had one.
    """

    alerts: Tally[tuple[str, str, str]]
    drb: NDArray[np.float64]
    difference: NDArray[np.float64]
    masked: int
    edge: int


def observe(outcomes: Iterable[Outcome], topics: Iterable[str]) -> Observed:
    """Sum up a micro-batch, counting nothing yet: for the thread that scores. topics: each outcome's input topic."""
    alerts: Tally[tuple[str, str, str]] = Tally()
    drb, difference = [], []
    masked = edge = 0
    for outcome, topic in zip(outcomes, topics, strict=True):
        item, triplet = outcome.item, outcome.triplet
        alerts[outcome.verdict, outcome.reason, topic] += 1
        if isinstance(item, Rejected):
            continue
        drb.append(outcome.drb)
        upstream = item.drb_upstream
        if upstream is not None:
            difference.append(outcome.drb - upstream)
        # The minimum is NaN where any pixel is: 2 us, where asking each pixel costs 3.
        if triplet is not None and np.isnan(np.minimum.reduce(triplet, axis=None)):
            masked += 1
            edge += _is_cut(triplet)
    return Observed(alerts, np.array(drb), np.array(difference), masked, edge)


def _is_cut(triplet: NDArray[np.float32]) -> bool:
    """Whether a stamp ends before its frame does; one that is masked all over counts too."""
    return bool(np.isnan(triplet[:, -1]).all(axis=1).any() or np.isnan(triplet[:, :, -1]).all(axis=1).any())


class Metrics:
    """One process's metrics, in a registry of their own. Any thread may set them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.declared: list[Declared] = []

        self.alerts = self._counter(
            "alerts",
            "alerts",
            "Alerts committed, by verdict (passed, filtered, rejected), reason (empty where passed) and input topic",
            ("verdict", "reason", "topic"),
        )
        self.messages = self._counter(
            "messages",
            "messages",
            "Messages written and committed, by route (main, a named route, scores, dead_letters) and topic",
            ("route", "topic"),
        )
        self.consumed_messages = self._counter(
            "consumed_messages", "messages", "Messages read, again if a transaction was aborted", ("topic",)
        )
        self.consumed_bytes = self._counter(
            "consumed_bytes", "bytes", "Bytes of the messages read, again if a transaction was aborted", ("topic",)
        )
        self.stage_seconds = self._histogram(
            "stage_seconds",
            "seconds",
            "Time of a stage for a micro-batch (decode, score, encode) or for a transaction (deliver)",
            ("stage",),
            (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
            "from one alert to a broker that keeps a commit waiting",
        )
        self.batch_alerts = self._histogram(
            "batch_alerts",
            "alerts",
            "Alerts in a micro-batch",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096),
            why="powers of two, as `batch.max_alerts` is chosen, up to the most that it may be",
        )
        self.batch_wait_seconds = self._histogram(
            "batch_wait_seconds",
            "seconds",
            "Time from the first message of a micro-batch to its closing",
            buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.125, 0.15, 0.25, 0.5, 1, 2.5),
            why="close around `batch.max_delay`, 0.1 by default; more is a loop that came late",
        )
        self.queue_batches = self._gauge(
            "queue_batches",
            "batches",
            "Micro-batches that wait to be scored (waiting) or delivered (scored)",
            ("queue",),
        )
        self.uncommitted_alerts = self._gauge("uncommitted_alerts", "alerts", "Alerts read and not yet committed")
        self.latency_seconds = self._histogram(
            "latency_seconds",
            "seconds",
            "Time from a message's Kafka timestamp to the commit of what became of it",
            buckets=(
                *(0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 1, 2.5, 5, 10, 30, 60),
                *(300, 1800, 3600, 14400, 43200, 86400),
            ),
            why="close where 250 ms are promised, wide for a night's backlog",
        )
        self.consumer_lag = self._gauge(
            "consumer_lag_messages",
            "messages",
            "Offsets between what is committed and the end of an assigned partition",
            ("topic", "partition"),
        )
        self.end_offset = self._gauge(
            "end_offset", "offset", "End of an assigned partition, where the next message goes", ("topic", "partition")
        )
        self.committed_offset = self._gauge(
            "committed_offset",
            "offset",
            "Offset of an assigned partition up to which all is committed",
            ("topic", "partition"),
        )
        self.assigned_partitions = self._gauge(
            "assigned_partitions", "partitions", "Partitions assigned to this worker"
        )
        self.transactions = self._counter(
            "transactions", "transactions", "Transactions, by how they ended (committed, aborted)", ("outcome",)
        )
        self.rebalances = self._counter(
            "rebalances", "rebalances", "Assignments changed, by event (assigned, revoked, lost)", ("event",)
        )
        self.rewinds = self._counter(
            "rewinds", "rewinds", "Times that the worker went back to its committed offsets after a fault"
        )
        self.kafka_errors = self._counter(
            "kafka_errors",
            "errors",
            "Errors that librdkafka told of, by client (consumer, producer) and name of the error",
            ("client", "error"),
        )
        self.kafka_silence = self._gauge(
            "kafka_silence_seconds",
            "seconds",
            "Time since a client knew last that a broker answers, by client (consumer, member); told every 5 s",
            ("client",),
        )
        self.drb = self._histogram(
            "drb",
            "1",
            "Scores of alerts committed",
            buckets=(0.01, *(step / 20 for step in range(1, 20)), 0.99, 1.0),
            why="steps of 0.05, so that usual thresholds are bounds; scores crowd at both ends",
        )
        self.drb_difference = self._histogram(
            "drb_difference",
            "1",
            "Score minus the packet's own, where it came with one; no _sum, as it may fall",
            buckets=(-0.5, -0.2, -0.1, -0.05, -0.01, -0.001, -1e-5, 1e-5, 0.001, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0),
            why="the same network agrees to 1e-5, in bfloat16 to 0.01; beyond that it is another one",
        )
        self.masked_alerts = self._counter(
            "masked_alerts", "alerts", "Scored alerts with a NaN pixel in the triplet, committed"
        )
        self.edge_alerts = self._counter(
            "edge_alerts",
            "alerts",
            "Scored alerts with a stamp whose last row or column is NaN, as the chip's edge cuts it, committed",
        )
        self.reject_ratio = self._gauge(
            "reject_ratio",
            "1",
            "Share of rejections in the last `rejects.window` alerts of an assigned partition; 0 while under 100",
            ("topic", "partition"),
        )
        self.ready = self._gauge("ready", "1", "1 where /readyz says ready, else 0")
        self.model_info = self._info(
            "model", "The model that scores", ("name", "version", "sha256", "device", "precision")
        )
        self.build_info = self._info("build", "What runs here", ("version", "revision", "python"))

        self._gpu = GpuCollector(
            self._declare(
                "gpu_memory_bytes", "gauge", "bytes", "GPU memory (used, total); only with a GPU", ("device", "kind")
            ),
            self._declare(
                "gpu_utilization_ratio",
                "gauge",
                "1",
                "Share of time that the GPU was busy; only with a GPU and the extra `gpu`",
                ("device",),
            ),
        )
        self.registry.register(self._gpu)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

        self.build_info.labels(__version__, __revision__, platform.python_version()).info({})
        # Counters that are there from the start: a first event is an increase, not a new series that rate() misses.
        for outcome in ("committed", "aborted"):
            self.transactions.labels(outcome)
        for event in ("assigned", "revoked", "lost"):
            self.rebalances.labels(event)
        for queue in ("waiting", "scored"):
            self.queue_batches.labels(queue)
        for stage in ("decode", "score", "encode", "deliver"):
            self.stage_seconds.labels(stage)

    def commit(self, observed: Observed) -> None:
        """Count a micro-batch whose results and offsets are committed."""
        for labels, count in observed.alerts.items():
            self.alerts.labels(*labels).inc(count)
        self.drb.observe_many(observed.drb)
        self.drb_difference.observe_many(observed.difference)
        self.masked_alerts.inc(observed.masked)
        self.edge_alerts.inc(observed.edge)

    def count_error(self, client: str, error: str) -> None:
        """Count what librdkafka told: by client (`consumer`, `producer`) and name of the error."""
        self.kafka_errors.labels(client, error).inc()

    def forget(self, topic: str, partition: int) -> None:
        """Remove the series of a partition that is no longer assigned: another worker tells of it now."""
        for told in (self.consumer_lag, self.end_offset, self.committed_offset, self.reject_ratio):
            told.remove(topic, partition)

    def set_model(self, name: str, version: str, sha256: str, device: str, precision: str) -> None:
        """Tell which model scores, on which device (`cpu`, `cuda[:N]`). sha256: of the bundle's file."""
        self.model_info.clear()
        self.model_info.labels(name, version, sha256, device, precision).info({})
        self._gpu.device = device

    def _counter(self, name: str, unit: str, meaning: str, labels: tuple[str, ...] = ()) -> Counter:
        declared = self._declare(f"{name}_total", "counter", unit, meaning, labels)
        return Counter(declared.name, meaning, labels, registry=self.registry)

    def _gauge(self, name: str, unit: str, meaning: str, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(self._declare(name, "gauge", unit, meaning, labels).name, meaning, labels, registry=self.registry)

    def _info(self, name: str, meaning: str, labels: tuple[str, ...]) -> Info:
        declared = self._declare(f"{name}_info", "info", "1", meaning, labels)
        return Info(declared.name.removesuffix("_info"), meaning, labels, registry=self.registry)

    def _histogram(
        self,
        name: str,
        unit: str,
        meaning: str,
        labels: tuple[str, ...] = (),
        buckets: tuple[float, ...] = (),
        why: str = "",
    ) -> Histogram:
        histogram = Histogram(self._declare(name, "histogram", unit, meaning, labels, buckets, why))
        self.registry.register(histogram)
        return histogram

    def _declare(
        self,
        name: str,
        kind: str,
        unit: str,
        meaning: str,
        labels: tuple[str, ...] = (),
        buckets: tuple[float, ...] = (),
        why: str = "",
    ) -> Declared:
        self.declared.append(Declared(f"rbstream_{name}", kind, labels, unit, meaning, buckets, why))
        return self.declared[-1]


def describe_metrics() -> str:
    """`docs/metrics.md`: every metric with its labels, unit and meaning; the histograms' bounds and their reasons."""
    declared = Metrics().declared
    lines = [
        *("# Metrics", "", "Made by `docs/generate.py` from `rbstream/metrics.py`; edit that.", ""),
        "`GET /metrics` (port `metrics.port`, 9108 by default) in Prometheus' text format, or in OpenMetrics where the",
        "client asks for it. Alerts and messages are counted once they are committed: what an aborted transaction or",
        "a killed worker held is counted when it is read again. All counts are since the start of this process.",
        "Dashboards and alert rules ([operate](operate.md)) tell deployments apart by two labels that the scrape sets:",
        "`cluster`, a name for the source's Kafka, and `group`, the consumer group.",
        *("", "| metric | type | labels | unit | meaning |", "|---|---|---|---|---|"),
    ]
    for metric in declared:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.unit} | {metric.meaning} |")
    lines += [
        *("", "Beside these the client library's own: `process_*` (CPU, memory, open files), `python_info` and"),
        *("`python_gc_*`.", "", "## Buckets", "", "| histogram | upper bounds | why these |", "|---|---|---|"),
    ]
    for metric in declared:
        if metric.buckets:
            bounds = ", ".join(f"{bound:g}" for bound in metric.buckets)
            lines.append(f"| `{metric.name}` | {bounds} | {metric.why} |")
    return "\n".join(lines) + "\n"
