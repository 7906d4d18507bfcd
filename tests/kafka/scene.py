"""What a test of the metrics plays in: topics of its own, up to two workers, and Prometheus that scrapes them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from broker import Broker, free_port
from confluent_kafka import Producer
from packets import Made
from scraper import Prometheus
from worker import Worker, worker_settings

PARTITIONS = 2
# Long enough for a worker to start on two busy cores, and for Prometheus' next look.
PATIENCE = 90.0


@dataclass
class Scene:
    """A broker with topics, Prometheus that looks for two workers, and what was published."""

    broker: Broker
    bundle: Path
    folder: Path
    word: str
    settings: dict[str, object] = field(default_factory=dict)
    published: list[Made] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ports = {"one": free_port(), "two": free_port()}
        self.broker.create(self.topic("in"), partitions=PARTITIONS)
        self.broker.create(self.topic("out"), self.topic("dead"), self.topic("scores"), partitions=PARTITIONS)
        self.prometheus = Prometheus(self.folder / "prometheus", **self.ports)

    def topic(self, name: str) -> str:
        return f"metrics-{self.word}-{name}"

    def start(self, job: str, *command: object) -> Worker:
        """A worker, scraped under the name of its job."""
        names = {name: self.topic(name) for name in ("in", "out", "dead", "scores", "group")} | {"id": self.topic(job)}
        settings = worker_settings(self.broker.servers, self.bundle, names, rejects__max_ratio=0.9)
        settings |= {"metrics.port": self.ports[job]} | self.settings
        more = {"command": command} if command else {}
        worker = Worker(self.folder, settings, name=job, **more)
        self.workers.append(worker)
        worker.await_ready(PATIENCE)
        return worker

    def publish(self, made: Sequence[Made]) -> None:
        """In turn to each partition."""
        failed: list[object] = []
        producer = Producer({"bootstrap.servers": self.broker.servers, "enable.idempotence": True, "log_level": 2})
        for number, each in enumerate(made):
            producer.produce(
                self.topic("in"), each.content, each.key, partition=number % PARTITIONS,
                on_delivery=lambda error, _: failed.append(error) if error else None,
            )  # fmt: skip
            if number % 100 == 99:
                producer.flush(30)
        assert producer.flush(30) == 0
        assert not failed
        self.published += made

    def await_alerts(self, job: str, expected: int) -> None:
        """Wait until this worker has committed so many alerts, and Prometheus has seen it."""
        self.prometheus.await_value(f'sum(rbstream_alerts_total{{job="{job}"}})', expected, PATIENCE)

    def by(self, expression: str, *labels: str) -> dict[tuple[str, ...], float]:
        """Values by labels; Prometheus leaves out a label that is empty."""
        return {
            tuple(got.get(label, "") for label in labels): value for got, value in self.prometheus.query(expression)
        }

    def close(self) -> None:
        for worker in self.workers:
            if worker.running:
                worker.kill()
        self.prometheus.close()
