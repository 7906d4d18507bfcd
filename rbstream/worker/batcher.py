"""Micro-batches of messages: full by number, by bytes or by time, on a monotonic clock of our own."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from rbstream.settings import Batch as BatchSettings

Partition = tuple[str, int]


class Message(NamedTuple):
    """A message of the source. timestamp: Kafka's [ms since 1970], 0 where there is none."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    timestamp: int
    headers: list[tuple[str, bytes | None]]

    @property
    def name(self) -> str:
        """Where it is, in a word."""
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(slots=True)
class Batch:
    """Messages to be decoded and scored together. waited: from the first one's arrival to the batch's start [s]."""

    messages: list[Message] = field(default_factory=list)
    waited: float = 0.0

    def ends(self) -> dict[Partition, int]:
        """The offset behind the last message of each partition: what to commit when all are done with."""
        return {(message.topic, message.partition): message.offset + 1 for message in self.messages}


class Batcher:
    """Gathers messages until a batch is due."""

    def __init__(self, settings: BatchSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._messages: list[Message] = []
        self._bytes = 0
        self._since = 0.0
        self._largest = 1

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def room(self) -> int:
        """How many messages may still be added, if they are no larger than the largest that came so far."""
        left = self._settings.max_bytes - self._bytes
        return min(self._settings.max_alerts - len(self._messages), max(1, left // self._largest)) if left > 0 else 0

    def add(self, message: Message) -> None:
        """Take a message."""
        if not self._messages:
            self._since = self._clock()
        self._messages.append(message)
        self._bytes += len(message.value)
        self._largest = max(self._largest, len(message.value))

    def due_in(self) -> float | None:
        """Seconds until the batch has to start, at least 0; None where there is nothing in it."""
        if not self._messages:
            return None
        if self.room == 0:
            return 0.0
        return max(0.0, self._since + self._settings.max_delay - self._clock())

    def take(self) -> Batch:
        """The batch, which starts now; the next one is empty."""
        batch = Batch(self._messages, self._clock() - self._since)
        self._messages, self._bytes = [], 0
        return batch

    def drop(self, partitions: set[Partition]) -> None:
        """Forget the messages of some partitions: another worker will take them up."""
        self._messages = [each for each in self._messages if (each.topic, each.partition) not in partitions]
        self._bytes = sum(len(each.value) for each in self._messages)

    def clear(self) -> None:
        """Forget all messages."""
        self._messages, self._bytes = [], 0
