"""Reads what a receipt is made of: the group's offsets, the sink's topics, the source where no score tells of it."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from confluent_kafka import Consumer, Message, TopicPartition

from rbstream.assembly import open_bundle
from rbstream.audit.receipt import Difference, Key, Output, Partition, Receipt, Score
from rbstream.config import required
from rbstream.errors import UsageError
from rbstream.kafka.clients import Complaints, Config, admin_config, consumer_config, make_consumer, producer_config
from rbstream.kafka.patience import Patience
from rbstream.kafka.scan import scan
from rbstream.kafka.topics import Cluster
from rbstream.packet.alert import Alert, Origin, Packet
from rbstream.packet.layout import DRB
from rbstream.packet.reader import PacketReader
from rbstream.packet.survey import survey_named
from rbstream.progress import Progress
from rbstream.settings import Settings
from rbstream.worker.messages import decode_score
from rbstream.worker.positions import Position, Positions
from rbstream.worker.source import as_message

# A person waits for this, and can call it again.
PATIENCE = Patience(60.0, lambda: None)
# What goes out has the time of what came in; those who publish are not that far out of order.
SLACK_MS = 86_400_000
# Some hundred alerts ahead; and where single messages are looked for, not much that is not wanted.
PREFETCH_KBYTES, FETCH_BYTES = 32_768, 1 << 20
DOING = "reading what came out"
When = datetime | Literal["earliest", "latest"]
# Topic, partition, the first offset and the one behind the last.
Place = tuple[str, int, int, int]


@dataclass(frozen=True)
class Audit:
    """What came of it. counts: by name; waiting: messages of the stretch that the group has still to take.

    warnings: why some differences may be none.
    """

    counts: dict[str, int]
    waiting: int
    differences: list[Difference]
    warnings: list[str]


def audit(settings: Settings, begin: When, end: When, places: Iterable[Place] = ()) -> Audit:
    """Compare what came in between two times, or at these places alone, with what went out.

    Raises UsageError where there is nothing to compare with, KafkaFailure where Kafka does not answer.
    """
    scores, dead_letters = required(settings, "sink.scores"), required(settings, "sink.dead_letters")
    outputs = sorted({required(settings, "sink.topic"), *(route.topic for route in settings.routes.values())})
    alerts = _reader(settings)
    cluster = Cluster("sink", producer_config(settings))
    cluster.require([scores, dead_letters, *outputs])
    with (
        closing(Positions(settings)) as positions,
        closing(_consumer(consumer_config(settings))) as source,
        closing(_consumer(producer_config(settings))) as consumer,
    ):
        there = {each.partition: each for each in positions.show()}
        wanted = _at(there, places) or _between(source, there, begin, end)
        stretch, waiting = _committed(there, wanted)
        receipt = Receipt(stretch, settings.delivery == "at-least-once")
        everything = begin == "earliest" and not places
        sink = _Sink(consumer, cluster.topics, None if everything else _first_time(source, stretch))
        for message in sink.read(scores):
            _take_score(receipt, message)
        for topic in outputs:
            for message in sink.read(topic):
                _take_output(receipt, alerts, message)
        for message in sink.read(dead_letters):
            _take_dead_letter(receipt, message)
        for partition, offsets in receipt.unscored().items():
            _look_at_the_source(receipt, source, partition, offsets)
        ends = {partition: _range(source, partition)[1] for partition in stretch}
    counts, warnings = receipt.counts(), list(sink.warnings)
    if not counts["messages"] and not waiting:
        topics = ", ".join(settings.source.topics)
        warnings.append(f"there was nothing to compare: no message of {topics} in what was asked for")
    return Audit(counts, waiting, receipt.differences(ends), warnings)


def _consumer(config: Config) -> Consumer:
    looking = {
        "group.id": "rbstream-audit",  # which it never joins
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
        "queued.max.messages.kbytes": PREFETCH_KBYTES,
        "fetch.message.max.bytes": FETCH_BYTES,
    }
    return make_consumer({**admin_config(config), **looking}, Complaints("audit"))


def _reader(settings: Settings) -> PacketReader:
    """Of annotated alerts, as the worker reads them."""
    manifest = open_bundle(settings.model).manifest
    return PacketReader(survey_named(manifest.survey), manifest.channels, frozenset(), settings.limits)


# ---- which offsets


def _at(there: Mapping[Partition, Position], places: Iterable[Place]) -> dict[Partition, range]:
    wanted = {}
    for topic, partition, first, behind in places:
        position = there.get((topic, partition))
        if position is None:
            raise UsageError(f"audit {topic}/{partition}: no such partition among source.topics")
        wanted[topic, partition] = range(first, min(behind, position.high))
    return wanted


def _between(source: Consumer, there: Mapping[Partition, Position], begin: When, end: When) -> dict[Partition, range]:
    return {
        partition: range(_offset(source, each, begin), _offset(source, each, end)) for partition, each in there.items()
    }


def _committed(
    there: Mapping[Partition, Position], wanted: Mapping[Partition, range]
) -> tuple[dict[Partition, range], int]:
    """What is committed of these offsets, and how many are not."""
    stretch, waiting = {}, 0
    for partition, offsets in wanted.items():
        done = max(offsets.start, min(offsets.stop, there[partition].committed or 0))
        stretch[partition] = range(offsets.start, done)
        waiting += len(offsets) - len(stretch[partition])
    return stretch, waiting


def _offset(source: Consumer, position: Position, when: When) -> int:
    """The first offset of a time, which is the end of the partition where none is as late."""
    if not isinstance(when, datetime):
        return position.low if when == "earliest" else position.high
    at = TopicPartition(*position.partition, int(when.timestamp() * 1000))
    (found,) = PATIENCE.insist("asking for offsets", lambda s: source.offsets_for_times([at], timeout=s))
    return found.offset if found.offset >= 0 else position.high


def _first_time(source: Consumer, stretch: Mapping[Partition, range]) -> int | None:
    """The earliest time that a partition's stretch begins with [ms]; None where all are empty."""
    times = []
    for partition, offsets in stretch.items():
        _, end = _range(source, partition)
        message = next(scan(source, {partition: (offsets.start, end)}, DOING, PATIENCE), None) if offsets else None
        times += [message.timestamp()[1]] if message is not None else []
    return min(times, default=None)


