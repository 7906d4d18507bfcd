"""Topics and a group that nobody else has, for a measurement; removed after it."""

import logging
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec  # type: ignore[attr-defined]

from rbstream.errors import RbstreamError
from rbstream.kafka.clients import Complaints, admin_config, with_voice
from rbstream.kafka.patience import Patience
from rbstream.worker.offsets import GroupOffsets

logger = logging.getLogger(__name__)

PREFIX = "rbstream-bench"
# As many as the survey's nightly topics have, to the next power of two below.
PARTITIONS = 8
# A broker that is there answers in milliseconds; one that deletes files takes seconds.
ANSWER_SECONDS = 30.0
# Kafka deletes whole segments: small ones keep the disk close to `retention.bytes`.
SEGMENT_BYTES = 64 << 20
# A member that was killed stays in its group until its session is over: then the broker removes the group by itself.
TRIES_TO_DELETE, SECONDS_BETWEEN_TRIES = 5, 0.5


class Scratch:
    """The names, and how far things are. source, sink: admins of the clusters, the same where it is one."""

    def __init__(self, source: AdminClient, sink: AdminClient, config: dict[str, Any], step: str) -> None:
        self.source, self.sink = source, sink
        self.group = f"{PREFIX}-{uuid.uuid4().hex[:8]}-{step}"
        self.input, self.output, self.dead_letters = (f"{self.group}-{role}" for role in ("in", "out", "dead"))
        # Where the group lives at the sink, it is told of the input's progress by these.
        ledger = f"{self.group}.progress"
        self.progress = (ledger, f"{ledger}.{self.input}") if source is not sink else ()
        prefix = f"{ledger}." if self.progress else ""
        # Asks for the group's offsets without joining it. An admin client could too, but where the broker has just
        # started librdkafka 2.16 crashes on the answer (confluent-kafka-python issue 1982).
        self._asking = Consumer({**config, "group.id": self.group, "isolation.level": "read_uncommitted"})
        self._offsets = GroupOffsets(self._asking, Patience(ANSWER_SECONDS, lambda: None), prefix)

    def published(self) -> int:
        """Messages that were written to the input."""
        end = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        latest = {TopicPartition(self.input, number): end for number in range(PARTITIONS)}
        futures = self.source.list_offsets(latest, request_timeout=ANSWER_SECONDS).values()
        return sum(_answer(future).offset for future in futures)

    def committed(self) -> int:
        """Messages of the input that the group is done with."""
        marks = self._offsets.committed([(self.input, number) for number in range(PARTITIONS)])
        return sum(max(0, mark.offset) for mark in marks.values())

    def close(self) -> None:
        """Let the client go."""
        self._asking.close()


@contextmanager
def scratch(config: dict[str, Any], sink: dict[str, Any] | None, step: str, retention: int) -> Iterator[Scratch]:
    """Topics that keep `retention` bytes a partition. Raises RbstreamError where Kafka refuses.

    config: a client's. sink: another's, where results and group are to be in another cluster.
    """
    configs = [with_voice(admin_config(each), Complaints("bench")) for each in (config, sink or config)]
    source = AdminClient(configs[0])
    made = Scratch(source, AdminClient(configs[1]) if sink else source, configs[1], step)
    try:
        _create(made, retention)
        yield made
    finally:
        made.close()
        _remove(made.source, (made.input,), made.group)
        _remove(made.sink, (made.output, made.dead_letters, *made.progress), made.group)


def _create(made: Scratch, retention: int) -> None:
    kept = {"retention.bytes": str(retention), "segment.bytes": str(SEGMENT_BYTES), "file.delete.delay.ms": "1000"}
    for admin, topics in ((made.source, (made.input,)), (made.sink, (made.output, made.dead_letters))):
        new = [NewTopic(topic, PARTITIONS, config=kept) for topic in topics]
        for future in admin.create_topics(new, request_timeout=ANSWER_SECONDS).values():
            _answer(future)
    deadline = time.monotonic() + ANSWER_SECONDS
    while True:  # a broker leads a partition a moment after it is made
        try:
            made.published()
            return
        except RbstreamError:
            if time.monotonic() > deadline:
                raise
            time.sleep(SECONDS_BETWEEN_TRIES)


def _remove(admin: AdminClient, topics: tuple[str, ...], group: str) -> None:
    for topic, future in admin.delete_topics(list(topics), request_timeout=ANSWER_SECONDS).items():
        error = future.exception()
        if error is not None and not _is(error, KafkaError.UNKNOWN_TOPIC_OR_PART):
            logger.warning("the bench's topic %s is left behind: %s", topic, error)
    for _ in range(TRIES_TO_DELETE):
        (future,) = admin.delete_consumer_groups([group], request_timeout=ANSWER_SECONDS).values()
        if not _is(future.exception(), KafkaError.NON_EMPTY_GROUP):
            return
        time.sleep(SECONDS_BETWEEN_TRIES)


def _is(error: BaseException | None, code: int) -> bool:
    return isinstance(error, KafkaException) and error.args[0].code() == code


def _answer(future: Any) -> Any:
    try:
        return future.result()
    except KafkaException as error:
        raise RbstreamError(f"the bench asked Kafka in vain: {error.args[0].str()}") from error
