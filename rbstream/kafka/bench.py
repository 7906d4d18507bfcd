"""What the worker costs on a real broker: beside `rbstream bench` and a bare transactional copy, in the same run.

Topics and groups are the bench's own, and removed after each step. Worker, publisher and copy are processes of their
own, as in service; CPU time is of whole processes, from the time that they are warm. Needs Linux (/proc).
"""

import logging
import tarfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import confluent_kafka
import numpy as np
from confluent_kafka import OFFSET_BEGINNING, TopicPartition

from rbstream.assembly import make_pipeline, make_scorer, open_bundle
from rbstream.bench import MAX_SOURCES, bench
from rbstream.config import required
from rbstream.errors import RbstreamError, UsageError
from rbstream.filter import Filter
from rbstream.kafka.children import Child, write_json, write_settings
from rbstream.kafka.clients import consumer_config, producer_config, with_limits
from rbstream.kafka.scratch import PARTITIONS, Scratch, scratch
from rbstream.kafka.topics import Cluster
from rbstream.packet.alert import Alert, Packet
from rbstream.progress import Progress
from rbstream.replay.sources import Inputs, find_inputs, load
from rbstream.settings import Filter as FilterSettings
from rbstream.settings import Log, Metrics, Settings, Shutdown, Sink
from rbstream.simulate import simulate_night

logger = logging.getLogger(__name__)

DELIVERIES = ("exactly-once", "at-least-once")
# Exactly once, from the source's cluster to the sink's, where that is another.
TWO = "two-clusters"
# Enough to see a night's variety; each takes some 30 ms to make.
SIMULATED_ALERTS = 300
# Clients' queues are filled, layouts known, memory taken.
WARM_UP_SHARE = 0.1
# The publisher stays so far ahead of a reader: more than it fetches ahead (64 MiB), less than the topic keeps.
MOST_AHEAD, LEAST_AHEAD = 2000, 1500
LOOK_SECONDS = 0.2
# Longer than any start of a worker, or a stall of a broker that is well.
STUCK_SECONDS = 120.0
SOAK_SAMPLES = 20
GROWTH_PER = 100_000


@dataclass(frozen=True)
class Request:
    """What to measure, on packets in `paths`, or simulated ones.

    alerts: for rates and CPU time. rate [1/s], warm_up, seconds: of the steady stream that latency is taken from.
    soak: alerts through one worker whose memory is watched. 0 for seconds or soak leaves that out.
    """

    paths: list[str]
    alerts: int
    rate: float
    warm_up: float
    seconds: float
    soak: int


class Pace(NamedTuple):
    """Of a reader that has all it can take. cpu: user and system time an alert [s]."""

    alerts: int
    per_second: float
    cpu: float


def bench_kafka(request: Request, settings: Settings) -> dict[str, Any]:
    """Measure all, on the source's cluster; the keys of the result are in docs/bench.md.

    Raises UsageError where there is nothing to measure, KafkaFailure where no broker answers, RbstreamError where a
    step fails.
    """
    required(settings, "source.bootstrap_servers")
    # Else what is wrong there would be told after a minute of other things.
    source, sink = Cluster("source", consumer_config(settings)), Cluster("sink", producer_config(settings))
    other = settings.sink if source.id != sink.id else None
    settings = _adapted(settings)
    with TemporaryDirectory(prefix="rbstream-bench-") as name:
        folder = Path(name)
        packets = _packets(request.paths, folder, settings)
        tar = _write_tar(folder / "packets.tar", packets)
        logger.info("benching the pipeline", extra={"packets": len(packets)})
        pipeline = bench([str(tar)], settings)
        rig = Rig(settings, other, folder, tar, max(map(len, packets)))
        copy = _pace(rig, "copy", "copy", request.alerts)
        paces = {delivery: _pace(rig, delivery, "worker", request.alerts) for delivery in DELIVERIES}
        two = _two(rig, request.alerts) if other is not None else None
        latencies = {each: _latency(rig, each, request) if request.seconds else None for each in DELIVERIES}
        soak = _soak(rig, request.soak) if request.soak else None
    floor = pipeline["total_cpu_seconds"] + copy.cpu
    workers = {
        delivery: {**_shown(pace), "ratio": round(pace.cpu / floor, 4), "latency": latencies[delivery]}
        for delivery, pace in paces.items()
    }
    return {
        **{name: pipeline[name] for name in ("model", "device", "precision")},
        "packets": len(packets),
        "packet_bytes": round(sum(map(len, packets)) / len(packets)),
        "pipeline": {"alerts_per_second": pipeline["alerts_per_second"], "cpu_seconds": pipeline["total_cpu_seconds"]},
        "copy": _shown(copy),
        "floor_cpu_seconds": round(floor, 9),
        **workers,
        TWO: two,
        "soak": soak,
    }


