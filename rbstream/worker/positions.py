"""How far the group is, seen from outside, and moving it while no worker runs: `rbstream offsets`."""

from collections.abc import Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any, Literal

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from rbstream.config import required
from rbstream.errors import UsageError
from rbstream.kafka import patterns
from rbstream.kafka.clients import (
    Complaints,
    admin_config,
    consumer_config,
    make_consumer,
    member_config,
    producer_config,
    progress_prefix,
    reader_config,
    with_voice,
)
from rbstream.kafka.faults import Aborted, KafkaFailure
from rbstream.kafka.patience import Patience
from rbstream.kafka.topics import ANSWER_SECONDS, Cluster
from rbstream.settings import Settings
from rbstream.worker.batcher import Partition
from rbstream.worker.mirror import Mirror
from rbstream.worker.offsets import GroupOffsets, Mark

# A person waits for this, and can call it again.
PATIENCE = Patience(30.0, lambda: None)
To = Literal["earliest", "latest"] | int


@dataclass(frozen=True)
class Position:
    """A partition: its first offset and the one behind its last, and what is committed; None where nothing is.

    committed: by the group that the worker goes on from. at_source: by the one at the source, where it is another.
    """

    partition: Partition
    low: int
    high: int
    committed: int | None
    at_source: int | None = None

    @property
    def lag(self) -> int:
        """Offsets that are still to be read."""
        return self.high - max(self.low, self.low if self.committed is None else self.committed)

    @property
    def name(self) -> str:
        """Topic and partition, as they are printed and asked for."""
        return "{}/{}".format(*self.partition)


class Positions:
    """The group's offsets of all partitions that the settings name. Raises UsageError, KafkaFailure."""

    def __init__(self, settings: Settings) -> None:
        for name in ("source.bootstrap_servers", "source.topics"):
            required(settings, name)
        self._settings = settings
        source = Cluster("source", consumer_config(settings))
        sink = Cluster("sink", producer_config(settings))
        self.two = settings.delivery == "exactly-once" and source.id != sink.id
        self._topics = {name: n for name, n in source.topics.items() if patterns.matches(settings.source.topics, name)}
        self._stack = ExitStack()
        # Both ask for a group's offsets without joining it.
        self._reader = self._consumer(reader_config(settings))
        self._source = GroupOffsets(self._reader, PATIENCE)
        self._group = self._source
        if self.two:
            self._group = GroupOffsets(self._consumer(member_config(settings)), PATIENCE, progress_prefix(settings))

    def _consumer(self, config: dict[str, Any]) -> Consumer:
        hidden = ("group.instance", "group.protocol", "session.", "heartbeat.", "partition.assignment")
        plain = {name: value for name, value in config.items() if not name.startswith(hidden)}
        plain["isolation.level"] = "read_committed"  # waits for a transaction that is just being committed
        return self._stack.enter_context(closing(make_consumer(plain, Complaints("offsets"))))

    def close(self) -> None:
        """Let the clients go."""
        self._stack.close()

    def show(self) -> list[Position]:
        """How far each partition is, in order."""
        partitions = [(topic, number) for topic, count in sorted(self._topics.items()) for number in range(count)]
        committed = self._committed(self._group, partitions)
        at_source = self._committed(self._source, partitions) if self.two else {}
        return [Position(each, *self._range(each), committed.get(each), at_source.get(each)) for each in partitions]

    def take_over(self, dry_run: bool) -> list[Position]:
        """Go on at the sink where the group at the source got to, for partitions without an offset there.

        Returns these, as they are then. Raises UsageError where there is one cluster, KafkaFailure where workers run.
        """
        if not self.two:
            raise UsageError(
                "offsets import: the group lives at the source here, and there is nothing to take over; it is for "
                'delivery = "exactly-once" between two clusters'
            )
        self._refuse_members()
        moved = [
            replace(each, committed=each.at_source)
            for each in self.show()
            if each.committed is None and each.at_source is not None
        ]
        self._commit(moved, dry_run)
        return moved

    def set(self, places: Iterable[str], to: To, dry_run: bool) -> list[Position]:
        """Go on from another offset. places: TOPIC or TOPIC/PARTITION. Returns the positions as they are then.

        Raises UsageError for a place that is not there or an offset that its partition does not hold.
        """
        there = self.show()
        chosen: dict[str, Position] = {}
        for place in places:
            found = [each for each in there if place in (each.name, each.partition[0])]
            if not found:
                raise UsageError(f"offsets set {place}: no such topic or partition among source.topics")
            chosen |= {each.name: replace(each, committed=_resolved(each, to)) for each in found}
        self._commit(list(chosen.values()), dry_run)
        return list(chosen.values())

    def _commit(self, positions: list[Position], dry_run: bool) -> None:
        if dry_run:
            return
        if self.two:
            with closing(Mirror(self._settings)) as mirror:
                PATIENCE.insist("looking after progress topics", lambda _: mirror.look(renew=True))
        marks = {each.partition: Mark(each.committed) for each in positions if each.committed is not None}
        if not marks:
            return
        try:
            self._group.commit(marks)
        except (Aborted, KafkaFailure) as error:
            raise KafkaFailure(f"{error}; stop all workers of the group first") from error

    def _refuse_members(self) -> None:
        """At the source, too: who still commits there would be ahead of what is taken over."""
        group = self._settings.source.group_id
        admin = AdminClient(with_voice(admin_config(consumer_config(self._settings)), Complaints("source admin")))
        (asked,) = admin.describe_consumer_groups([group], request_timeout=ANSWER_SECONDS).values()
        try:
            members = len(asked.result().members)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                return
            raise KafkaFailure(f"asking for members of group {group}: {error.args[0].str()}") from error
        if members:
            raise KafkaFailure(f"group {group} has {members} members at the source; stop them first")

    def _range(self, partition: Partition) -> tuple[int, int]:
        at = TopicPartition(*partition)
        return PATIENCE.insist("asking for offsets", lambda s: self._reader.get_watermark_offsets(at, timeout=s))

    @staticmethod
    def _committed(group: GroupOffsets, partitions: list[Partition]) -> dict[Partition, int]:
        return {each: mark.offset for each, mark in group.committed(partitions).items() if mark.offset >= 0}


def _resolved(position: Position, to: To) -> int:
    if to == "earliest":
        return position.low
    if to == "latest":
        return position.high
    if not position.low <= to <= position.high:
        raise UsageError(f"offsets set {position.name} {to}: it holds {position.low} to {position.high}")
    return to
