"""A bare transactional copy, as a process: consume, produce, send offsets, commit, without looking inside.

What exactly-once costs whoever does it; `rbstream bench kafka` puts the worker beside it. It has one argument, a JSON
file of consumer, producer (configurations), source and target (topics), and copies until SIGTERM.
"""

import json
import signal
import sys
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

# Larger transactions cost no less an alert; the worker's reach some 250 in a backlog too.
AT_ONCE = 250
SECONDS_TO_FILL = 1.0
# A coordinator that is just loading takes seconds.
CALL_SECONDS = 60.0


def copy(consumer: Consumer, producer: Producer, source: str, target: str) -> None:
    """Copy values and keys until SIGTERM or Ctrl-C."""
    stopped: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: stopped.append(number))
    producer.init_transactions(CALL_SECONDS)
    consumer.subscribe([source])
    while not stopped:
        messages = [each for each in consumer.consume(AT_ONCE, SECONDS_TO_FILL) if each.error() is None]
        if messages:
            _copy_once(consumer, producer, messages, target)
    consumer.close()


def _copy_once(consumer: Consumer, producer: Producer, messages: list[Any], target: str) -> None:
    ends: dict[tuple[str, int], int] = {}
    producer.begin_transaction()
    for message in messages:
        producer.produce(target, message.value(), message.key())
        ends[message.topic(), message.partition()] = message.offset() + 1
    offsets = [TopicPartition(*partition, end) for partition, end in ends.items()]
    producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), CALL_SECONDS)
    producer.commit_transaction(CALL_SECONDS)


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    copy(Consumer(given["consumer"]), Producer(given["producer"]), given["source"], given["target"])