def _shown(pace: Pace) -> dict[str, Any]:
    return {
        "alerts": pace.alerts,
        "alerts_per_second": round(pace.per_second, 1),
        "cpu_seconds": round(pace.cpu, 9),
    }


# ---- what is measured


def _pace(rig: "Rig", step: str, reader: str, alerts: int) -> Pace:
    """How fast a reader is and what it costs, while the publisher keeps ahead of it."""
    with rig.running(step, reader) as running:
        return _paces([running], alerts)[0]


def _two(rig: "Rig", alerts: int) -> dict[str, Any]:
    """The same from one cluster to another, and beside a worker within one: the machine's moods meet both alike."""
    alone = _pace(rig, TWO, "worker", alerts)
    with rig.running(DELIVERIES[0], "worker") as one, rig.running(TWO, "worker") as two:
        within, between = _paces([one, two], alerts)
    both = {"one": round(within.cpu, 9), "two": round(between.cpu, 9)}
    return {**_shown(alone), "side_by_side": both, "ratio": round(between.cpu / within.cpu, 4)}


def _paces(running: list["Running"], alerts: int) -> list[Pace]:
    """Of readers that run at once, until each has so many alerts."""
    begun = follow(running, max(1, round(alerts * WARM_UP_SHARE)))
    before = [each.reader.usage() for each in running]
    started = time.monotonic()
    ended = follow(running, max(begun) + alerts)
    seconds = time.monotonic() - started
    usages = zip(before, (each.reader.usage() for each in running), strict=True)
    return [
        Pace(last - first, (last - first) / seconds, (after.cpu - used.cpu) / (last - first))
        for first, last, (used, after) in zip(begun, ended, usages, strict=True)
    ]


def _latency(rig: "Rig", delivery: str, request: Request) -> dict[str, Any]:
    """From the input's CreateTime to a read_committed consumer of the output, at a steady rate [s]."""
    with rig.running(delivery, "worker", request.rate) as running, running.outputs() as consumer:
        follow([running], 1)
        begin = time.time() + request.warm_up
        end = begin + request.seconds
        taken: list[float] = []
        seen, published, heard = 0, None, time.monotonic()
        with Progress(running.name, None) as progress:
            while published is None or seen < published:
                message = consumer.poll(LOOK_SECONDS)
                now = time.time()
                progress.show(seen, seen)
                if message is None or message.error() is not None:
                    running.reader.check()
                    if time.monotonic() - heard > STUCK_SECONDS:
                        raise RbstreamError(f"{running.name}: {seen} of {published} alerts came out, and no more")
                else:
                    created = message.timestamp()[1] / 1000
                    seen, heard = seen + 1, time.monotonic()
                    if begin <= created < end:
                        taken.append(now - created)
                # Whatever was published comes out: none is missing among the latencies for being late.
                if now >= end and published is None:
                    published = running.end_of_publishing()
    if not taken:
        raise RbstreamError(f"{running.name}: no alert was published in {request.seconds:g} s; ask for more")
    p50, p99, most = np.percentile(taken, (50, 99, 100))
    return {
        "rate": request.rate,
        "alerts": len(taken),
        "p50": round(float(p50), 4),
        "p99": round(float(p99), 4),
        "max": round(float(most), 4),
    }


