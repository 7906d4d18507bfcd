"""Progress topics at the sink: for each source topic an empty one with as many partitions, made by whoever comes first.

They are what the group subscribes to where the data is in another cluster; its offsets of them are offsets of the
source. Whoever deletes one deletes those offsets: a ledger, a compacted topic, remembers which topics there were, here
and at the source, by Kafka's ids, so that this is noticed, and nothing begins anew.
"""

import json
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic  # type: ignore[attr-defined]

from rbstream.errors import LimitError
from rbstream.kafka import patterns
from rbstream.kafka.clients import (
    METADATA_REFRESH_MS,
    Complaints,
    admin_config,
    consumer_config,
    make_consumer,
    make_producer,
    producer_config,
    progress_prefix,
    with_voice,
)
from rbstream.kafka.faults import KafkaFailure
from rbstream.kafka.patience import CALL_SECONDS, flush
from rbstream.settings import Settings

logger = logging.getLogger(__name__)
T = TypeVar("T")

# New topics and partitions are looked for as often as the clients do.
SECONDS_BETWEEN_LOOKS = METADATA_REFRESH_MS / 1000
# A broker that is there answers in milliseconds, one that makes a topic in seconds.
ANSWER_SECONDS = 15.0
# Brokers learn of a new topic one after the other: what is missing is asked for again before anybody is alarmed.
TRIES_TO_FIND, SECONDS_BETWEEN_TRIES = 5, 1.0
_NO_RIGHT = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.POLICY_VIOLATION,
    }
)
_LEDGER_CONFIG = {"cleanup.policy": "compact"}


class Known(NamedTuple):
    """Kafka's ids of a source topic and of its progress topic; None where they can't be told."""

    progress: str | None
    source: str | None


@dataclass(frozen=True)
class _Sight:
    """What there is: partitions of source topics and of the sink's, ids of the former and of their progress topics."""

    source: Mapping[str, int]
    sink: Mapping[str, int]
    ids: Mapping[str, Known]


