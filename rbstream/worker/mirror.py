"""Progress topics at the sink: for each source topic an empty one with as many partitions, made by whoever comes first.

They are what the group subscribes to where the data is in another cluster; its offsets of them are offsets of the
source. Whoever deletes one deletes those offsets: a ledger, a compacted topic, remembers which topics there were (by
Kafka's topic ids), so that this is noticed, and nothing begins anew.
"""

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic  # type: ignore[attr-defined]

from rbstream.errors import LimitError, RbstreamError
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
from rbstream.kafka.faults import Fault, KafkaFailure, judge
from rbstream.kafka.patience import CALL_SECONDS, Patience
from rbstream.settings import Settings

logger = logging.getLogger(__name__)

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


class Mirror:
    """Looks after the progress topics, in a thread of its own once it is started."""

    def __init__(self, settings: Settings) -> None:
        self._topics = settings.source.topics
        self._prefix = progress_prefix(settings)
        self._servers = producer_config(settings)["bootstrap.servers"]
        sink = with_voice(admin_config(producer_config(settings)), Complaints("sink admin"))
        source = with_voice(admin_config(consumer_config(settings)), Complaints("source admin"))
        self._sink, self._source = AdminClient(sink), AdminClient(source)
        self._ledger = Ledger(sink, self._prefix.removesuffix("."))
        self._failure: RbstreamError | None = None
        self._closed = threading.Event()

    def start(self) -> None:
        """Look now, and from now on. Raises KafkaFailure, LimitError (see `look`)."""
        Patience(ANSWER_SECONDS, lambda: None).insist("looking after progress topics", lambda _: self.look())
        threading.Thread(target=self._watch, name="mirror", daemon=True).start()

    def check(self) -> None:
        """Raises what went wrong since the start."""
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Look no more."""
        self._closed.set()

    def look(self, renew: bool = False) -> dict[str, int]:
        """Make the progress topics and partitions that are missing. Returns the source topics and their partitions.

        renew: take what is there for what is meant to be, as an operator has said where to go on.
        Raises LimitError where one was deleted or made anew behind our back, KafkaFailure where it can't be made,
        KafkaException where Kafka does not answer.
        """
        source = {name: n for name, n in _topics(self._source).items() if patterns.matches(self._topics, name)}
        known = self._known(source, renew)
        there = self._find({self._prefix + name for name in known})
        for name, partitions in source.items():
            self._make(name, partitions, there.get(self._prefix + name), name in known)
        ids = self._ids([self._prefix + name for name in source])
        for name in source:
            self._remember(name, known.get(name), ids.get(self._prefix + name))
        return source

    def _watch(self) -> None:
        while not self._closed.wait(SECONDS_BETWEEN_LOOKS):
            try:
                self.look()
            except RbstreamError as error:
                self._failure = error
                return
            except KafkaException as error:  # an outage is noticed, and bounded, by those who read and write
                if judge(error.args[0]) in (Fault.EXIT, Fault.UNKNOWN):
                    self._failure = KafkaFailure(f"looking after progress topics: {error.args[0].str()}")
                    return

    def _known(self, source: Mapping[str, int], renew: bool) -> dict[str, str]:
        """Ids of the progress topics that there have been, by source topic; those of topics that are gone left out."""
        there = _topics(self._sink)
        if self._ledger.topic not in there:
            left = sorted(name for name in source if self._prefix + name in there)
            if left and not renew:
                raise LimitError(
                    f"the ledger of progress topics, {self._ledger.topic}, was deleted, and the progress topic of "
                    f"{left[0]} is there: nobody can tell any more whether its offsets are whole; {_ADVICE}"
                )
            self._create(self._ledger.topic, 1, _LEDGER_CONFIG)
        return {} if renew else {name: id_ for name, id_ in self._ledger.read().items() if name in source}

    def _find(self, wanted: set[str]) -> dict[str, int]:
        """The sink's topics; asked again for a while where some that are wanted are missing."""
        for _ in range(TRIES_TO_FIND):
            there = _topics(self._sink)
            if wanted <= set(there):
                break
            time.sleep(SECONDS_BETWEEN_TRIES)
        return there

    def _make(self, name: str, partitions: int, there: int | None, known: bool) -> None:
        progress = self._prefix + name
        if there is None and known:
            raise LimitError(f"progress topic {progress} was deleted, and the group's offsets with it; {_ADVICE}")
        if there is None:
            self._create(progress, partitions, {})
        elif there > partitions:
            raise LimitError(
                f"source topic {name} has {partitions} partitions, and had {there}: it was made anew, and offsets of "
                f"the old one mean nothing in it; {_ADVICE}"
            )
        elif there < partitions:
            self._grow(progress, partitions)

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

    def _ids(self, topics: list[str]) -> dict[str, str]:
        if not topics:
            return {}
        answers = self._sink.describe_topics(TopicCollection(topics), request_timeout=ANSWER_SECONDS)
        ids = {}
        for topic, answer in answers.items():
            try:
                ids[topic] = str(answer.result().topic_id)
            except KafkaException as error:  # not known everywhere yet: at the next look, then
                if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise
        return ids

    def _remember(self, name: str, known: str | None, now: str | None) -> None:
        if now is None or known == now:
            return
        if known is not None:
            raise LimitError(
                f"progress topic {self._prefix}{name} was deleted and made anew, and the group's offsets are gone with "
                f"the old one; {_ADVICE}"
            )
        self._ledger.write(name, now)


_ADVICE = (
    "nothing is read, as it would begin anew. Look at `rbstream offsets show`, say where to go on by `rbstream offsets "
    "import` (from the group at the source) or `rbstream offsets set`, and start the workers again"
)


class Ledger:
    """Which progress topics there have been: id by source topic, in a compacted topic. config: to connect by."""

    def __init__(self, config: dict[str, Any], topic: str) -> None:
        self.topic = topic
        self._config = config
        self._read: dict[str, str] = {}
        self._next = 0

    def read(self) -> dict[str, str]:
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
                    self._read[_text(message.key())] = _text(message.value())
                elif time.monotonic() > deadline:
                    raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"reading {self.topic}"))
        finally:
            consumer.close()
        return dict(self._read)

    def write(self, name: str, id_: str) -> None:
        """Remember a topic. Raises KafkaFailure where that can't be written."""
        failed: list[KafkaError] = []
        producer = make_producer({**self._config, "message.timeout.ms": int(ANSWER_SECONDS * 1000)}, _UNHEARD)
        producer.produce(self.topic, id_, name, on_delivery=lambda error, _: failed.append(error) if error else None)
        while producer.flush(CALL_SECONDS):
            pass
        if failed:
            raise KafkaFailure(f"the ledger of progress topics, {self.topic}, can't be written: {failed[0].str()}")


_UNHEARD = Complaints("ledger")


def _topics(admin: AdminClient) -> dict[str, int]:
    metadata = admin.list_topics(timeout=ANSWER_SECONDS)
    return {name: len(topic.partitions) for name, topic in metadata.topics.items() if topic.error is None}


def _text(value: str | bytes | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""
