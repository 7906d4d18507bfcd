"""Decoding and scoring behind a bounded queue: batches of messages in, their results out, in order.

One thread feeds the pipeline, which scores in another: what Kafka waits for is never held up by a stamp.
"""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from rbstream.errors import RbstreamError, Rejection
from rbstream.metrics import Observed, observe
from rbstream.packet.alert import Origin, Packet, Rejected
from rbstream.packet.framing import SchemaSource, unframe
from rbstream.pipeline import Outcome, Outcomes, Pipeline
from rbstream.settings import Limits
from rbstream.worker.batcher import Batch, Message, Partition
from rbstream.worker.messages import Encoder, Outgoing

logger = logging.getLogger(__name__)

# A device that comes back does so within seconds; then the supervisor should know.
ATTEMPTS = 4
FIRST_PAUSE_SECONDS = 1.0


@dataclass(slots=True)
class Scored:
    """A batch and what came of it, to be delivered.

    verdicts: by partition and in order, None or what an alert was rejected for. seconds: by stage. spoke: the messages
    of which something came.
    """

    batch: Batch
    outgoing: list[Outgoing] = field(default_factory=list)
    verdicts: dict[Partition, list[str | None]] = field(default_factory=dict)
    observed: list[Observed] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: {"decode": 0.0, "score": 0.0, "encode": 0.0})
    alerts: int = 0
    spoke: set[str] = field(default_factory=set)


