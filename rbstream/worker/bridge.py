"""Two clusters, exactly once: the group and its offsets live at the sink, where the transactions are.

The members subscribe to empty progress topics there, which gives them partitions, generations and fencing; what the
group says of a progress topic's partition is meant of the source topic's. A second consumer reads those by hand.
"""

import logging
from collections.abc import Callable, Iterable, Mapping

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition
from confluent_kafka import Message as KafkaMessage

from rbstream.errors import LimitError
from rbstream.kafka import patterns
from rbstream.kafka.clients import Complaints
from rbstream.settings import Settings
from rbstream.worker.batcher import Partition
from rbstream.worker.feed import Changes, Watermarks, callbacks, leave
from rbstream.worker.mirror import Mirror
from rbstream.worker.source import as_kafka, offset_gone, watermarks
from rbstream.worker.witness import Witness, has_group

logger = logging.getLogger(__name__)

# To begin anew without the witness' word could double a night; for what goes on it is asked in passing, as the source
# may be away.
ANSWER_SECONDS, GLANCE_SECONDS = 30.0, 1.0
# Progress topics are empty, and nothing is fetched of them.
_NOTHING = 0
# The survey deletes topics that are over, and may not let us have a group: that is its to decide, and no alert is lost.
_NO_FAULTS = frozenset(
    {
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
    }
)


class Bridge:
    """What there is between two clusters, whichever consumers come and go. Raises KafkaFailure."""

    def __init__(self, settings: Settings) -> None:
        self.mirror = Mirror(settings)
        self.witness = Witness(settings, settings.source.report_progress) if has_group(settings) else None

    def start(self) -> None:
        """Look after progress topics, and tell of progress. Raises KafkaFailure, LimitError."""
        self.mirror.start()
        if self.witness is not None:
            self.witness.start()

    def close(self) -> None:
        """No more of it."""
        self.mirror.close()
        if self.witness is not None:
            self.witness.close()


class TwoClusters:
    """A feed (see `worker/feed.py`).

    member: of the group at the sink. reader: of the source, by hand. prefix: of the progress topics. complaints: of
    the reader and of the member. max_outage: how long Kafka may be away [s]. tick: called while we wait, so that
    health sees us.
    """

    def __init__(
        self,
        member: Consumer,
        reader: Consumer,
        prefix: str,
        bridge: Bridge,
        complaints: tuple[Complaints, Complaints],
        max_outage: float,
        tick: Callable[[], None],
    ) -> None:
        self._member = member
        self._reader = reader
        self._prefix = prefix
        self._mirror = bridge.mirror
        self._witness = bridge.witness
        self._complaints = complaints
        self._max_outage = max_outage
        self._tick = tick
        self._reading: set[Partition] = set()
        self._told: set[str] = set()

    def join(self, topics: Iterable[str], changes: Changes) -> None:
        def revoked(partitions: list[Partition]) -> None:
            changes.revoked(partitions)
            self._drop(partitions)

        def lost(partitions: list[Partition]) -> None:
            changes.lost(partitions)
            self._drop(partitions)

        ours = Changes(changes.assigned, revoked, lost)
        self._member.subscribe([_named(self._prefix, topic) for topic in topics], **callbacks(ours, self._source))

    def begin(self, offsets: Mapping[Partition, int]) -> None:
        if OFFSET_BEGINNING in offsets.values():
            # Before it is read: a progress topic may just have been made anew.
            self._mirror.insist(self._mirror.look, self._max_outage, self._tick)
        self._refuse_to_go_back(offsets)
        members = [TopicPartition(self._prefix + topic, number, _NOTHING) for topic, number in offsets]
        self._member.incremental_assign(members)
        self._member.pause(members)
        self._reader.incremental_assign([TopicPartition(*partition, at) for partition, at in offsets.items()])
        self._reading |= set(offsets)

    def poll(self, seconds: float) -> KafkaMessage | None:
        told = self._member.poll(0)
        if told is not None:
            return told
        message = self._reader.poll(seconds)
        return None if message is None or self._is_no_fault(message) else message

    def more(self, most: int) -> list[KafkaMessage]:
        return [message for message in self._reader.consume(most, 0) if not self._is_no_fault(message)]

    def seek(self, partition: Partition, offset: int) -> None:
        self._reader.seek(TopicPartition(*partition, offset))

    def pause(self, partitions: Iterable[Partition]) -> None:
        self._reader.pause(as_kafka(partitions))

    def resume(self, partitions: Iterable[Partition]) -> None:
        self._reader.resume(as_kafka(partitions))

    def watermarks(self, partitions: Iterable[Partition], ask: bool) -> Watermarks:
        return watermarks(self._reader, partitions, ask)

    def gone(self, partition: Partition, position: int) -> LimitError:
        topic, number = partition
        return offset_gone(self._reader, partition, position, f"rbstream offsets set {topic}/{number} earliest")

    def committed(self, offsets: Mapping[Partition, int]) -> None:
        if self._witness is not None:
            self._witness.tell(offsets)

    def check(self) -> None:
        self._mirror.check()
        for complaints in self._complaints:
            complaints.check(self._max_outage)

    def close(self) -> None:
        leave(self._member)
        self._reader.close()

    def _source(self, given: list[TopicPartition]) -> list[Partition]:
        return [(each.topic.removeprefix(self._prefix), each.partition) for each in given]

    def _drop(self, partitions: list[Partition]) -> None:
        """Read them no more. Not all were begun with."""
        gone = self._reading.intersection(partitions)
        if gone:
            self._reader.incremental_unassign(as_kafka(gone))
            self._reading -= gone

    def _refuse_to_go_back(self, offsets: Mapping[Partition, int]) -> None:
        """Where the group at the source is further than ours, others worked there, or our progress was lost."""
        if self._witness is None:
            return
        anew = OFFSET_BEGINNING in offsets.values()
        told = self._witness.ask(list(offsets), ANSWER_SECONDS if anew else GLANCE_SECONDS)
        for (topic, number), at_source in told.items():
            ours = offsets[topic, number]
            if at_source > max(0, ours):
                raise LimitError(
                    f"{topic}/{number}: the group at the sink has {'no offset' if ours < 0 else ours}, and the one at "
                    f"the source has {at_source}: what is in between would come twice. `rbstream offsets import` goes "
                    f"on from there, `rbstream offsets set {topic}/{number} OFFSET` from elsewhere"
                )

    def _is_no_fault(self, message: KafkaMessage) -> bool:
        """An error that is none of ours; told once."""
        error = message.error()
        if error is None or error.code() not in _NO_FAULTS:
            return False
        self._complaints[0].count(error)
        told = f"{message.topic()}: {error.str()}"
        if told not in self._told:
            self._told.add(told)
            logger.warning("at the source: %s", told, extra={"error": error.name()})
        return True


def _named(prefix: str, topic: str) -> str:
    """A progress topic's name, or the pattern of such, by the source's."""
    if patterns.is_pattern(topic):
        return "^" + prefix.replace(".", r"\.") + topic[1:]
    return prefix + topic
