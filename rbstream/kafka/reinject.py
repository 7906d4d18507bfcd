"""Dead letters back to where they came from, once what was wrong is mended: original bytes, key, time and headers.

Without a choice of the operator's it takes up what was not taken up yet, exactly once: how far it got is committed to
the group `<group_id>.dlq`, in one transaction with what it writes. (Where source and sink are two clusters, behind it:
then an interruption can write some twice.) What an operator chooses is written as often as it is asked for.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType

from rbstream.config import required
from rbstream.kafka.clients import Complaints, admin_config, consumer_config, make_producer, with_voice
from rbstream.kafka.dlq import OURS, DeadLetter, DeadLetters, Place, insist
from rbstream.kafka.faults import KafkaFailure
from rbstream.kafka.interrupts import held_back
from rbstream.kafka.patience import CALL_SECONDS, flush
from rbstream.kafka.publish import feeding_config
from rbstream.kafka.topics import ANSWER_SECONDS, LEAST_MESSAGE_BYTES, Cluster
from rbstream.settings import Settings
from rbstream.units import format_duration

# Some hundred dead letters: a transaction costs milliseconds, and so many more are all that an interruption undoes.
BATCH_LETTERS, BATCH_BYTES = 100, 8 << 20
# A batch takes a second. As long as a person waits for Kafka elsewhere here; Ctrl-C waits for the batch, too.
TIMEOUT_MS = 60_000
# librdkafka's most: what went into a topic once fits again, and the broker says so where it doesn't.
LARGEST_MESSAGE_BYTES = 1_000_000_000
LARGEST_QUEUE_KBYTES = 2_097_151


@dataclass(frozen=True)
class Request:
    """Which dead letters to inject again, and where.

    topic: of the dead letters, where None `sink.dead_letters`. to: where None, the topic each came from. places,
    reason, everything: a choice of the operator's; without one, what was not taken up yet.
    """

    topic: str | None = None
    places: tuple[Place, ...] = ()
    reason: str | None = None
    everything: bool = False
    to: str | None = None
    dry_run: bool = False

    @property
    def chosen(self) -> bool:
        """Whether the operator said which."""
        return bool(self.places or self.reason or self.everything)


@dataclass
class Reinjected:
    """What became of it. injected: by topic; left: places of those that can't be injected, and why."""

    injected: Counter[str] = field(default_factory=Counter)
    left: dict[Place, str] = field(default_factory=dict)
    # Ctrl-C or SIGTERM, to be raised again once this is told.
    stopped: BaseException | None = None


Seen = Callable[[int, int], None]


def reinject(request: Request, settings: Settings, seen: Seen) -> Reinjected:
    """Inject dead letters again. seen: called with how many were, and the offsets behind.

    Returns what was done also where it was interrupted, which is between two batches. Raises UsageError, KafkaFailure;
    what was committed before stays, and is not done again.
    """
    required(settings, "source.bootstrap_servers")
    done = Reinjected()
    with closing(DeadLetters(settings, request.topic)) as letters:
        targets = _Targets(settings)
        try:
            writer = _writer(request, settings, letters, targets)
            for batch in _batches(_wanted(request, letters, done, seen)):
                with held_back():  # what is committed is counted
                    _write(batch, request, letters.topic, targets, writer, done)
        except (KeyboardInterrupt, SystemExit) as stop:
            done.stopped = stop
        except KafkaFailure as error:
            raise KafkaFailure(f"{error}; {done.injected.total():,} were injected before that") from error
    return done


def _wanted(request: Request, letters: DeadLetters, done: Reinjected, seen: Seen) -> Iterator[DeadLetter]:
    if request.places:
        yield from [letters.at(place) for place in request.places]  # all of them are there, or nothing is done
        return
    start = {} if request.chosen else letters.taken_up()
    for letter in letters.scan(start, lambda behind, _: seen(done.injected.total(), behind)):
        if request.reason in (None, letter.said("reason")):
            yield letter


def _batches(wanted: Iterator[DeadLetter]) -> Iterator[list[DeadLetter]]:
    batch: list[DeadLetter] = []
    size = 0
    for letter in wanted:
        batch.append(letter)
        size += len(letter.value)
        if len(batch) == BATCH_LETTERS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _write(
    batch: list[DeadLetter], request: Request, topic: str, targets: "_Targets", writer: "_Writer", done: Reinjected
) -> None:
    messages, left = [], {}
    for letter in batch:
        target = request.to or letter.said("source.topic")
        if not letter.whole:
            left[letter.place] = f"only its hash is left; the message was {letter.source}"
        elif target is None:
            left[letter.place] = f"no {OURS}source.topic says where it came from; name a topic with --to"
        else:
            message = _message(letter, target, topic)
            targets.check(target, message["timestamp"], letter.place)
            messages.append(message)
    positions = {letter.place.partition: letter.place.offset + 1 for letter in batch}
    writer.write(messages, [TopicPartition(topic, *position) for position in positions.items()])
    done.injected.update(message["topic"] for message in messages)
    done.left.update(left)