class Scoring:
    """The threads and the queues to and from them. One thread calls; `depth` batches are on their way at most.

    make: makes the pipeline, anew after a fault of the model or its device.
    """

    def __init__(
        self,
        make: Callable[[], Pipeline],
        encoder: Encoder,
        schemas: SchemaSource | None,
        limits: Limits,
        depth: int,
    ) -> None:
        self._make = make
        self._encoder = encoder
        self._schemas = schemas
        self._limits = limits
        self._depth = depth
        self._batches: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Scored | BaseException] = queue.SimpleQueue()
        self._on_the_way: deque[Batch] = deque()  # the caller's view: submitted, and not taken
        self._discarded = 0
        self._thread = threading.Thread(target=self._work, name="scoring", daemon=True)

    def start(self) -> None:
        """Start the threads."""
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Batches that are on their way, wanted or not."""
        return len(self._on_the_way)

    @property
    def alerts(self) -> int:
        """Messages that are on their way."""
        return sum(len(batch.messages) for batch in self._on_the_way)

    @property
    def finished(self) -> int:
        """Batches among them whose results are there to be taken."""
        return self._results.qsize()

    @property
    def wanted(self) -> int:
        """Batches on their way whose results are wanted."""
        return len(self._on_the_way) - self._discarded

    @property
    def room(self) -> bool:
        """Whether one more may be submitted."""
        return len(self._on_the_way) < self._depth

    def submit(self, batch: Batch) -> None:
        """Send a batch on its way."""
        self._on_the_way.append(batch)
        self._batches.put(batch)

    def take(self, timeout: float = 0.0) -> Scored | None:
        """The next result, in the order of submission; None where there is none in time.

        Raises what made scoring fail for good: ModelError, RegistryError.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                result = self._results.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return None
            if isinstance(result, BaseException):
                raise result
            self._on_the_way.popleft()
            if self._discarded == 0:
                return result
            self._discarded -= 1

    def discard(self) -> None:
        """Want no result of what is on its way: it will come again."""
        self._discarded = len(self._on_the_way)

    def close(self, timeout: float) -> bool:
        """End the threads when they are done with what they have. Whether they were in time [s]."""
        self._batches.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _work(self) -> None:
        """The feeding thread: runs the pipeline, and once more where it failed, with what was on its way."""
        left: deque[Batch] = deque()
        attempts = 0
        while True:
            try:
                for scored in self._run(left):
                    attempts = 0
                    self._results.put(scored)
                return
            except (RbstreamError, MemoryError) as error:
                attempts += 1
                if attempts == ATTEMPTS:
                    self._results.put(error if isinstance(error, RbstreamError) else _out_of_memory())
                    return
                pause = FIRST_PAUSE_SECONDS * 2 ** (attempts - 1)
                logger.warning("scoring failed; once more in %g s", pause, extra={"error": str(error)})
                time.sleep(pause)
            except BaseException as error:  # a bug: whoever takes results raises it, and the process ends
                self._results.put(error)
                return

    def _run(self, left: deque[Batch]) -> Iterator[Scored]:
        """Results as they come. left: batches that are under way, taken out when done."""
        under_way: deque[Batch | None] = deque()
        current: Scored | None = None
        for outcomes in self._make().run(self._chunks(left, under_way)):
            batch = under_way[0]
            if batch is not None:
                current = current or Scored(batch)
                self._add(current, outcomes)
            if outcomes.ends_chunk:
                under_way.popleft()
                if current is not None:
                    if len(current.spoke) < len(current.batch.messages):
                        self._add(current, Outcomes(_silent(current), True))
                    left.popleft()
                    yield current
                    current = None

    def _chunks(self, left: deque[Batch], under_way: deque[Batch | None]) -> Iterator[Iterator[Packet | Rejected]]:
        """A chunk a batch. Where none waits, an empty one pushes out the one before, which the pipeline still holds."""
        for batch in list(left):  # those that were under way when the last pipeline failed
            under_way.append(batch)
            yield self._packets(batch)
        while True:
            try:
                batch_or_end = self._batches.get_nowait()
            except queue.Empty:
                if any(batch is not None for batch in under_way):
                    under_way.append(None)
                    yield iter(())
                batch_or_end = self._batches.get()
            if batch_or_end is None:
                return
            left.append(batch_or_end)
            under_way.append(batch_or_end)
            yield self._packets(batch_or_end)

    def _packets(self, batch: Batch) -> Iterator[Packet | Rejected]:
        for number, message in enumerate(batch.messages):
            # The number leads back to the message from whatever comes of it.
            yield unframe(Origin(message.name, str(number)), message.value, self._schemas, self._limits)

    def _add(self, scored: Scored, outcomes: Outcomes) -> None:
        started = time.perf_counter()
        final: list[Outcome] = []
        topics: list[str] = []
        for outcome in outcomes.outcomes:
            message = _message(scored.batch, outcome)
            outcome, outgoing = self._encoder.encode(message, outcome)
            scored.outgoing += outgoing
            reason = outcome.reason if outcome.verdict == "rejected" else None
            scored.verdicts.setdefault((message.topic, message.partition), []).append(reason)
            scored.spoke.add(message.name)
            final.append(outcome)
            topics.append(message.topic)
        scored.alerts += len(final)
        scored.observed.append(observe(final, topics))
        scored.seconds["decode"] += outcomes.decode_seconds
        scored.seconds["score"] += outcomes.score_seconds
        scored.seconds["encode"] += time.perf_counter() - started


def _silent(scored: Scored) -> list[Outcome]:
    """A rejection for each message of which nothing came: a container without records, or cut short at its header."""
    silent = []
    for number, message in enumerate(scored.batch.messages):
        if message.name not in scored.spoke:
            rejection = Rejection("container", "no_records", "a container without a record, or cut short at its header")
            item = Rejected(rejection, Origin(message.name, str(number)), message.value)
            silent.append(Outcome("rejected", item, rejection.reason))
    return silent


def _message(batch: Batch, outcome: Outcome) -> Message:
    number = outcome.item.origin.member
    assert number is not None  # `_packets` numbers them all
    return batch.messages[int(number)]


def _out_of_memory() -> RbstreamError:
    return RbstreamError("out of memory while scoring; lower batch.max_alerts, batch.max_bytes or batch.queue")
