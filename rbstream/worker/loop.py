"""The worker's loop: messages to batches, batches to the scoring threads, results out; all clients in one thread."""

import logging
import math
import time
from collections.abc import Mapping

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Message as KafkaMessage

from rbstream.errors import LimitError, RbstreamError
from rbstream.health import Health
from rbstream.kafka.faults import Aborted, Fault, InstanceInUseError, KafkaFailure, judge
from rbstream.metrics import Metrics
from rbstream.settings import Settings
from rbstream.worker.account import Account
from rbstream.worker.batcher import Batcher, Partition
from rbstream.worker.delivery import Delivery
from rbstream.worker.feed import Changes, Feed
from rbstream.worker.offsets import GroupOffsets, Mark, Marks
from rbstream.worker.partitions import Partitions
from rbstream.worker.rejects import Rejections, Window
from rbstream.worker.scoring import Scored, Scoring
from rbstream.worker.source import as_message
from rbstream.worker.stop import Stop

logger = logging.getLogger(__name__)

# With batches under way their results are looked for this often, without messages the settings of a turn are.
BUSY_SECONDS, IDLE_SECONDS = 0.005, 0.1
# Full for a moment is how a backlog looks. To pause throws away what was fetched ahead, so it is for real stops only.
FULL_SECONDS_BEFORE_PAUSE = 2.0
# A partition whose end lies behind a transaction's marker is committed up to there, when it has been quiet for this.
SECONDS_BETWEEN_ENDS = 1.0
# Under KIP-848 a member that gets no partition is told nothing; one that gets some is told within a heartbeat or two
# (5 s as installed).
QUIET_SECONDS = 15.0
# Rewinds without a success in between: a cause that so many tries do not mend is for the supervisor.
MOST_ABORTS = 10
LONGEST_PAUSE_SECONDS = 10.0
# Given back at once where Kafka is there; where it is not, a client may wait for an answer of 10 s, and then once more.
SECONDS_TO_LEAVE = 30.0
# What a static member is told whose predecessor has not been given up yet (KIP-848, error 111): the client has no name
# for it, and tells of it as of any fatal error, so that only the words differ.
INSTANCE_IN_USE = KafkaError(111).str()


