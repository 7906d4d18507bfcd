"""Runs a worker every third of whose transactions fails, as it sends its offsets, in a way that only an abort mends."""

import itertools
import runpy
import sys
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException

_sent = itertools.count()


class Producer(confluent_kafka.Producer):  # type: ignore[misc]
    def send_offsets_to_transaction(self, *arguments: Any) -> None:
        if next(_sent) % 3 == 2:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "as the test asked", False, False, True))
        super().send_offsets_to_transaction(*arguments)


if __name__ == "__main__":
    confluent_kafka.Producer = Producer  # type: ignore[misc]
    sys.argv[0] = "rbstream"
    runpy.run_module("rbstream", run_name="__main__", alter_sys=True)
