"""Packets of files onto a topic, a message an alert, at a pace: for tests and rehearsals."""

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from rbstream.config import required
from rbstream.errors import RbstreamError, UsageError
from rbstream.kafka.clients import Complaints, admin_config, make_producer, producer_config, with_limits
from rbstream.kafka.faults import Fault, KafkaFailure, judge
from rbstream.kafka.interrupts import held_back
from rbstream.kafka.topics import Cluster
from rbstream.packet.alert import Alert, Packet, Rejected
from rbstream.packet.reader import PacketReader
from rbstream.packet.survey import ZTF
from rbstream.progress import Progress
from rbstream.replay.sources import STDIN, Inputs, find_inputs, load
from rbstream.settings import Limits, Settings, Sink

logger = logging.getLogger(__name__)

# Some 400 packets: seconds at the pace of a night.
QUEUE_BYTES = 32 << 20
# librdkafka's own: a broker that starts anew is back long before.
DELIVERY_MS = 300_000
# What a broker that is there takes at most for a queue of QUEUE_BYTES; after Ctrl-C nobody waits longer.
LAST_FLUSH_SECONDS = 15.0
# How long a wait goes without a look at delivery reports.
TURN_SECONDS = 0.1
# Behind by so much, the pace starts anew: what stalled is not made up for in a burst.
MAKE_UP_SECONDS = 1.0
SECONDS_A_DAY = 86_400.0
CREATE_SECONDS = 30.0


@dataclass(frozen=True)
class Request:
    """What to publish, where, and how fast.

    rate: alerts a second; realtime: as far apart as the alerts' `jd` are; neither: as fast as Kafka takes them.
    partitions: of the topic, which is made where it is not there; None: it has to be there.
    """

    paths: list[str]
    topic: str
    rate: float | None = None
    realtime: bool = False
    loop: bool = False
    partitions: int | None = None


@dataclass
class Published:
    """What became of it. messages: handed to the client; unreadable: inputs without bytes to send."""

    messages: int = 0
    delivered: int = 0
    failed: int = 0
    unreadable: int = 0
    seconds: float = 0.0
    error: str | None = None
    # Ctrl-C or SIGTERM, to be raised again once this is told.
    stopped: BaseException | None = field(default=None, repr=False)

    def report(self, error: KafkaError | None, message: Any) -> None:
        """librdkafka's delivery report."""
        if error is None:
            self.delivered += 1
        else:
            self.fail(error)

    def fail(self, error: KafkaError) -> None:
        self.failed += 1
        self.error = self.error or error.str()


class Letter(NamedTuple):
    """A message to be. jd: when the alert was observed [days], None where it doesn't say."""

    value: bytes
    key: str | None = None
    jd: float | None = None


def publish(request: Request, settings: Settings) -> Published:
    """Publish what the request names to the source's cluster, which the worker reads from.

    Returns the counts also where it was stopped, or messages were not delivered.
    Raises UsageError, KafkaFailure where it can't start or Kafka refuses for good.
    """
    names = find_inputs(request.paths)
    if request.loop and STDIN in names:
        raise UsageError("--loop: standard input can be read only once; save it to a file")
    config = feeding_config(settings)
    cluster = Cluster("source", config)
    if request.topic not in cluster.topics:
        _create(cluster, config, request)
    limit = cluster.message_limits([request.topic])[request.topic]
    producer = make_producer(with_limits(config, limit, limit, max(QUEUE_BYTES, 2 * limit)), Complaints("publisher"))
    done, started = Published(), time.monotonic()
    try:
        _publish(producer, names, request, settings.limits, done)
        _flush(producer, None)
    except (KeyboardInterrupt, SystemExit) as stop:
        done.stopped = stop
    finally:
        _flush(producer, LAST_FLUSH_SECONDS)
    done.seconds = time.monotonic() - started
    return done


def feeding_config(settings: Settings) -> dict[str, Any]:
    """For a producer to the source's cluster: its way in, and of the sink what is said of the same cluster."""
    one = settings.sink.bootstrap_servers in (None, required(settings, "source.bootstrap_servers"))
    sink = Sink(properties=settings.sink.properties if one else {})
    config = producer_config(settings.model_copy(update={"sink": sink, "delivery": "at-least-once"}))
    return {**config, "message.timeout.ms": sink.properties.get("message.timeout.ms", DELIVERY_MS)}


def _create(cluster: Cluster, config: dict[str, Any], request: Request) -> None:
    servers, topic = config["bootstrap.servers"], request.topic
    if request.partitions is None:
        raise KafkaFailure(
            f"{servers} has no topic {topic} (or we may not see it); say --create PARTITIONS, or: "
            f"kafka-topics.sh --bootstrap-server {servers} --create --topic {topic} --partitions N"
        )
    admin = AdminClient(admin_config(config))
    (made,) = admin.create_topics([NewTopic(topic, request.partitions)], request_timeout=CREATE_SECONDS).values()
    try:
        made.result()
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise KafkaFailure(f"{servers}: topic {topic} can't be made: {error.args[0].str()}") from error