def _soak(rig: "Rig", alerts: int) -> dict[str, Any]:
    """Resident memory of one worker over many alerts [bytes]; growth is the slope of a line through the samples."""
    samples: list[tuple[int, int]] = []
    with rig.running("soak", "worker") as running:
        for number in range(1, SOAK_SAMPLES + 1):
            (done,) = follow([running], alerts * number // SOAK_SAMPLES)
            samples.append((done, running.reader.usage().rss))
    warm = samples[round(SOAK_SAMPLES * WARM_UP_SHARE) - 1 :]
    counts, sizes = np.array(warm, np.float64).T
    slope = np.polyfit(counts - counts[0], sizes, 1)[0] if counts[-1] > counts[0] else 0.0
    return {
        "alerts": samples[-1][0],
        "first_bytes": warm[0][1],
        "last_bytes": warm[-1][1],
        "max_bytes": max(size for _, size in warm),
        "growth_bytes_per_100000": round(float(slope) * GROWTH_PER),
        "samples": [list(sample) for sample in samples],
    }


# ---- what it is measured with


class Running:
    """A step under way: a reader and a publisher on topics of their own. reader: the worker, or the copy."""

    def __init__(self, name: str, topics: Scratch, reader: Child, publisher: Child, settings: Settings) -> None:
        self.name = name
        self.reader = reader
        self._topics = topics
        self._publisher = publisher
        self._settings = settings
        self._done, self._moved = 0, time.monotonic()

    def look(self) -> int:
        """How many alerts are committed; publisher and reader are seen to. Raises RbstreamError where it is stuck."""
        done = self._topics.committed()
        if done > self._done:
            self._done, self._moved = done, time.monotonic()
        elif time.monotonic() - self._moved > STUCK_SECONDS:
            raise RbstreamError(f"{self.name}: nothing moved for {STUCK_SECONDS:g} s after {done} alerts")
        self.reader.check()
        self._pace(self._topics.published() - done)
        return done

    def _pace(self, ahead: int) -> None:
        """Halt the publisher while the reader has enough: what it is too far ahead with would be deleted unread."""
        self._publisher.check()
        if ahead > MOST_AHEAD:
            self._publisher.hold()
        elif ahead < LEAST_AHEAD:
            self._publisher.go_on()

    def end_of_publishing(self) -> int | None:
        """Ask the publisher to end, and tell how many it wrote once it has; None before that."""
        if not self._publisher.running:
            return self._topics.published()
        self._publisher.ask_to_end()
        return None

    @contextmanager
    def outputs(self) -> Iterator[confluent_kafka.Consumer]:
        """A read_committed consumer of all that comes out."""
        config = {**consumer_config(self._settings), "group.id": f"{self._topics.group}-reader"}
        consumer = confluent_kafka.Consumer({**config, "enable.partition.eof": False})
        consumer.assign([TopicPartition(self._topics.output, each, OFFSET_BEGINNING) for each in range(PARTITIONS)])
        try:
            yield consumer
        finally:
            consumer.close()


def follow(running: list[Running], alerts: int) -> list[int]:
    """Wait until each has committed so many, and tell how many they have. Raises RbstreamError where one is stuck."""
    begun = done = [each.look() for each in running]
    with Progress(", ".join(each.name for each in running), alerts) as progress:
        while min(done) < alerts:
            time.sleep(LOOK_SECONDS)
            done = [each.look() for each in running]
            progress.show(min(done) - min(begun), min(done))
    return done


class Rig:
    """Sets steps up. sink: in another cluster, if there is one. tar: the packets; largest: of them [bytes]."""

    def __init__(self, settings: Settings, sink: Sink | None, folder: Path, tar: Path, largest: int) -> None:
        self._settings = settings
        self._sink = sink
        self._folder = folder
        self._tar = tar
        # Should all that is ahead be in one partition, it is kept, and as much again.
        self._retention = 2 * MOST_AHEAD * largest

    @contextmanager
    def running(self, step: str, reader: str, rate: float | None = None) -> Iterator[Running]:
        """Reader (`worker`, or `copy`) and publisher, at `rate` or as fast as they may. step: a delivery, or a name."""
        name = f"{step}, {rate:g}/s" if rate else step
        logger.info("benching %s", name)
        with ExitStack() as stack:
            settings = self._settings
            if step == TWO and self._sink is not None:
                connection = {"bootstrap_servers": self._sink.bootstrap_servers, "properties": self._sink.properties}
                settings = settings.model_copy(update={"sink": settings.sink.model_copy(update=connection)})
            other = producer_config(settings) if step == TWO else None
            topics = stack.enter_context(scratch(producer_config(self._settings), other, step, self._retention))
            settings = self._for(settings, topics, step)
            config = str(write_settings(self._folder / f"{topics.group}.toml", settings))
            read = ["-m", "rbstream", "run", "--config", config]
            if reader == "copy":
                read = ["-m", "rbstream.kafka.copy", str(self._copy(topics, settings))]
            publish = ["-m", "rbstream", "publish", str(self._tar), "--config", config, "--topic", topics.input]
            publish += ["--loop", *(["--rate", str(rate)] if rate else [])]
            # Left in reverse: the reader leaves its group while it still has its topics.
            started = stack.enter_context(Child(f"{topics.group}-{reader}", self._folder, read))
            publisher = stack.enter_context(Child(f"{topics.group}-publisher", self._folder, publish))
            yield Running(name, topics, started, publisher, settings)

    @staticmethod
    def _for(settings: Settings, topics: Scratch, step: str) -> Settings:
        source = {"topics": (topics.input,), "group_id": topics.group, "instance_id": None}
        sink = {"topic": topics.output, "dead_letters": topics.dead_letters, "transactional_id": topics.group}
        delivery = step if step in DELIVERIES else DELIVERIES[0]
        return settings.model_copy(
            update={
                "delivery": delivery,
                "source": settings.source.model_copy(update=source),
                "sink": settings.sink.model_copy(update=sink),
            }
        )

    def _copy(self, topics: Scratch, settings: Settings) -> Path:
        """The worker's configuration, but for the first offset, which the worker looks up itself."""
        batch = settings.batch
        limit = Cluster("sink", producer_config(settings)).message_limits([topics.output])[topics.output]
        consumer = {**consumer_config(settings), "auto.offset.reset": "earliest"}
        producer = with_limits(producer_config(settings), limit, limit, (batch.queue + 1) * batch.max_bytes)
        given = {"consumer": consumer, "producer": producer, "source": topics.input, "target": topics.output}
        return write_json(self._folder / "copy.json", given)


def _adapted(settings: Settings) -> Settings:
    """One cluster, one way out that every alert takes, as the copy writes each: whatever else is configured."""
    one = settings.sink.bootstrap_servers in (None, settings.source.bootstrap_servers)
    sink = Sink(properties=settings.sink.properties if one else {}, max_outage=settings.sink.max_outage)
    return settings.model_copy(
        update={
            "sink": sink,
            "routes": {},
            "filter": FilterSettings(threshold=0.0),
            "metrics": Metrics(host="127.0.0.1", port=0),
            "log": Log(format="json"),
            "shutdown": Shutdown(drain=5.0),
        }
    )


def _packets(paths: list[str], folder: Path, settings: Settings) -> list[bytes]:
    """A packet an alert, as they are published; those that can't be scored are left out. Raises UsageError for none."""
    if not paths:
        night = folder / "simulated.avro"
        simulate_night(night, SIMULATED_ALERTS, 0)
        paths = [str(night)]
    scorer = make_scorer(open_bundle(settings.model), settings.model)
    pipeline = make_pipeline(scorer, {"main": Filter(0.0, None)}, settings.limits, settings.batch.max_alerts)
    inputs = (load(source, settings.limits) for source in Inputs(find_inputs(paths), settings.limits))
    found: list[bytes] = []
    for outcomes in pipeline.run([(packet for packet in inputs if isinstance(packet, Packet))]):
        found += [each.item.original() for each in outcomes.outcomes if isinstance(each.item, Alert)]
        if len(found) >= MAX_SOURCES:
            break
    if not found:
        raise UsageError("nothing to measure: none of these packets could be scored")
    return found[:MAX_SOURCES]


def _write_tar(path: Path, packets: list[bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for number, packet in enumerate(packets):
            header = tarfile.TarInfo(f"{number:05}.avro")
            header.size = len(packet)
            tar.addfile(header, BytesIO(packet))
    return path