class Mirror:
    """Looks after the progress topics, in a thread of its own once it is started.

    max_outage: for how long a look may fail [s], before the process is no good.
    """

    def __init__(self, settings: Settings) -> None:
        self._topics = settings.source.topics
        self._prefix = progress_prefix(settings)
        self._max_outage = settings.sink.max_outage
        self._servers = producer_config(settings)["bootstrap.servers"]
        sink = with_voice(admin_config(producer_config(settings)), Complaints("sink admin"))
        source = with_voice(admin_config(consumer_config(settings)), Complaints("source admin"))
        self._sink, self._source = AdminClient(sink), AdminClient(source)
        self._ledger = Ledger(sink, self._prefix.removesuffix("."))
        self._lock = threading.Lock()
        self._failure: Exception | None = None
        self._closed = threading.Event()

    def start(self) -> None:
        """Look now, and from now on. Raises KafkaFailure, LimitError (see `look`)."""
        self.insist(self.look)
        threading.Thread(target=self._watch, name="mirror", daemon=True).start()

    def insist(
        self, look: Callable[[], T], seconds: float = ANSWER_SECONDS, tick: Callable[[], None] = lambda: None
    ) -> T:
        """What a look gives, tried for so long. Raises KafkaFailure where Kafka does not answer, and what it raises.

        tick: called at every try, so that health sees us.
        """
        deadline = time.monotonic() + seconds
        while True:
            tick()
            try:
                return look()
            except KafkaException as error:
                if time.monotonic() > deadline:
                    raise KafkaFailure(f"looking after progress topics: {error.args[0].str()}") from error
                time.sleep(SECONDS_BETWEEN_TRIES)

    def check(self) -> None:
        """Raises what went wrong since the start."""
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Look no more."""
        self._closed.set()

    def look(self) -> None:
        """Make the progress topics and partitions that are missing.

        Raises LimitError where one was deleted or made anew behind our back, KafkaFailure where it can't be made,
        KafkaException where Kafka does not answer.
        """
        with self._lock:
            known = self._known()
            sight = self._see(known)
            for name in sight.source:
                if trouble := self._trouble(name, known.get(name), sight):
                    raise LimitError(f"{trouble}: nothing is read, as that would lose alerts or double them. {_ADVICE}")
            self._make(sight, known)

    def troubles(self) -> dict[str, str]:
        """What is wrong with which source topics. Raises KafkaException."""
        with self._lock:
            if self._ledger.topic not in (there := _topics(self._sink)):
                told = f"the ledger of progress topics, {self._ledger.topic}, was deleted"
                return {name: told for name in self._see({}).source if self._prefix + name in there}
            known = self._ledger.read()
            sight = self._see(known)
            found = {name: self._trouble(name, known.get(name), sight) for name in sight.source}
            return {name: trouble for name, trouble in found.items() if trouble}

    def prepare(self, troubles: Iterable[str]) -> None:
        """Make what is missing, for offsets that are about to be set. troubles: topics that are not accepted yet."""
        with self._lock:
            if self._ledger.topic not in _topics(self._sink):
                self._create(self._ledger.topic, 1, _LEDGER_CONFIG)
            self._make(self._see({}), self._ledger.read(), troubles)
            self._all_ids()

    def accept(self, names: Iterable[str]) -> None:
        """Take the topics that are there for those that are meant: their offsets are as an operator wants them."""
        with self._lock:
            ids = self._all_ids()
            for name in names:
                self._ledger.write(name, ids[name])

    def _all_ids(self) -> Mapping[str, Known]:
        """Of all topics. Raises KafkaException while brokers don't know of all progress topics yet."""
        ids = self._see({}).ids
        if any(known.progress is None for known in ids.values()):
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "progress topics that were made are not there yet"))
        return ids

    def _watch(self) -> None:
        answered = time.monotonic()
        while not self._closed.wait(SECONDS_BETWEEN_LOOKS):
            try:
                self.look()
                answered = time.monotonic()
            except KafkaException as error:
                if time.monotonic() - answered > self._max_outage:
                    self._failure = KafkaFailure(f"looking after progress topics: {error.args[0].str()}")
                    return
            except Exception as error:  # raised by whoever checks
                self._failure = error
                return

    def _known(self) -> dict[str, Known]:
        """What the ledger holds; it is made where there is none yet, and none of what it would tell of."""
        there = _topics(self._sink)
        if self._ledger.topic not in there:
            left = sorted(name for name in there if name.startswith(self._prefix))
            if left:
                raise LimitError(
                    f"the ledger of progress topics, {self._ledger.topic}, was deleted, and {left[0]} is there: nobody "
                    f"can tell any more whether its offsets are whole. {_ADVICE}"
                )
            self._create(self._ledger.topic, 1, _LEDGER_CONFIG)
        return self._ledger.read()

    def _see(self, known: Mapping[str, Known]) -> _Sight:
        """Look around. Brokers learn of topics one after the other: those that are known are asked for some times."""
        source = {name: n for name, n in _topics(self._source).items() if patterns.matches(self._topics, name)}
        wanted = {self._prefix + name for name in known if name in source}
        for _ in range(TRIES_TO_FIND):
            sink = _topics(self._sink)
            if wanted <= set(sink):
                break
            time.sleep(SECONDS_BETWEEN_TRIES)
        at_source = _ids(self._source, list(source))
        at_sink = _ids(self._sink, [self._prefix + name for name in source if self._prefix + name in sink])
        ids = {name: Known(at_sink.get(self._prefix + name), at_source.get(name)) for name in source}
        return _Sight(source, sink, ids)

    def _trouble(self, name: str, known: Known | None, sight: _Sight) -> str | None:
        """Why the group's offsets of a topic can't be what they were; None where they can."""
        progress, now = self._prefix + name, sight.ids[name]
        if known is None:
            return None
        if progress not in sight.sink:
            return f"progress topic {progress} was deleted, and the group's offsets with it"
        if None not in (known.progress, now.progress) and known.progress != now.progress:
            return f"progress topic {progress} was deleted and made anew, and the group's offsets went with the old one"
        if None not in (known.source, now.source) and known.source != now.source:
            return f"source topic {name} was made anew, and offsets of the old one mean nothing in it"
        return None

    def _make(self, sight: _Sight, known: Mapping[str, Known], leave: Iterable[str] = ()) -> None:
        """Make what is missing, and remember it. leave: what not to remember yet."""
        for name, partitions in sight.source.items():
            there = sight.sink.get(self._prefix + name)
            if there is None:
                self._create(self._prefix + name, partitions, {})
            elif there < partitions:
                self._grow(self._prefix + name, partitions)
        new = [name for name in sight.source if name not in known and name not in leave]
        ids = _ids(self._sink, [self._prefix + name for name in new])
        for name in new:
            if self._prefix + name in ids:  # else not every broker knows of it: at the next look, then
                self._ledger.write(name, Known(ids[self._prefix + name], sight.ids[name].source))

    def _create(self, topic: str, partitions: int, config: dict[str, str]) -> None:
        if said := patterns.name_problem(topic):
            raise KafkaFailure(f"progress topic {topic}: {said}; set sink.progress_prefix")
        (made,) = self._sink.create_topics(
            [NewTopic(topic, partitions, config=config)], request_timeout=ANSWER_SECONDS
        ).values()
        options = "".join(f" --config {option}={value}" for option, value in config.items())
        self._await(made, topic, f"--create --topic {topic} --partitions {partitions}{options}")
        logger.info("progress topic made", extra={"topic": topic, "partitions": partitions})

    def _grow(self, topic: str, partitions: int) -> None:
        (made,) = self._sink.create_partitions(
            [NewPartitions(topic, partitions)], request_timeout=ANSWER_SECONDS
        ).values()
        self._await(made, topic, f"--alter --topic {topic} --partitions {partitions}")
        logger.info("progress topic has more partitions", extra={"topic": topic, "partitions": partitions})

    def _await(self, made: Any, topic: str, command: str) -> None:
        try:
            made.result()
        except KafkaException as error:
            code = error.args[0].code()
            if code in _NO_RIGHT:
                raise KafkaFailure(
                    f"progress topic {topic} can't be made at {self._servers}: {error.args[0].str()}; let rbstream "
                    f"create topics, or: kafka-topics.sh --bootstrap-server {self._servers} {command}"
                ) from error
            # Another worker was first.
            if code not in (KafkaError.TOPIC_ALREADY_EXISTS, KafkaError.INVALID_PARTITIONS):
                raise


