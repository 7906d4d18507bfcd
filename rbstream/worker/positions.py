"""How far the group is, seen from outside, and moving it while no worker runs: `rbstream offsets`."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any, Literal

from confluent_kafka import Consumer, TopicPartition

from rbstream.config import required
from rbstream.errors import UsageError
from rbstream.kafka import patterns
from rbstream.kafka.clients import (
    Complaints,
    consumer_config,
    make_consumer,
    member_config,
    producer_config,
    progress_prefix,
    reader_config,
    without_membership,
)
from rbstream.kafka.faults import Aborted, KafkaFailure
from rbstream.kafka.groups import members
from rbstream.kafka.patience import Patience
from rbstream.kafka.topics import Cluster
from rbstream.settings import Settings
from rbstream.worker.batcher import Partition
from rbstream.worker.mirror import Mirror
from rbstream.worker.offsets import GroupOffsets, Mark
from rbstream.worker.witness import has_group

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
        # They ask for a group's offsets without joining it.
        self._reader = self._consumer(reader_config(settings))
        self._group = GroupOffsets(self._reader, PATIENCE)
        self._source: GroupOffsets | None = None
        if self.two:
            self._source = self._group if has_group(settings) else None
            asking = self._consumer(without_membership(member_config(settings)))
            self._group = GroupOffsets(asking, PATIENCE, progress_prefix(settings))

    def _consumer(self, config: dict[str, Any]) -> Consumer:
        return self._stack.enter_context(closing(make_consumer(config, Complaints("offsets"))))

    def close(self) -> None:
        """Let the clients go."""
        self._stack.close()

    def show(self) -> list[Position]:
        """How far each partition is, in order."""
        partitions = [(topic, number) for topic, count in sorted(self._topics.items()) for number in range(count)]
        committed = _committed(self._group, partitions)
        at_source = _committed(self._source, partitions) if self._source is not None else {}
        return [Position(each, *self._range(each), committed.get(each), at_source.get(each)) for each in partitions]

    def take_over(self, dry_run: bool) -> list[Position]:
        """Go on at the sink where the group at the source got to, in partitions where it is further.

        Returns these, as they are then. Raises UsageError where there is one cluster, KafkaFailure where workers run.
        """
        if not self.two:
            raise UsageError(
                "offsets import: the group lives at the source here, and there is nothing to take over; it is for "
                'delivery = "exactly-once" between two clusters'
            )
        if self._source is None:
            raise UsageError("offsets import: the source does not let us have a group, so nothing can be known of it")
        moved = [
            replace(each, committed=each.at_source)
            for each in self.show()
            if each.at_source is not None and each.at_source > (each.committed or 0)
        ]
        self._commit(moved, dry_run)
        return moved

    def set(self, places: Iterable[str], to: To, dry_run: bool) -> list[Position]:
        """Go on from another offset. places: TOPIC or TOPIC/PARTITION. Returns the positions as they are then.

        Raises UsageError for a place that is not there or an offset that its partition does not hold, KafkaFailure
        where workers run.
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
        self._refuse_members("source", consumer_config(self._settings))
        marks = {each.partition: Mark(each.committed) for each in positions if each.committed is not None}
        if not self.two:
            if marks and not dry_run:
                _write(self._group, marks)
            return
        self._refuse_members("sink", producer_config(self._settings))
        with closing(Mirror(self._settings)) as mirror:
            troubles = mirror.insist(mirror.troubles)
            mended = self._mended(positions, troubles)
            if marks and not dry_run:
                mirror.insist(lambda: mirror.prepare(troubles))
                _write(self._group, marks)
                if self._source is not None:  # else it would still be ahead of what was set back
                    _write(self._source, marks)
                mirror.insist(lambda: mirror.accept(mended))

    def _mended(self, positions: list[Position], troubles: Mapping[str, str]) -> list[str]:
        """The topics whose progress was lost, and of which all is said now. Raises UsageError where only a part is."""
        said = {each.partition for each in positions}
        mended = sorted({topic for topic, _ in said if topic in troubles})
        left = [each for each in self.show() if each.partition[0] in mended and each.high > each.low]
        unsaid = [each.name for each in left if each.partition not in said]
        if unsaid:
            raise UsageError(
                f"{troubles[mended[0]]}: say at once where to go on in all partitions that hold alerts; these would "
                f"begin anew: {', '.join(unsaid)}"
            )
        return mended

    def _refuse_members(self, side: str, config: dict[str, Any]) -> None:
        """Who still works would go on from where he is, and commit over it."""
        group = self._settings.source.group_id
        if running := members(side, config, group):
            raise KafkaFailure(f"group {group} has {running} members at the {side}: stop all workers first")

    def _range(self, partition: Partition) -> tuple[int, int]:
        at = TopicPartition(*partition)
        return PATIENCE.insist("asking for offsets", lambda s: self._reader.get_watermark_offsets(at, timeout=s))


def _committed(group: GroupOffsets, partitions: list[Partition]) -> dict[Partition, int]:
    return {each: mark.offset for each, mark in group.committed(partitions).items() if mark.offset >= 0}


def _write(group: GroupOffsets, marks: Mapping[Partition, Mark]) -> None:
    try:
        group.commit(marks)
    except (Aborted, KafkaFailure) as error:
        raise KafkaFailure(f"{error}; do workers of the group run?") from error


def _resolved(position: Position, to: To) -> int:
    if to == "earliest":
        return position.low
    if to == "latest":
        return position.high
    if not position.low <= to <= position.high:
        raise UsageError(f"offsets set {position.name} {to}: it holds {position.low} to {position.high}")
    return to
