"""Topics, settings and packets of one test of the worker."""

import io
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fastavro
from broker import Broker, free_port
from cluster import headers
from confluent_kafka import Message, Producer
from waiting import wait_until
from worker import Worker, worker_settings

# Whoever is killed is missed soon.
SHORT_SESSION = {"source.properties.session.timeout.ms": 6000, "source.properties.heartbeat.interval.ms": 1000}
# Long enough for a worker to start on two busy cores.
PATIENCE = 90.0


@dataclass
class Stage:
    """One test's topics on a broker (and on a second one for the sink, if there is one), and its workers."""

    broker: Broker
    bundle: Path
    folder: Path
    word: str
    sink: Broker | None = None
    partitions: int = 1
    workers: list[Worker] = field(default_factory=list)
    _sent: Any = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.broker.create(self.topic("in"), partitions=self.partitions)
        self.out.create(self.topic("out"), self.topic("dead"), self.topic("scores"))

    @property
    def out(self) -> Broker:
        return self.sink or self.broker

    def topic(self, name: str) -> str:
        return f"{self.word}-{name}"

    def settings(self, **more: Any) -> dict[str, Any]:
        names = {name: self.topic(name) for name in ("in", "out", "dead", "scores", "group", "id")}
        settings = worker_settings(self.broker.servers, self.bundle, names, **{"filter__threshold": 0} | more)
        if self.sink is not None:
            settings.setdefault("sink.bootstrap_servers", self.sink.servers)
        # The newer protocol's sessions are the broker's to set, and its client refuses these.
        return settings if settings.get("source.group_protocol") == "consumer" else settings | SHORT_SESSION

    def start(self, *arguments: object, ready: bool = True, name: str = "worker", **more: Any) -> Worker:
        """A worker with more settings, a double underscore for the dot."""
        worker = Worker(self.folder, self.settings(**more) | {"metrics.port": free_port()}, *arguments, name=name)
        self.workers.append(worker)
        if ready:
            worker.await_ready(PATIENCE)
        return worker

    def publish(
        self, contents: Iterable[bytes | None], topic: str | None = None, seconds: float = 60, **more: Any
    ) -> None:
        """Messages in this order, to partition 0 if nothing else is said. Fails where not all arrived in time."""
        failed: list[object] = []
        producer = Producer({"bootstrap.servers": self.broker.servers, "enable.idempotence": True, "log_level": 2})
        for content in contents:
            options = {"partition": 0, "key": b"key-%d" % next(self._sent)} | more
            producer.produce(
                topic or self.topic("in"), content, on_delivery=lambda error, _: failed.append(error), **options
            )
        assert producer.flush(seconds) == 0
        assert not any(failed)

    def scores(self) -> list[dict[str, Any]]:
        """What the scores topic holds, in order of the input."""
        read = [record(message) for message in self.out.read_all(self.topic("scores"))]
        return sorted(read, key=lambda score: (score["topic"], score["partition"], score["offset"], score["record"]))

    def await_scores(self, number: int) -> list[dict[str, Any]]:
        return wait_until(
            lambda: found if len(found := self.scores()) >= number else None, f"{number} scores", PATIENCE, pause=0.3
        )

    def read(self, name: str) -> list[Message]:
        return self.out.read_all(self.topic(name))

    def lag(self) -> dict[tuple[str, int], int]:
        """Offsets that are not committed, of partitions that have any."""
        return self.broker.lag(self.topic("group"), self.topic("in"))

    def close(self) -> None:
        for worker in self.workers:
            if worker.running:
                worker.kill()


def record(message: Message) -> dict[str, Any]:
    """The one record of a container."""
    (found,) = fastavro.reader(io.BytesIO(message.value() or b""))
    return found  # type: ignore[return-value]


def offsets(messages: Sequence[Message]) -> list[int]:
    """Where messages came from, in order."""
    return sorted(int(headers(message)["rbstream.source.offset"]) for message in messages)
