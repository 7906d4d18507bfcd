"""Two clusters, exactly once: the group and its offsets live at the sink, where the transactions are.

The members subscribe to empty progress topics there, which gives them partitions, generations and fencing; what the
group says of a progress topic's partition is meant of the source topic's. A second consumer reads those by hand.
"""

import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as KafkaMessage

from rbstream.errors import LimitError
from rbstream.kafka import patterns
from rbstream.kafka.clients import Complaints
from rbstream.kafka.patience import Patience
from rbstream.worker.batcher import Partition
from rbstream.worker.feed import Changes, Watermarks, callbacks
from rbstream.worker.mirror import Mirror
from rbstream.worker.source import as_kafka, offset_gone, watermarks

logger = logging.getLogger(__name__)

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


class TwoClusters:
    """A feed (see `worker/feed.py`).

    member: of the group at the sink. reader: of the source, by hand. prefix: of the progress topics. report: whether
    progress is committed to the group at the source too. complaints: of both consumers.
    """

    def __init__(
        self,
        member: Consumer,
        reader: Consumer,
        prefix: str,
        mirror: Mirror,
        patience: Patience,
        report: bool,
        complaints: Iterable[Complaints],
        max_outage: float,
    ) -> None:
        self._member = member
        self._reader = reader
        self._prefix = prefix
        self._mirror = mirror
        self._patience = patience
        self._report = report
        self._complaints = list(complaints)
        self._max_outage = max_outage
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
        self._refuse_to_begin_anew([partition for partition, at in offsets.items() if at == OFFSET_BEGINNING])
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
        if self._report:
            positions = [TopicPartition(*partition, at) for partition, at in offsets.items()]
            with suppress(KafkaException):
                self._reader.commit(offsets=positions, asynchronous=True)

    def check(self) -> None:
        self._mirror.check()
        for complaints in self._complaints:
            complaints.check(self._max_outage)

    def close(self) -> None:
        self._member.close()
        self._reader.close()

    def _source(self, given: list[TopicPartition]) -> list[Partition]:
        return [(each.topic.removeprefix(self._prefix), each.partition) for each in given]

    def _drop(self, partitions: list[Partition]) -> None:
        """Read them no more. Not all were begun with."""
        gone = self._reading.intersection(partitions)
        if gone:
            self._reader.incremental_unassign(as_kafka(gone))
            self._reading -= gone

    def _refuse_to_begin_anew(self, partitions: list[Partition]) -> None:
        """Nothing is committed here: then the group at the source has to know of nothing either."""

        def ask(seconds: float) -> list[TopicPartition]:
            try:
                answer = self._reader.committed(as_kafka(partitions), timeout=seconds)
                refused = next((each.error for each in answer if each.error is not None), None)
                if refused is not None:
                    raise KafkaException(refused)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.GROUP_AUTHORIZATION_FAILED:
                    raise
                return []  # who may not have a group there never had one
            return answer

        answer = self._patience.insist("asking the group at the source", ask) if partitions else []
        for each in answer:
            if each.offset >= 0:
                at = f"{each.topic}/{each.partition}"
                raise LimitError(
                    f"{at}: the group at the sink has no offset, and the one at the source has {each.offset}: to begin "
                    "anew would double what is before it. `rbstream offsets import` goes on from there, `rbstream "
                    f"offsets set {at} earliest` begins anew"
                )

    def _is_no_fault(self, message: KafkaMessage) -> bool:
        """An error that is none of ours; told once."""
        error = message.error()
        if error is None or error.code() not in _NO_FAULTS:
            return False
        told = f"{message.topic()}: {error.str()}"
        if told not in self._told:
            self._told.add(told)
            logger.warning("at the source: %s", told, extra={"error": error.name()})
        return True


def _named(prefix: str, topic: str) -> str:
    """A progress topic's name, or the pattern of such, by the source's."""
    if patterns.is_pattern(topic):
        return f"^{prefix.replace('.', chr(92) + '.')}{topic[1:]}"
    return prefix + topic
