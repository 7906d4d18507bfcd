"""Where messages come from, and who says which partitions are ours: the one place that knows the clusters.

Here both are one cluster, and one consumer does all. `worker/bridge.py` is for a group that lives at the sink.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka import Message as KafkaMessage

from rbstream.errors import LimitError
from rbstream.kafka.clients import Complaints
from rbstream.worker.batcher import Partition
from rbstream.worker.source import as_kafka, offset_gone, watermarks

# Partitions are given back at once; what is fetched ahead takes a moment to be thrown away.
LEAVE_SECONDS = 2.0
Watermarks = dict[Partition, tuple[int, int] | None]


class Changes(NamedTuple):
    """Who is told of the group's changes, while polling: partitions that are ours from now on, or no longer."""

    assigned: Callable[[list[Partition]], None]
    revoked: Callable[[list[Partition]], None]
    lost: Callable[[list[Partition]], None]


class Feed(Protocol):
    """What the loop asks of Kafka's consumers. Partitions are the source's."""

    def join(self, topics: Iterable[str], changes: Changes) -> None:
        """Become a member of the group that reads these topics (names, or patterns after ^)."""

    def begin(self, offsets: Mapping[Partition, int]) -> None:
        """Read partitions that were just assigned, from these offsets. Raises LimitError where that would be wrong."""

    def poll(self, seconds: float) -> KafkaMessage | None:
        """The next message, or an error in its place; None where there is none in time."""

    def more(self, most: int) -> list[KafkaMessage]:
        """What else is there already."""

    def seek(self, partition: Partition, offset: int) -> None:
        """Read on from another offset."""

    def pause(self, partitions: Iterable[Partition]) -> None:
        """Fetch nothing of them."""

    def resume(self, partitions: Iterable[Partition]) -> None:
        """Fetch them again."""

    def watermarks(self, partitions: Iterable[Partition], ask: bool) -> Watermarks:
        """See `worker/source.py`."""

    def gone(self, partition: Partition, position: int) -> LimitError:
        """What is wrong where the offset to go on from is not there."""

    def committed(self, offsets: Mapping[Partition, int]) -> None:
        """Offsets were committed. Never raises."""

    def check(self) -> None:
        """Raises KafkaFailure where no broker has been there for too long, LimitError where it can't go on."""

    def close(self) -> None:
        """Leave the group."""


class OneCluster:
    """Group, offsets and data in the source's cluster. max_outage: how long no broker may be there [s]."""

    def __init__(self, consumer: Consumer, group: str, complaints: Complaints, max_outage: float) -> None:
        self._consumer = consumer
        self._group = group
        self._complaints = complaints
        self._max_outage = max_outage

    def join(self, topics: Iterable[str], changes: Changes) -> None:
        self._consumer.subscribe(list(topics), **callbacks(changes))

    def begin(self, offsets: Mapping[Partition, int]) -> None:
        self._consumer.incremental_assign([TopicPartition(*at, offset) for at, offset in offsets.items()])

    def poll(self, seconds: float) -> KafkaMessage | None:
        return self._consumer.poll(seconds)

    def more(self, most: int) -> list[KafkaMessage]:
        return self._consumer.consume(most, 0)

    def seek(self, partition: Partition, offset: int) -> None:
        self._consumer.seek(TopicPartition(*partition, offset))

    def pause(self, partitions: Iterable[Partition]) -> None:
        self._consumer.pause(as_kafka(partitions))

    def resume(self, partitions: Iterable[Partition]) -> None:
        self._consumer.resume(as_kafka(partitions))

    def watermarks(self, partitions: Iterable[Partition], ask: bool) -> Watermarks:
        return watermarks(self._consumer, partitions, ask)

    def gone(self, partition: Partition, position: int) -> LimitError:
        topic, number = partition
        return offset_gone(
            self._consumer,
            partition,
            position,
            f"kafka-consumer-groups.sh --bootstrap-server ... --group {self._group} --topic {topic}:{number} "
            "--reset-offsets --to-earliest --execute",
        )

    def committed(self, offsets: Mapping[Partition, int]) -> None:
        pass

    def check(self) -> None:
        self._complaints.check(self._max_outage)

    def close(self) -> None:
        leave(self._consumer)


def leave(consumer: Consumer) -> None:
    """Leave the group, and close. An assignment that is told only while a consumer closes can hang the whole process
    for ever (librdkafka 2.16, in its binding's answer): what there is to tell is heard before."""
    deadline = time.monotonic() + LEAVE_SECONDS
    with suppress(KafkaException):  # of one that can't go on, and has nothing to tell
        consumer.unsubscribe()
        while time.monotonic() < deadline and (consumer.poll(0.05) is not None or consumer.assignment()):
            pass
    consumer.close()


def callbacks(changes: Changes, partitions: Callable[[list[TopicPartition]], list[Partition]] | None = None) -> Any:
    """What `Consumer.subscribe` takes beside topics. partitions: what the client's stand for."""
    ours = partitions or (lambda given: [(each.topic, each.partition) for each in given])
    return {
        "on_assign": lambda _, given: changes.assigned(ours(given)),
        "on_revoke": lambda _, given: changes.revoked(ours(given)),
        "on_lost": lambda _, given: changes.lost(ours(given)),
    }