_ADVICE = (
    "Look at `rbstream offsets show`; say where to go on, in each partition that holds alerts, by `rbstream offsets "
    "import` (from the group at the source) or `rbstream offsets set`; and start the workers again"
)


class Ledger:
    """Which progress topics there have been, by source topic, in a compacted topic. config: to connect by."""

    def __init__(self, config: dict[str, Any], topic: str) -> None:
        self.topic = topic
        self._config = config
        self._read: dict[str, Known] = {}
        self._next = 0

    def read(self) -> dict[str, Known]:
        """What it holds. Raises KafkaException."""
        at = TopicPartition(self.topic, 0)
        consumer = make_consumer({**self._config, "group.id": self.topic, "enable.auto.commit": False}, _UNHEARD)
        try:
            _, end = consumer.get_watermark_offsets(at, timeout=ANSWER_SECONDS)
            at.offset = self._next or OFFSET_BEGINNING
            consumer.assign([at])
            deadline = time.monotonic() + ANSWER_SECONDS
            while self._next < end:
                message = consumer.poll(CALL_SECONDS)
                if message is not None and message.error() is None:
                    self._next = (message.offset() or 0) + 1
                    self._read[_text(message.key())] = Known(**json.loads(_text(message.value())))
                elif time.monotonic() > deadline:
                    raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"reading {self.topic}"))
        finally:
            consumer.close()
        return dict(self._read)

    def write(self, name: str, known: Known) -> None:
        """Remember a topic. Raises KafkaException."""
        failed: list[KafkaError] = []
        producer = make_producer({**self._config, "message.timeout.ms": int(ANSWER_SECONDS * 1000)}, _UNHEARD)
        value = json.dumps(known._asdict())
        producer.produce(self.topic, value, name, on_delivery=lambda error, _: failed.append(error) if error else None)
        flush(producer, math.inf)
        if failed:
            raise KafkaException(failed[0])


_UNHEARD = Complaints("ledger")


def _topics(admin: AdminClient) -> dict[str, int]:
    metadata = admin.list_topics(timeout=ANSWER_SECONDS)
    return {name: len(topic.partitions) for name, topic in metadata.topics.items() if topic.error is None}


def _ids(admin: AdminClient, topics: list[str]) -> dict[str, str]:
    """Kafka's ids of topics; those left out that a broker does not know (yet), or knows no id of (before 2.8)."""
    if not topics:
        return {}
    ids = {}
    answers = admin.describe_topics(TopicCollection(topics), request_timeout=ANSWER_SECONDS)
    for topic, answer in answers.items():
        try:
            id_ = answer.result().topic_id
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
            continue
        if id_ is not None and (id_.get_most_significant_bits() or id_.get_least_significant_bits()):
            ids[topic] = str(id_)
    return ids


def _text(value: str | bytes | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""
