"""The group at the source, where the workers' own is at the sink: told of progress, and asked when partitions come.

It is there for the survey's operators' eyes, and knows if somebody else has worked on these partitions, or if progress
at the sink was lost. No failure here stops anything: where there is no answer, there is no witness.
"""

import logging
import threading
import time
from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaException, TopicPartition

from rbstream.kafka.clients import Complaints, consumer_config, make_consumer, reader_config
from rbstream.kafka.groups import members
from rbstream.settings import Settings
from rbstream.worker.batcher import Partition

logger = logging.getLogger(__name__)

# What the survey's operators look at is as old as this: a tenth of what their exporters take between two looks.
SECONDS_BETWEEN_REPORTS = 1.0
# The last report, on the way out; it may be missing.
LAST_REPORT_SECONDS = 2.0


def has_group(settings: Settings) -> bool:
    """Whether we may have a group at the source. Raises KafkaFailure where the source does not answer."""
    group = settings.source.group_id
    allowed = members("source", consumer_config(settings), group) is not None
    if not allowed:
        logger.warning("the source does not let us have a group: nothing is told there", extra={"group": group})
    return allowed


class Witness:
    """Asks the group at the source, and tells it of progress in a thread of its own. report: whether to tell it."""

    def __init__(self, settings: Settings, report: bool) -> None:
        self._config = reader_config(settings)
        self._report = report
        self._told: dict[Partition, int] = {}
        self._lock = threading.Lock()
        self._more = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="report", daemon=True)
        self._asking = make_consumer(self._config, Complaints("witness"))

    def start(self) -> None:
        """Report from now on, if that is wanted."""
        if self._report:
            self._thread.start()

    def tell(self, offsets: Mapping[Partition, int]) -> None:
        """Progress was committed at the sink."""
        if self._report:
            with self._lock:
                self._told |= offsets
            self._more.set()

    def ask(self, partitions: list[Partition], seconds: float) -> dict[Partition, int]:
        """What is committed at the source, where anything is. seconds: to wait for an answer; none in time is none."""
        try:
            answer = self._asking.committed([TopicPartition(*each) for each in partitions], timeout=seconds)
        except KafkaException as error:
            logger.warning("the group at the source does not answer: %s", error.args[0].str())
            return {}
        # A partition that it has trouble with has no offset.
        return {(each.topic, each.partition): each.offset for each in answer if each.offset >= 0}

    def close(self) -> None:
        """Report what is left, if that goes quickly."""
        self._closed = True
        self._more.set()
        if self._thread.is_alive():
            self._thread.join(LAST_REPORT_SECONDS)

    def _work(self) -> None:
        # Never closed: that would wait for answers that may not come; the end of the process ends it.
        consumer = make_consumer(self._config, Complaints("report"))
        while True:
            self._more.wait()
            self._more.clear()
            with self._lock:
                told, self._told = self._told, {}
            _commit(consumer, told)
            if self._closed and not self._told:
                return
            if not self._closed:
                time.sleep(SECONDS_BETWEEN_REPORTS)


def _commit(consumer: Consumer, offsets: Mapping[Partition, int]) -> None:
    if not offsets:
        return
    try:
        consumer.commit(
            offsets=[TopicPartition(*partition, at) for partition, at in offsets.items()], asynchronous=False
        )
    except KafkaException as error:
        logger.debug("progress could not be told at the source: %s", error.args[0].str())
