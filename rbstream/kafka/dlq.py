"""Dead letters as they lie in their topic: read from the beginning to the end there is, without joining a group."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple, TypeVar

from confluent_kafka import KafkaException, Message, TopicPartition

from rbstream.config import required
from rbstream.errors import UsageError
from rbstream.kafka.clients import Complaints, admin_config, make_consumer, producer_config
from rbstream.kafka.patience import Patience
from rbstream.kafka.scan import failed, has_ended, poll, scan
from rbstream.kafka.topics import Cluster
from rbstream.settings import Settings

OURS = "rbstream."
# Of what was too large for the topic, `rbstream.body` says that only this is left.
HASH = "sha256"
# The year 5138; Python's calendar ends in 9999.
END_OF_TIME_MS = 10**14
# Some hundred dead letters: they are looked at one by one.
PREFETCH_KBYTES = 16_384
# A person waits for this, and can call it again.
PATIENCE = Patience(60.0, lambda: None)
DOING = "reading dead letters"
_NUMBER = re.compile("[0-9]{1,14}")
T = TypeVar("T")


def insist(doing: str, function: Callable[[float], T]) -> T:
    """The function's result, called again while Kafka is away. Raises KafkaFailure."""
    return PATIENCE.insist(doing, function)


class Place(NamedTuple):
    """Where a dead letter lies in its topic."""

    partition: int
    offset: int

    @classmethod
    def parse(cls, text: str) -> "Place":
        """From PARTITION/OFFSET, as it is printed. Raises ValueError."""
        partition, _, offset = text.partition("/")
        if not (_NUMBER.fullmatch(partition) and _NUMBER.fullmatch(offset)):
            raise ValueError(f"{text!r} is no PARTITION/OFFSET, as rbstream dlq ls prints them")
        return cls(int(partition), int(offset))

    def __str__(self) -> str:
        return f"{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that could not be scored, and what the worker said of it. timestamp: of the message [ms since 1970]."""

    place: Place
    key: bytes | None
    value: bytes
    timestamp: int
    headers: list[tuple[str, bytes | None]]

    def said(self, name: str) -> str | None:
        """A header of the worker's by its name behind `rbstream.`, e.g. `reason`."""
        found = [value for header, value in self.headers if header == OURS + name and value is not None]
        return found[-1].decode("utf-8", "replace") if found else None

    @property
    def whole(self) -> bool:
        """Whether the original bytes are here, and not only their hash."""
        return self.said("body") != HASH

    @property
    def source(self) -> str | None:
        """Topic, partition, offset and record that it came from; None where the worker didn't write it."""
        parts = [self.said(f"source.{name}") for name in ("topic", "partition", "offset", "record")]
        return None if None in parts else "{}/{}/{}[{}]".format(*parts)

    @property
    def rejected_at(self) -> datetime:
        """When the worker rejected it; where it doesn't say, the message's own time."""
        try:
            at = datetime.fromisoformat(self.said("processed") or "")
        except ValueError:
            at = datetime.fromtimestamp(_sane(self.timestamp) / 1000, UTC)
        return at if at.tzinfo is not None else at.replace(tzinfo=UTC)

    @property
    def original_timestamp(self) -> int:
        """The timestamp of the message that it was [ms since 1970]: a topic may put its own on dead letters."""
        said = self.said("source.timestamp") or ""
        return _sane(int(said) if _NUMBER.fullmatch(said) else self.timestamp)

    @property
    def name(self) -> str:
        """The key, which is the object's name where it is known."""
        return "" if self.key is None else self.key.decode("utf-8", "backslashreplace")


class DeadLetters:
    """The topic of dead letters on the sink's cluster.

    topic: where None, `sink.dead_letters`. Raises UsageError where settings are missing, KafkaFailure where the
    cluster or the topic can't be reached.
    """

    def __init__(self, settings: Settings, topic: str | None) -> None:
        self.topic: str = topic or required(settings, "sink.dead_letters")
        if settings.sink.bootstrap_servers is None:
            required(settings, "source.bootstrap_servers")
        config = admin_config(producer_config(settings))
        self.cluster = Cluster("sink", config)
        self.cluster.require([self.topic])
        self.consumer = make_consumer(
            {
                **config,
                # Where `replay` keeps what was taken up; nothing here subscribes.
                "group.id": f"{settings.source.group_id}.dlq",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "queued.max.messages.kbytes": PREFETCH_KBYTES,
            },
            Complaints("dead letters"),
        )

    def close(self) -> None:
        """Close the connection."""
        self.consumer.close()

    def ranges(self) -> dict[int, tuple[int, int]]:
        """First offset and the one behind the last, by partition."""
        return {number: self._range(number) for number in range(self.cluster.topics[self.topic])}

    def _range(self, partition: int) -> tuple[int, int]:
        at = TopicPartition(self.topic, partition)
        return insist(
            "asking for the ends of the dead letters", lambda s: self.consumer.get_watermark_offsets(at, timeout=s)
        )

    def taken_up(self) -> dict[int, int]:
        """The next offset to take up, by partition, of those that `replay` committed one for."""
        partitions = [TopicPartition(self.topic, number) for number in range(self.cluster.topics[self.topic])]

        def ask(seconds: float) -> list[TopicPartition]:
            answer = self.consumer.committed(partitions, timeout=seconds)
            for each in answer:
                if each.error is not None:
                    raise KafkaException(each.error)
            return answer

        answer = insist("asking for what was taken up", ask)
        return {each.partition: each.offset for each in answer if each.offset >= 0}

    def scan(
        self, start: Mapping[int, int] | None = None, seen: Callable[[int, int], None] = lambda done, total: None
    ) -> Iterator[DeadLetter]:
        """All there are now, partitions interleaved, in order within each.

        start: offsets to begin at, by partition; the beginning where none is given. seen: called with the offsets
        behind and those there are.
        """
        ranges = {
            (self.topic, number): (max(low, (start or {}).get(number, low)), high)
            for number, (low, high) in self.ranges().items()
        }
        for message in scan(self.consumer, ranges, DOING, PATIENCE, seen):
            yield _letter(message)

    def at(self, place: Place) -> DeadLetter:
        """The dead letter at a place. Raises UsageError where there is none."""
        low, high = self._range(place.partition) if place.partition in self.ranges() else (0, 0)
        if low <= place.offset < high:
            self.consumer.assign([TopicPartition(self.topic, *place)])
            outage = PATIENCE.outage(DOING)
            while True:
                message = poll(self.consumer)
                if message is None:
                    outage.wait()
                elif has_ended(message) or (not failed(message, DOING) and _position(message) != place):
                    break  # a transaction's marker, or what a transaction took back
                elif message.error() is None:
                    return _letter(message)
        raise UsageError(f"{self.topic} has no dead letter {place}; rbstream dlq ls prints those there are")


def _sane(timestamp: int) -> int:
    """A timestamp that is one; 0, which Kafka takes for none, where it is not. Anybody may write into a topic."""
    return timestamp if 0 <= timestamp < END_OF_TIME_MS else 0


def _position(message: Message) -> Place:
    return Place(message.partition() or 0, message.offset() or 0)


def _letter(message: Message) -> DeadLetter:
    headers = message.headers()
    pairs = headers.items() if isinstance(headers, dict) else headers or []
    return DeadLetter(
        _position(message),
        _bytes(message.key()),
        _bytes(message.value()) or b"",
        message.timestamp()[1],
        [(name, _bytes(value)) for name, value in pairs],
    )


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
