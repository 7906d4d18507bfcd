"""What tests do to a Kafka cluster and want to know of it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic, OffsetSpec
from waiting import wait_until

# Group of the readers here: they assign by hand and commit nothing.
READER = "reader"


def kafka_home() -> Path | None:
    """The folder of a Kafka distribution: KAFKA_HOME, else the one in ../shared; None where there is none."""
    shared = Path(__file__).parents[3] / "shared/kafka/kafka_2.13-4.3.1"
    home = Path(os.environ.get("KAFKA_HOME", shared))
    return home if (home / "bin/kafka-server-start.sh").is_file() else None


def missing() -> str | None:
    """Why there can be no broker here, or None."""
    if kafka_home() is None:
        return "no Kafka broker: neither KAFKA_HOME nor ../shared/kafka has one"
    if shutil.which("java") is None:
        return "no Kafka broker: java is not installed"
    return None


class Cluster:
    """A cluster by its bootstrap servers."""

    def __init__(self, servers: str) -> None:
        self.servers = servers

    def tool(self, script: str, *arguments: object) -> str:
        """What one of Kafka's scripts prints."""
        environment = os.environ | {"KAFKA_HEAP_OPTS": "-Xmx256m -XX:TieredStopAtLevel=1"}
        done = subprocess.run(
            [_home() / "bin" / script, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            env=environment,
        )
        assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
        return done.stdout

    def _client(self, **more: Any) -> dict[str, Any]:
        # A broker that is stopped or killed is no news here: what matters is what the callers see of it.
        return {"bootstrap.servers": self.servers, "log_level": 0} | more

    @cached_property
    def admin(self) -> AdminClient:
        return AdminClient(self._client())

    def create(self, *topics: str, partitions: int = 1, **settings: Any) -> None:
        """Make topics. settings: of the topics, e.g. `max_message_bytes=2000`."""
        config = {name.replace("_", "."): str(value) for name, value in settings.items()}
        made = self.admin.create_topics([NewTopic(topic, partitions, 1, config=config) for topic in topics])
        for future in made.values():
            future.result(30)
        wait_until(lambda: self._led(*topics), f"{', '.join(topics)} had leaders")

    def _led(self, *topics: str) -> bool:
        """Whether the brokers know by now that they lead the partitions: they are told after they exist."""
        try:
            return bool(self.ends(*topics))
        except KafkaException:
            return False

    def delete(self, *topics: str) -> None:
        for future in self.admin.delete_topics(list(topics)).values():
            future.result(30)

    def partitions(self, topic: str) -> list[int]:
        """The partitions of a topic; none where it doesn't exist."""
        return sorted(self.admin.list_topics(topic, timeout=10).topics[topic].partitions)

    def ends(self, *topics: str) -> dict[tuple[str, int], int]:
        """The next offset of each partition. A broker that has just started may need a moment to tell."""

        def asked() -> dict[tuple[str, int], int] | None:
            try:
                return self._ends(*topics)
            except KafkaException as error:
                if error.args[0].code() not in (KafkaError.UNKNOWN_LEADER_EPOCH, KafkaError.FENCED_LEADER_EPOCH):
                    raise
                return None

        return wait_until(asked, f"the ends of {', '.join(topics)}") if topics else {}

    def _ends(self, *topics: str) -> dict[tuple[str, int], int]:
        wanted = [TopicPartition(topic, number) for topic in topics for number in self.partitions(topic)]
        futures = self.admin.list_offsets({partition: OffsetSpec.latest() for partition in wanted})
        return {(at.topic, at.partition): future.result(30).offset for at, future in futures.items()}

    def committed(self, group: str, *topics: str) -> dict[tuple[str, int], TopicPartition]:
        """What a group has committed, offset and metadata. Asked as one that could be a member: an admin client can
        crash on the answer (confluent-kafka-python issue 1982)."""
        wanted = [TopicPartition(topic, number) for topic in topics for number in self.partitions(topic)]
        asking = Consumer(self._client(**{"group.id": group, "isolation.level": "read_uncommitted"}))
        try:
            found = asking.committed(wanted, timeout=30)
        finally:
            asking.close()
        return {(at.topic, at.partition): at for at in found if at.offset >= 0}

    def grow(self, topic: str, partitions: int) -> None:
        """Give a topic more partitions."""
        (made,) = self.admin.create_partitions([NewPartitions(topic, partitions)]).values()
        made.result(30)
        wait_until(lambda: len(self.partitions(topic)) == partitions and self._led(topic), f"{topic} has more")

    def lag(
        self, group: str, *topics: str, kept: "Cluster | None" = None, prefix: str = ""
    ) -> dict[tuple[str, int], int]:
        """How many offsets a group is behind the end of each partition; where it is 0, it is left out.

        kept: the cluster that has the group, where it is another, with offsets of topics of the same names behind a
        prefix.
        """
        ends = self.ends(*topics)
        committed = (kept or self).committed(group, *(prefix + topic for topic in topics))
        offsets = {(topic.removeprefix(prefix), number): at.offset for (topic, number), at in committed.items()}
        behind = {at: end - offsets.get(at, 0) for at, end in ends.items()}
        return {at: offsets for at, offsets in behind.items() if offsets}

    def read(self, *topics: str, isolation: str = "read_committed") -> Iterator[Message]:
        """Every message from the beginning to the end that the isolation level shows, one partition interleaved
        with another. With an open transaction that end lies before it."""
        consumer = Consumer(
            self._client(
                **{"group.id": READER, "isolation.level": isolation, "enable.auto.commit": False},
                **{"enable.partition.eof": True, "auto.offset.reset": "error"},
            )
        )
        beginning = [TopicPartition(topic, number, 0) for topic in topics for number in self.partitions(topic)]
        for partition in beginning:
            partition.offset = wait_until(lambda: _range(consumer, partition), f"ends of {partition}")[0]  # noqa: B023
        consumer.assign(beginning)
        unfinished = {(at.topic, at.partition) for at in beginning}
        try:
            while unfinished:
                for message in consumer.consume(500, 1):
                    error = message.error()
                    if error is None:
                        yield message
                    elif error.code() == KafkaError._PARTITION_EOF:
                        unfinished.discard((message.topic(), message.partition()))
                    elif not error.retriable():
                        raise KafkaException(error)
        finally:
            consumer.close()

    def read_all(self, *topics: str, isolation: str = "read_committed") -> list[Message]:
        """The same, all at once."""
        return list(self.read(*topics, isolation=isolation))

    def open_transactions(self) -> dict[str, str]:
        """State by transactional id, of those that are neither committed nor aborted (kafka-transactions.sh)."""
        rows = self.tool("kafka-transactions.sh", "--bootstrap-server", self.servers, "list").splitlines()[1:]
        states = {row.split()[0]: row.split()[-1] for row in rows if row.strip()}
        return {
            name: state for name, state in states.items() if state not in ("Empty", "CompleteCommit", "CompleteAbort")
        }


def _range(consumer: Consumer, partition: TopicPartition) -> tuple[int, int] | None:
    """First offset and end; None from a broker that has just started, and leads nothing yet."""
    try:
        return consumer.get_watermark_offsets(partition, timeout=30)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.NOT_LEADER_FOR_PARTITION:
            raise
        return None


def headers(message: Message) -> dict[str, str]:
    """A message's headers as text."""
    return {name: value.decode("utf-8") for name, value in message.headers() or []}


def _home() -> Path:
    home = kafka_home()
    assert home is not None, missing()
    return home