class _Targets:
    """The topics to inject into, on the source's cluster: there, and keeping messages that are as old as these."""

    def __init__(self, settings: Settings) -> None:
        config = consumer_config(settings)
        self.cluster = Cluster("source", config)
        self._admin = AdminClient(with_voice(admin_config(config), Complaints("dead letters")))
        self._kept: dict[str, float] = {}

    def check(self, topic: str, timestamp: int, place: Place) -> None:
        """Raises KafkaFailure where a dead letter can't go into a topic, or would be deleted there unread."""
        try:
            self.cluster.require([topic])
        except KafkaFailure as error:
            raise KafkaFailure(f"{error}; or name another one with --to") from error
        if topic not in self._kept:
            self._kept[topic] = self._kept_seconds(topic)
        kept, at = self._kept[topic], datetime.fromtimestamp(timestamp / 1000, UTC)
        if timestamp and time.time() - at.timestamp() > kept:  # without one it is given today's
            raise KafkaFailure(
                f"dead letter {place} carries the time {at:%Y-%m-%d %H:%M}, and topic {topic} deletes what is older "
                f"than {format_duration(kept)}: raise its retention.ms, or name another one with --to"
            )

    def _kept_seconds(self, topic: str) -> float:
        """How old a message may get, by the time that it carries [s]."""
        try:
            resource = ConfigResource(ResourceType.TOPIC, topic)
            (answer,) = self._admin.describe_configs([resource], request_timeout=ANSWER_SECONDS).values()
            values = {name: entry.value for name, entry in answer.result().items()}
            kept = int(values["retention.ms"])
            deletes = "delete" in values["cleanup.policy"] and values["message.timestamp.type"] == "CreateTime"
        except (KafkaException, KeyError, ValueError):  # we may not ask
            return math.inf
        return kept / 1000 if deletes and kept >= 0 else math.inf


def _message(letter: DeadLetter, target: str, topic: str) -> dict[str, Any]:
    """What `Producer.produce` takes: the message as it was, and a header that says that it was here."""
    return {
        "topic": target,
        "value": letter.value,
        "key": letter.key,
        "timestamp": letter.original_timestamp,
        "headers": [
            *(header for header in letter.headers if not header[0].startswith(OURS)),
            (f"{OURS}replayed", f"{topic}/{letter.place}".encode()),
        ],
    }


class _DryRun:
    """Writes nothing."""

    def write(self, messages: list[dict[str, Any]], positions: list[TopicPartition]) -> None:
        pass


class _Plain:
    """Writes messages, and waits until all are delivered. letters: where positions are committed, if they are."""

    def __init__(self, config: dict[str, Any], letters: DeadLetters | None) -> None:
        self._producer = make_producer(config, Complaints("dead letters"))
        self._letters = letters
        self._error: KafkaError | None = None

    def write(self, messages: list[dict[str, Any]], positions: list[TopicPartition]) -> None:
        self._error = None
        try:
            for message in messages:
                self._producer.produce(**message, on_delivery=self._reported)
        except KafkaException as error:
            self._error = error.args[0]
        finally:  # what was queued is on its way
            flush(self._producer, math.inf)
        if self._error is not None:
            raise KafkaFailure(f"a dead letter was not taken: {self._error.str()}")
        if self._letters is not None:
            consumer = self._letters.consumer
            insist("committing how far it got", lambda _: consumer.commit(offsets=positions, asynchronous=False))

    def _reported(self, error: KafkaError | None, _: Any) -> None:
        self._error = self._error or error


class _Transactional:
    """Writes messages and positions in one transaction: all of them, or nothing."""

    def __init__(self, config: dict[str, Any], letters: DeadLetters, name: str) -> None:
        more = {"transactional.id": name, "transaction.timeout.ms": TIMEOUT_MS}
        self._producer = make_producer({**config, **more}, Complaints("dead letters"))
        self._consumer = letters.consumer
        # Ends what an interrupted one left open, and shuts out one that still runs.
        insist("getting ready for transactions", self._producer.init_transactions)

    def write(self, messages: list[dict[str, Any]], positions: list[TopicPartition]) -> None:
        metadata = self._consumer.consumer_group_metadata()
        try:
            self._producer.begin_transaction()
            for message in messages:
                self._producer.produce(**message)
            insist(
                "adding offsets to the transaction",
                lambda seconds: self._producer.send_offsets_to_transaction(positions, metadata, seconds),
            )
            insist("committing the transaction", self._producer.commit_transaction)
        except BaseException as error:
            with suppress(KafkaException):
                self._producer.abort_transaction(CALL_SECONDS)
            if isinstance(error, KafkaException):
                raise KafkaFailure(f"a dead letter was not taken: {error.args[0].str()}") from error
            raise


_Writer = _DryRun | _Plain | _Transactional


def _writer(request: Request, settings: Settings, letters: DeadLetters, targets: _Targets) -> _Writer:
    if request.dry_run:
        return _DryRun()
    config = {
        **feeding_config(settings),
        "message.timeout.ms": TIMEOUT_MS,
        "message.max.bytes": LARGEST_MESSAGE_BYTES,
        "queue.buffering.max.kbytes": LARGEST_QUEUE_KBYTES,  # batches are what bounds it
        "batch.size": LEAST_MESSAGE_BYTES,  # what any topic takes
    }
    if request.chosen:
        return _Plain(config, None)
    if targets.cluster.id != letters.cluster.id:
        return _Plain(config, letters)
    return _Transactional(config, letters, f"{settings.source.group_id}.dlq")