class Worker:
    """Runs until it is asked to stop. Raises LimitError (status 3), KafkaFailure, ModelError, RegistryError (1)."""

    def __init__(
        self,
        settings: Settings,
        feed: Feed,
        scoring: Scoring,
        delivery: Delivery,
        offsets: GroupOffsets,
        stop: Stop,
        health: Health,
        metrics: Metrics,
        rejections: Rejections,
    ) -> None:
        self._settings = settings
        self._feed = feed
        self._scoring = scoring
        self._delivery = delivery
        self._offsets = offsets
        self._stop = stop
        self._health = health
        self._metrics = metrics
        self._rejections = rejections
        self._account = Account(metrics)
        self._batcher = Batcher(settings.batch)
        self._partitions = Partitions()
        self._ready: list[Scored] = []
        self._ready_since = 0.0
        self._full_since: float | None = None
        self._paused = False
        self._aborts = 0
        self._ends_at = 0.0
        self._quiet_until = time.monotonic() + QUIET_SECONDS
        self._leaving = False

    @property
    def accepted(self) -> int:
        """How many rejections are still let through uncounted."""
        return self._rejections.accepted

    def run(self) -> None:
        """Consume until asked to stop, then finish what is under way."""
        self._feed.join(self._settings.source.topics, Changes(self._on_assign, self._on_revoke, self._on_lost))
        try:
            while not self._stop.requested:
                self._turn()
            self._health.stopping()
            if not self._finish(self._stop.deadline or 0.0):
                drain = self._settings.shutdown.drain
                raise RbstreamError(f"not done in {drain:g} s; what is not committed will be read again")
            self._commit_ends()
        except KafkaException as error:  # of a call that has no reason to fail
            raise KafkaFailure(f"Kafka client: {error.args[0].str()} ({error.args[0].name()})") from error
        finally:
            self._leaving = True
            with self._stop.bounded(SECONDS_TO_LEAVE):
                self._feed.close()

    def _turn(self) -> None:
        if not self._scoring.waiting:  # else it is their results that are progress
            self._health.tick()
        self._go_back()
        if self._is_full():
            self._wait_for_room()
        else:
            self._receive()
        if self._batcher.due_in() == 0 and self._scoring.room:
            self._submit()
        self._gather()
        if self._is_due():
            self._deliver()
        if time.monotonic() - self._ends_at >= SECONDS_BETWEEN_ENDS:
            self._delivery.poll()
            self._feed.check()
            self._commit_ends()
            if self._settings.source.group_protocol == "consumer" and time.monotonic() > self._quiet_until:
                self._health.set_assigned(True)  # who gets nothing is told nothing, there
            marks = self._feed.watermarks(self._partitions, ask=self._paused)
            self._account.look(self._partitions.delivered(), marks, self._scoring, self._ready, len(self._batcher))

    # ---- in

    def _receive(self) -> None:
        """Wait for messages, for as long as nothing else is due, and take as many as the batch has room for."""
        self._resume()
        first = self._feed.poll(self._wait())
        if first is None:
            return
        self._accept(first)
        if self._batcher.room > 0:
            for message in self._feed.more(self._batcher.room):
                self._accept(message)

    def _wait(self) -> float:
        due = self._batcher.due_in()
        longest = BUSY_SECONDS if self._scoring.waiting else IDLE_SECONDS
        return longest if due is None or not self._scoring.room else min(due, longest)

    def _accept(self, message: KafkaMessage) -> None:
        error = message.error()
        if error is not None:
            self._hear(error, (message.topic() or "", message.partition() or 0), message.offset() or 0)
            return
        taken = as_message(message)
        if self._partitions.read((taken.topic, taken.partition), taken.offset):
            self._batcher.add(taken)

    def _hear(self, error: KafkaError, partition: Partition, offset: int) -> None:
        """An error among the messages."""
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            self._partitions.reached(partition, offset)
            return
        self._metrics.kafka_errors.labels("consumer", error.name()).inc()
        if code == KafkaError._AUTO_OFFSET_RESET:
            position = self._partitions.position(partition)
            if position is None:  # told of a partition that has just been taken from us
                return
            gone = self._feed.gone(partition, position)
            self._finish(time.monotonic() + self._settings.shutdown.drain)  # what was read in time is no loss
            raise gone
        if INSTANCE_IN_USE in error.str():
            raise InstanceInUseError(f"source.instance_id {self._settings.source.instance_id}: {error.str()}")
        if judge(error) in (Fault.EXIT, Fault.UNKNOWN):
            raise KafkaFailure(f"consuming: {error.str()} ({error.name()})")
        logger.warning("consuming: %s", error.str(), extra={"error": error.name(), "topic": partition[0]})

    def _submit(self) -> None:
        batch = self._batcher.take()
        self._account.received(batch)
        self._scoring.submit(batch)

    def _is_full(self) -> bool:
        full = self._batcher.room == 0 and not self._scoring.room
        self._full_since = (self._full_since or time.monotonic()) if full else None
        return full

    def _wait_for_room(self) -> None:
        """Let the scoring get on; if that takes long, pause the partitions, so that polling goes on without them."""
        if not self._paused and time.monotonic() - (self._full_since or 0.0) > FULL_SECONDS_BEFORE_PAUSE:
            logger.warning("scoring is behind: partitions are paused", extra={"batches": self._scoring.waiting})
            self._feed.pause(self._partitions)
            self._paused = True
        if self._paused:
            message = self._feed.poll(0)
            if message is not None:
                self._accept(message)
        self._gather(BUSY_SECONDS)

    def _resume(self) -> None:
        if self._paused:
            logger.info("scoring has caught up: partitions are resumed")
            self._feed.resume(self._partitions)
            self._paused = False

    # ---- out

    def _gather(self, timeout: float = 0.0) -> None:
        """Take the results that are there. timeout: how long to wait for the first [s]."""
        while (result := self._scoring.take(timeout)) is not None:
            self._health.tick()
            if not self._ready:
                self._ready_since = time.monotonic()
            self._ready.append(result)
            timeout = 0.0

    def _is_due(self) -> bool:
        """Whether to deliver: at once where nothing more is under way; in a backlog batches share a transaction."""
        batch = self._settings.batch
        late = time.monotonic() - self._ready_since >= batch.max_delay
        return bool(self._ready) and (not self._scoring.wanted or late or len(self._ready) >= batch.queue)

    def _deliver(self, budget: float = math.inf) -> None:
        """Deliver what is ready, up to the first batch that has too many rejections. Raises its LimitError then."""
        results, self._ready = self._ready, []
        good: list[Scored] = []
        rejections, tripped = self._rejections, None
        for result in results:
            try:
                rejections = rejections.after(result.verdicts)
            except LimitError as limit:
                tripped = limit
                break
            good.append(result)
        if good:
            self._commit(good, rejections, budget)
        if tripped is not None:
            raise tripped

    def _commit(self, results: list[Scored], rejections: Rejections, budget: float) -> None:
        ends: dict[Partition, int] = {}
        for result in results:
            ends.update(result.batch.ends())
        started = time.perf_counter()
        try:
            messages = (message for result in results for message in result.outgoing)
            self._delivery.deliver(messages, _marks(ends, rejections), budget)
        except Aborted as aborted:
            self._abandon(str(aborted))
            self._count_abort(str(aborted))
            return
        self._aborts = 0
        self._rejections = rejections
        self._delivered(ends)
        self._account.committed(results, rejections, time.perf_counter() - started)

    def _commit_ends(self) -> None:
        """Commit the ends of quiet partitions: behind a transaction's marker nothing may ever come to be committed."""
        self._ends_at = time.monotonic()
        ends = self._partitions.quiet_ends()
        if not ends:
            return
        try:
            self._delivery.deliver((), _marks(ends, self._rejections))
        except Aborted as aborted:
            self._count_abort(f"committing ends of partitions: {aborted}")
            return
        self._aborts = 0
        self._delivered(ends)

    def _delivered(self, ends: Mapping[Partition, int]) -> None:
        self._partitions.deliver(ends)
        self._feed.committed(ends)

    def _finish(self, deadline: float) -> bool:
        """Deliver all that was read, until the deadline; the rest is given up, to be read again. Whether none was."""
        while (len(self._batcher) or self._scoring.wanted) and time.monotonic() < deadline:
            self._health.tick()
            if len(self._batcher) and self._scoring.room:
                self._submit()
            self._gather(IDLE_SECONDS)
        self._deliver(deadline)
        if len(self._batcher) or self._scoring.wanted:
            self._abandon("not done in time")
            return False
        return True

    # ---- back

    def _abandon(self, why: str) -> None:
        """Forget all that is not committed. The next turn goes back to where that begins."""
        self._metrics.rewinds.inc()
        extra = {"batches": self._scoring.wanted + len(self._ready), "messages": len(self._batcher)}
        logger.warning("going back to what is committed: %s", why, extra=extra)
        self._scoring.discard()
        self._batcher.clear()
        self._ready.clear()
        self._partitions.give_up()

    def _count_abort(self, why: str) -> None:
        self._aborts += 1
        logger.warning("aborted: %s", why, extra={"aborts_in_a_row": self._aborts})
        if self._aborts >= MOST_ABORTS:
            raise KafkaFailure(f"{self._aborts} tries in a row were aborted, the last one: {why}")

    def _go_back(self) -> None:
        """Read again what was given up."""
        offsets = self._partitions.go_back()
        if offsets and self._aborts > 1:
            time.sleep(min(LONGEST_PAUSE_SECONDS, 0.1 * 2**self._aborts))
        for (topic, partition), offset in offsets.items():
            try:
                self._feed.seek((topic, partition), offset)
            except KafkaException as error:
                raise KafkaFailure(f"going back to {topic}/{partition}/{offset}: {error.args[0].str()}") from error

    # ---- the group's changes, told while polling

    def _on_assign(self, partitions: list[Partition]) -> None:
        if self._leaving:
            return
        marks = self._offsets.committed(partitions)
        self._partitions.assign({partition: mark.offset for partition, mark in marks.items()})
        for partition, mark in marks.items():
            self._rejections = self._rejections.assigned(partition, Window.of(mark.note))
        self._feed.begin({partition: mark.offset for partition, mark in marks.items()})
        if self._paused:
            self._feed.pause(marks)
        self._changed("assigned", list(marks))

    def _on_revoke(self, partitions: list[Partition]) -> None:
        """Finish and commit, within the budget, what we have of them; what is only read is for the next owner."""
        if self._leaving:
            return
        self._batcher.drop(set(partitions))
        deadline = time.monotonic() + self._settings.shutdown.drain
        self._finish(min(deadline, self._stop.deadline or deadline))
        self._forget(partitions)
        self._changed("revoked", partitions)

    def _on_lost(self, partitions: list[Partition]) -> None:
        """Others may own them already: nothing of them may be committed."""
        if self._leaving:
            return
        self._forget(partitions)
        self._abandon("partitions were lost: the session timed out, or others took over")
        self._changed("lost", partitions)

    def _forget(self, partitions: list[Partition]) -> None:
        self._partitions.remove(partitions)
        for partition in partitions:
            self._account.forget(partition)
        self._rejections = self._rejections.without(partitions)

    def _changed(self, event: str, partitions: list[Partition]) -> None:
        self._health.set_assigned(event != "lost")
        self._quiet_until = time.monotonic() + QUIET_SECONDS
        self._metrics.rebalances.labels(event).inc()
        self._metrics.assigned_partitions.set(len(self._partitions))
        named = sorted(f"{topic}/{partition}" for topic, partition in partitions)
        logger.info("partitions %s", event, extra={"partitions": named, "owned": len(self._partitions)})


def _marks(ends: Mapping[Partition, int], rejections: Rejections) -> Marks:
    return {partition: Mark(end, rejections.note(partition)) for partition, end in ends.items()}
