"""What the loop asks of its consumer, in rbstream's words."""

from collections.abc import Iterable
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

from rbstream.errors import LimitError
from rbstream.worker.batcher import Message, Partition

# A broker that just told us that an offset is not there can say what is.
ANSWER_SECONDS = 10.0


def as_message(message: Any) -> Message:
    """A message of the client as ours."""
    _, timestamp = message.timestamp()
    return Message(
        message.topic(), message.partition(), message.offset(), message.key(), message.value() or b"",
        max(0, timestamp), message.headers() or [],
    )  # fmt: skip


def as_kafka(partitions: Iterable[Partition]) -> list[TopicPartition]:
    """Partitions as the client's."""
    return [TopicPartition(*partition) for partition in partitions]


def end_of(consumer: Consumer, partition: Partition) -> int | None:
    """The end of a partition as the last fetch told it; None before that."""
    try:
        _, high = consumer.get_watermark_offsets(TopicPartition(*partition), cached=True)
    except KafkaException:
        return None
    return high if high >= 0 else None


def offset_gone(consumer: Consumer, group: str, partition: Partition, position: int | None) -> LimitError:
    """What is wrong where the offset to go on from, `position`, is not in the partition. Raises KafkaException."""
    topic, number = partition
    wanted = OFFSET_BEGINNING if position is None else position
    low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=ANSWER_SECONDS)
    lost = f"{low - wanted} alerts were deleted before they were read" if low > wanted else "it was made anew"
    return LimitError(
        f"{topic}/{number}: the offset to go on from, {wanted}, is not there: the partition holds {low} to {high}; "
        f"{lost}. To go on without them: kafka-consumer-groups.sh --group {group} --topic {topic}:{number} "
        "--reset-offsets --to-earliest --execute"
    )
