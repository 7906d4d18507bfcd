"""Everything that lies in a stretch of some partitions, read without joining a group."""

from collections.abc import Callable, Iterator, Mapping

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from rbstream.kafka.faults import Aborted, KafkaFailure
from rbstream.kafka.interrupts import held_back
from rbstream.kafka.patience import CALL_SECONDS, Patience, check

Partition = tuple[str, int]


def scan(
    consumer: Consumer,
    ranges: Mapping[Partition, tuple[int, int]],
    doing: str,
    patience: Patience,
    seen: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Message]:
    """All messages from the first offset of each range to before its second, partitions interleaved, in order within
    each.

    consumer: one that tells ends of partitions (`enable.partition.eof`). doing: for messages. seen: called with the
    offsets behind and those there are. Raises KafkaFailure.
    """
    left = {partition: (low, high) for partition, (low, high) in ranges.items() if low < high}
    total = sum(end - at for at, end in left.values())
    consumer.assign([TopicPartition(*partition, at) for partition, (at, _) in left.items()])
    outage = patience.outage(doing)
    while left:
        message = poll(consumer)
        if message is None:
            outage.wait()
            continue
        partition, offset = (message.topic() or "", message.partition() or 0), message.offset() or 0
        if failed(message, doing) or partition not in left:
            continue
        outage = patience.outage(doing)
        _, end = left[partition]
        left[partition] = min(offset + 1, end), end
        if not has_ended(message) and offset < end:
            yield message
        if has_ended(message) or offset + 1 >= end:
            del left[partition]
            consumer.incremental_unassign([TopicPartition(*partition)])
        seen(total - sum(end - at for at, end in left.values()), total)


def poll(consumer: Consumer) -> Message | None:
    """The next message, or an error in its place."""
    with held_back():
        return consumer.poll(CALL_SECONDS)


def has_ended(message: Message) -> bool:
    """Whether this is no message, but the end of its partition."""
    error = message.error()
    return error is not None and error.code() == KafkaError._PARTITION_EOF


def failed(message: Message, doing: str) -> bool:
    """Whether this is an error that passes. Raises KafkaFailure for one that doesn't."""
    error = message.error()
    if error is None or has_ended(message):
        return False
    try:
        check(doing, error)
    except Aborted as aborted:  # there is no group that could have moved on
        raise KafkaFailure(str(aborted)) from aborted
    return True