def _range(consumer: Consumer, partition: Partition) -> tuple[int, int]:
    at = TopicPartition(*partition)
    return PATIENCE.insist("asking for offsets", lambda s: consumer.get_watermark_offsets(at, timeout=s))


# ---- what there is


class _Sink:
    """The sink's topics. topics: partitions by name. since: of what came in, the earliest time [ms]; None for any."""

    def __init__(self, consumer: Consumer, topics: Mapping[str, int], since: int | None) -> None:
        self._consumer = consumer
        self._topics = topics
        self._since = since
        self.warnings: list[str] = []

    def read(self, topic: str) -> Iterator[Message]:
        """All that can have come of it, with what is older by less than a day."""
        ranges = {}
        for number in range(self._topics[topic]):
            low, high = _range(self._consumer, (topic, number))
            ranges[topic, number] = self._start(topic, number, low, high), high
            if low > 0 and ranges[topic, number][0] == low < high:
                self.warnings.append(
                    f"{topic}/{number} has deleted what was before offset {low}: what is missing there may be no loss"
                )
        with Progress(f"reading {topic}", sum(high - low for low, high in ranges.values())) as progress:
            yield from scan(self._consumer, ranges, DOING, PATIENCE, lambda behind, _: progress.show(behind, behind))

    def _start(self, topic: str, number: int, low: int, high: int) -> int:
        if self._since is None:
            return low
        at = TopicPartition(topic, number, max(0, self._since - SLACK_MS))
        (found,) = PATIENCE.insist("asking for offsets", lambda s: self._consumer.offsets_for_times([at], timeout=s))
        return max(low, found.offset) if found.offset >= 0 else high


def _take_score(receipt: Receipt, message: Message) -> None:
    try:
        said = decode_score(_bytes(message))
        key = Key(said["topic"], said["partition"], said["offset"], said["record"])
        receipt.scored(key, Score(said["verdict"], said["drb"], said["candid"]))
    except (ValueError, KeyError) as error:
        receipt.strange(message.topic() or "", _place(message), str(error))


def _take_output(receipt: Receipt, alerts: PacketReader, message: Message) -> None:
    topic = message.topic() or ""
    try:
        key, said = _key(message), _said(message)
        (alert,) = alerts.read(Packet(Origin(_place(message)), _bytes(message)))
        if not isinstance(alert, Alert):
            raise ValueError(f"{alert.rejection.reason}: {alert.rejection.detail}")
        receipt.published(key, Output(topic, float(said["rbstream.drb"]), alert.value(DRB), alert.candid))
    except ValueError as error:
        receipt.strange(topic, _place(message), str(error))


def _take_dead_letter(receipt: Receipt, message: Message) -> None:
    try:
        receipt.buried(_key(message), message.topic() or "")
    except ValueError as error:
        receipt.strange(message.topic() or "", _place(message), str(error))


def _key(message: Message) -> Key:
    """Where a message says it comes from. Raises ValueError."""
    said = _said(message)
    partition, offset, record = (int(said[f"rbstream.source.{name}"]) for name in ("partition", "offset", "record"))
    return Key(said["rbstream.source.topic"], partition, offset, record)


class _Said(dict[str, str]):
    """Headers. Raises ValueError for one that is not there."""

    def __missing__(self, name: str) -> str:
        raise ValueError(f"it has no header {name}")


def _said(message: Message) -> _Said:
    return _Said({name: (value or b"").decode("utf-8", "replace") for name, value in as_message(message).headers})


def _bytes(message: Message) -> bytes:
    value = message.value()
    return value.encode() if isinstance(value, str) else value or b""


def _place(message: Message) -> str:
    return f"{message.topic()}/{message.partition()}/{message.offset()}"


def _look_at_the_source(receipt: Receipt, source: Consumer, partition: Partition, offsets: list[int]) -> None:
    """Whether there are messages at offsets that no score tells of: what a transaction left behind is none."""
    low, end = _range(source, partition)
    for offset in offsets:
        if offset < low:
            receipt.absent(partition, offset, deleted=True)
    left = [offset for offset in offsets if offset >= low]
    wanted = set(left)
    while left:
        message = next(scan(source, {partition: (left[0], end)}, DOING, PATIENCE), None)
        found = end if message is None else message.offset() or 0
        if found in wanted:
            receipt.absent(partition, found, deleted=False)
        left = [offset for offset in left if offset > found]
