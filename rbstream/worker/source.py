"""What the loop asks of its consumer, in rbstream's words."""

from collections.abc import Iterable
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from rbstream.errors import LimitError
from rbstream.worker.batcher import Message, Partition

# A broker that just told us that an offset is not there can say what is.
ANSWER_SECONDS = 10.0
# It answers in milliseconds; the loop has better to do than to wait for a number.
LOOK_SECONDS = 0.2


def as_message(message: Any) -> Message:
    """A message of the client as ours."""
    _, timestamp = message.timestamp()
    return Message(
        message.topic(), message.partition(), message.offset(), message.key(), message.value() or b"",
        max(0, timestamp), _headers(message),
    )  # fmt: skip


def _headers(message: Any) -> list[tuple[str, bytes | None]]:
    """The headers; none but a word about it where a name is no UTF-8, as the client then can't read any."""
    try:
        return message.headers() or []
    except (SystemError, UnicodeDecodeError):
        return [("unreadable-headers", b"a name was no UTF-8")]


def as_kafka(partitions: Iterable[Partition]) -> list[TopicPartition]:
    """Partitions as the client's."""
    return [TopicPartition(*partition) for partition in partitions]


def watermarks(
    consumer: Consumer, partitions: Iterable[Partition], ask: bool = False
) -> dict[Partition, tuple[int, int] | None]:
    """Beginning and end of each partition as the last fetch told them; None before that.

    ask: ask the broker, as what is paused is not fetched; the first that it doesn't tell in time is the last asked for.
    """
    marks: dict[Partition, tuple[int, int] | None] = {}
    for partition in partitions:
        at, mark = TopicPartition(*partition), None
        try:
            mark = consumer.get_watermark_offsets(at, timeout=LOOK_SECONDS) if ask else None
        except KafkaException:
            ask = False
        marks[partition] = mark if mark is not None else _cached(consumer, at)
    return marks


def _cached(consumer: Consumer, partition: TopicPartition) -> tuple[int, int] | None:
    try:
        low, high = consumer.get_watermark_offsets(partition, cached=True)
    except KafkaException:
        return None
    return (max(0, low), high) if high >= 0 else None


def offset_gone(consumer: Consumer, partition: Partition, position: int, command: str) -> LimitError:
    """What is wrong where the offset to go on from, `position`, is not in the partition. Raises KafkaException.

    command: that goes on without what is gone.
    """
    topic, number = partition
    low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=ANSWER_SECONDS)
    lost = "what it held may be lost: look whether the topic was made anew"
    if position < low:
        begun = max(0, position)
        lost = f"{low - begun} alerts were deleted before they were read"
    return LimitError(
        f"{topic}/{number}: the offset to go on from, {position}, is not there: the partition holds {low} to {high}; "
        f"{lost}. To go on without them, stop all workers of the group, then: {command}"
    )