def _publish(
    producer: confluent_kafka.Producer, names: list[str], request: Request, limits: Limits, done: Published
) -> None:
    inputs, reader = Inputs(names, limits), PacketReader(ZTF, (), frozenset({"jd"}), limits)
    with Progress("publishing", None if request.loop else inputs.total) as progress:
        pace = Pace(request)
        while True:
            before = done.messages
            for letter in _letters(inputs, reader, limits, done):
                while (seconds := pace.ahead(letter, time.monotonic())) > 0:
                    _listen(producer, min(seconds, TURN_SECONDS))
                    progress.show(done.messages, inputs.position)
                pace.sent(time.monotonic())
                _produce(producer, request.topic, letter, done)
                progress.show(done.messages, inputs.position)
            if done.messages == before:  # to go round for ever would tell nobody
                raise RbstreamError("nothing to publish: none of the inputs has bytes that could be sent")
            if not request.loop:
                return
            if request.realtime:  # the night begins again; a rate goes on
                pace = Pace(request)
            inputs = Inputs(names, limits)


def _produce(producer: confluent_kafka.Producer, topic: str, letter: Letter, done: Published) -> None:
    while not _queued(producer, topic, letter, done):
        _listen(producer, TURN_SECONDS)
    _listen(producer, 0)


def _queued(producer: confluent_kafka.Producer, topic: str, letter: Letter, done: Published) -> bool:
    """Whether the client took it, or refused it for good; False where its queue is full."""
    with held_back():  # what is sent is counted
        try:
            producer.produce(topic, letter.value, letter.key, on_delivery=done.report)
        except BufferError:
            return False
        except KafkaException as error:  # before it was queued: larger than the topic takes, say
            if judge(error.args[0]) is Fault.EXIT and error.args[0].code() != KafkaError.MSG_SIZE_TOO_LARGE:
                raise KafkaFailure(f"topic {topic}: {error.args[0].str()}") from error
            done.fail(error.args[0])
        done.messages += 1
        return True


def _listen(producer: confluent_kafka.Producer, seconds: float) -> None:
    """Take delivery reports, for so long."""
    with held_back():
        producer.poll(seconds)


def _flush(producer: confluent_kafka.Producer, seconds: float | None) -> None:
    """Wait for what is queued: every message ends delivered or failed, at the latest when its time is over."""
    deadline = None if seconds is None else time.monotonic() + seconds
    left = 1
    while left and (deadline is None or time.monotonic() < deadline):
        with held_back():
            left = producer.flush(TURN_SECONDS)


class Pace:
    """When the next alert is due, by a monotonic clock [s]. It starts with the first."""

    def __init__(self, request: Request) -> None:
        self._interval = 1.0 / request.rate if request.rate else 0.0
        self._realtime = request.realtime
        self._due: float | None = None
        self._first: tuple[float, float] | None = None

    def ahead(self, letter: Letter, now: float) -> float:
        """How long it is until a letter is due [s]; one without a time, or from before the first, is due at once."""
        if not self._realtime:
            return 0.0 if self._due is None else self._due - now
        if letter.jd is None:
            return 0.0
        if self._first is None:
            self._first = letter.jd, now
        jd, started = self._first
        return started + (letter.jd - jd) * SECONDS_A_DAY - now

    def sent(self, now: float) -> None:
        """Another one may go an interval after this one was due."""
        if self._due is None or now - self._due > MAKE_UP_SECONDS:
            self._due = now
        self._due += self._interval


def _letters(inputs: Inputs, reader: PacketReader, limits: Limits, done: Published) -> Iterator[Letter]:
    """The messages of some inputs: an alert each, with its own schema; what can't be read goes as it came."""
    for source in inputs:
        packet = load(source, limits)
        if isinstance(packet, Packet):
            yield from _split(packet, reader)
            continue
        if packet.packet:
            yield Letter(packet.packet)
            continue
        done.unreadable += 1
        logger.warning("%s: %s", packet.origin.label, packet.rejection.detail)


def _split(packet: Packet, reader: PacketReader) -> Iterator[Letter]:
    items = list(reader.read(packet))
    alerts = [item for item in items if isinstance(item, Alert)]
    if packet.header is None and len(alerts) < 2:
        # Byte for byte, and whatever is wrong with it: that is what rehearsals are for.
        yield _letter(alerts[0], packet.content) if alerts else Letter(packet.content)
        return
    for item in items:
        yield Letter(item.packet) if isinstance(item, Rejected) else _letter(item, item.original())


def _letter(alert: Alert, value: bytes) -> Letter:
    jd = alert.value("candidate.jd")
    return Letter(value, alert.object_id, jd if isinstance(jd, float) and math.isfinite(jd) else None)
