"""What the worker tells of itself: metrics of what was committed, and a log line now and then."""

import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from rbstream.metrics import Metrics
from rbstream.worker.batcher import Batch, Partition
from rbstream.worker.rejects import Rejections
from rbstream.worker.scoring import Scored, Scoring

logger = logging.getLogger(__name__)

# A night's log stays readable: a thousand lines.
SECONDS_BETWEEN_LINES = 30.0


class Account:
    """Counts what is committed, and only that."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._verdicts: Counter[str] = Counter()
        self._told = time.monotonic()
        self._told_alerts = 0

    def received(self, batch: Batch) -> None:
        """A batch of messages was read."""
        for topic in {message.topic for message in batch.messages}:
            sizes = [len(message.value) for message in batch.messages if message.topic == topic]
            self._metrics.consumed_messages.labels(topic).inc(len(sizes))
            self._metrics.consumed_bytes.labels(topic).inc(sum(sizes))

    def committed(self, results: Iterable[Scored], rejections: Rejections, seconds: float) -> None:
        """Results were committed. seconds: that it took to write and commit them."""
        metrics, now = self._metrics, time.time()
        metrics.stage_seconds.labels("deliver").observe(seconds)
        for result in results:
            for stage, took in result.seconds.items():
                metrics.stage_seconds.labels(stage).observe(took)
            metrics.batch_alerts.observe(result.alerts)
            metrics.batch_wait_seconds.observe(result.batch.waited)
            written = Counter((message.route, message.topic) for message in result.outgoing)
            for labels, count in written.items():
                metrics.messages.labels(*labels).inc(count)
            stamps = [message.timestamp for message in result.batch.messages if message.timestamp > 0]
            # Clocks differ: a time ahead of ours would let the sum fall, which Prometheus takes for a restart.
            metrics.latency_seconds.observe_many(np.maximum(0.0, now - np.array(stamps, np.float64) / 1000))
            for observed in result.observed:
                metrics.commit(observed)
                for (verdict, _, _), count in observed.alerts.items():
                    self._verdicts[verdict] += count
            for partition in result.verdicts:
                metrics.reject_ratio.labels(*partition).set(rejections.judged(partition))

    def look(
        self,
        delivered: Mapping[Partition, int],
        watermarks: Mapping[Partition, tuple[int, int] | None],
        scoring: Scoring,
        ready: list[Scored],
        in_batch: int,
    ) -> None:
        """Tell how things are now: lag by partition, queues; in the log, when it is time to."""
        lag = 0
        for partition, offset in delivered.items():
            marks = watermarks[partition]
            if marks is None:  # nobody has told them yet
                continue
            low, end = marks
            committed = max(low, offset)
            lag += max(0, end - committed)
            self._metrics.consumer_lag.labels(*partition).set(max(0, end - committed))
            self._metrics.end_offset.labels(*partition).set(end)
            self._metrics.committed_offset.labels(*partition).set(committed)
        finished = scoring.finished
        self._metrics.queue_batches.labels("scored").set(finished + len(ready))
        self._metrics.queue_batches.labels("waiting").set(scoring.waiting - finished)
        self._metrics.uncommitted_alerts.set(scoring.alerts + sum(each.alerts for each in ready) + in_batch)
        self._tell(lag, len(delivered))

    def forget(self, partition: Partition) -> None:
        """A partition is no longer ours."""
        self._metrics.forget(*partition)

    def _tell(self, lag: int, partitions: int) -> None:
        now, alerts = time.monotonic(), self._verdicts.total()
        if now - self._told < SECONDS_BETWEEN_LINES:
            return
        rate = (alerts - self._told_alerts) / (now - self._told)
        told = {"alerts": alerts, **self._verdicts, "alerts_per_second": round(rate, 1)}
        logger.info("running", extra={**told, "lag": lag, "partitions": partitions})
        self._told, self._told_alerts = now, alerts
