"""What the group has committed: offsets of the source's partitions, each with a short note (its metadata).

The note is the rejections before it, see `worker/rejects.py`. Which cluster the group is in: `worker/feed.py`.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition

from rbstream.kafka.faults import Aborted
from rbstream.kafka.patience import Patience, answers
from rbstream.worker.batcher import Partition


class Mark(NamedTuple):
    """How far a partition is done: the next offset, OFFSET_BEGINNING where there is none yet; and its note."""

    offset: int
    note: str = ""


Marks = Mapping[Partition, Mark]


class GroupOffsets:
    """Offsets committed to the consumer's own group.

    prefix: of the topics that the group knows, which are named after the source's.
    """

    def __init__(self, consumer: Consumer, patience: Patience, prefix: str = "") -> None:
        self._consumer = consumer
        self._patience = patience
        self._prefix = prefix

    def committed(self, partitions: list[Partition]) -> dict[Partition, Mark]:
        """How far others got. Waits while a transaction that has to do with it is open. Raises KafkaFailure."""

        def ask(seconds: float) -> list[TopicPartition]:
            wanted = [TopicPartition(self._prefix + topic, number) for topic, number in partitions]
            answer = self._consumer.committed(wanted, timeout=seconds)
            for each in answer:
                if each.error is not None:
                    raise KafkaException(each.error)
            return answer

        answer = self._patience.insist("asking for committed offsets", ask) if partitions else []
        return {(each.topic.removeprefix(self._prefix), each.partition): _mark(each) for each in answer}

    def commit(self, marks: Marks, budget: float = math.inf) -> None:
        """Commit without a transaction. Raises Aborted where the group has moved on, or the budget is used up.

        One try takes as long as librdkafka's `socket.timeout.ms` on a broker that is there and does not answer.
        """

        def ask(_: float) -> None:
            try:
                for each in self._consumer.commit(offsets=self._offsets(marks), asynchronous=False) or ():
                    if each.error is not None:
                        raise KafkaException(each.error)
            except KafkaException as error:
                if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:  # only polling tells that it was deleted
                    raise Aborted(f"committing offsets: {error.args[0].str()}") from error
                raise

        self._patience.call("committing offsets", ask, budget)

    def send(self, producer: Producer, marks: Marks, budget: float = math.inf) -> None:
        """Commit with the producer's open transaction. Raises Aborted as `commit` does."""
        metadata = self._consumer.consumer_group_metadata()
        # Without a member id the broker would not ask whether the partitions are still ours. This is looked at after
        # the metadata were made: only our own polling can make us a member again.
        if not self._consumer.memberid():
            raise Aborted("no longer a member of the group")
        self._patience.call(
            "adding offsets to the transaction",
            lambda seconds: producer.send_offsets_to_transaction(self._offsets(marks), metadata, seconds),
            budget,
            lambda: answers(producer),
        )

    def _offsets(self, marks: Marks) -> list[TopicPartition]:
        return [
            TopicPartition(self._prefix + topic, number, mark.offset, metadata=mark.note)
            for (topic, number), mark in marks.items()
        ]


def _mark(committed: TopicPartition) -> Mark:
    return Mark(committed.offset if committed.offset >= 0 else OFFSET_BEGINNING, committed.metadata or "")
