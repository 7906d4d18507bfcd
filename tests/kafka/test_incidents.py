"""Debian's Prometheus, with the rules as they are installed, watches real workers to which things happen.

In the rules a minute lasts a second here, and a day a minute. All incidents happen at the same time, each to a consumer
group of its own; what fires is told by the label `group`. `RBSTREAM_TEST_PICTURES=docs` leaves the pictures of the
dashboards there.
"""

import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from broker import Broker, free_port
from confluent_kafka import Producer
from exporter import Exporter
from generate import DASHBOARDS
from monitoring.alerts import CLUSTER as SITES
from monitoring.alerts import GROUP, OVERDUE, TOPICS, Clock, rules, site
from monitoring.draw import draw, filled_in, load
from monitoring.panels import Panel
from packets import changed, make_packets, scored_upstream, templates
from scraper import Prometheus
from waiting import wait_until
from worker import Worker, worker_settings

from rbstream.assembly import make_pipeline, make_scorer, open_bundle
from rbstream.filter import Filter
from rbstream.packet.alert import Origin, Packet
from rbstream.settings import Limits, Model

CLUSTER = "test"
CLOCK = Clock(minute=1, day=60)
# Ten workers start at once, on two busy cores.
PATIENCE = 180.0
# From the first incident until all of them have had their time: the drift's is the longest.
LASTS = 240.0
DEPLOY = Path(__file__).parents[2] / "deploy"
SHIPPED = DEPLOY.parent / "models/rbnet.pt"
# In place of the 84 hours of site.yaml.
SHORT = "40s"
# In place of the hours of observing: when that one has done so much, 100 s after all began.
OBSERVING = 'vector(1) and on () (sum(rbstream_alerts_total{group="well"}) > 400)'
SLOW_BYTES_PER_SECOND = 300_000

NOTHING: set[str] = set()
EXPECTED = {
    "well": NOTHING,
    "rejecting": {"RbstreamRejecting"},
    "dead": {"RbstreamNoReadyWorker", "RbstreamStalled", "RbstreamLagNearRetention"},
    "silent": {"RbstreamSourceSilent"},
    "late": {"RbstreamLatencyHigh"},
    "slow": {"RbstreamLagGrowing", "RbstreamLatencyHigh", "RbstreamLagNearRetention"},
    "aborting": {"RbstreamTransactionsAborting"},
    "halting": {"RbstreamRestarting", "RbstreamNoReadyWorker", "RbstreamStalled", "RbstreamLagNearRetention"},
    # Who has not been heard of for its session's 45 s has no partitions any more, and is not ready.
    "away": {"RbstreamKafkaAway", "RbstreamNoReadyWorker"},
    "drifting": {"RbstreamScoreDrift"},
}


@dataclass
class Group:
    """A consumer group with one worker, and what is published for it. pace: messages a second; 0 is nothing."""

    name: str
    broker: Broker
    settings: dict[str, Any]
    contents: Iterator[bytes | None]
    command: tuple[object, ...] = ()
    pace: float = 4.0
    age: float = 0.0
    port: int = field(default_factory=free_port)
    worker: Worker | None = None
    sent: int = 0

    def start(self, folder: Path) -> Worker:
        more: dict[str, Any] = {"command": self.command} if self.command else {}
        self.worker = Worker(folder, self.settings | {"metrics.port": self.port}, name=self.name, **more)
        return self.worker

    def topic(self, name: str) -> str:
        return f"{self.name}-{name}"


class Night:
    """All that goes on."""

    def __init__(self, broker: Broker, other: Broker, bundle: Path, folder: Path) -> None:
        self._folder = folder
        self._bundle = bundle
        self._made = templates(folder, alerts=60)
        by_score = self._by_score()
        # Every one with a score of upstream's, that they agree with more and less.
        self._low, self._high = map(scored_upstream, by_score[:5]), map(scored_upstream, by_score[-5:])
        self._threads: list[threading.Thread] = []
        self._over = threading.Event()
        self._closing = ExitStack()
        self.broker, self.other = broker, other
        self.groups = {name: self._group(name, other if name == "away" else broker) for name in EXPECTED}
        self.groups["aborting"].command = (sys.executable, Path(__file__).with_name("aborting.py"))
        self.groups["slow"].settings["source.properties.client.id"] = "slow"
        # Else it would have 4 MiB at a time, and nothing for a quarter of a minute.
        self.groups["slow"].settings["source.properties.max.partition.fetch.bytes"] = SLOW_BYTES_PER_SECOND
        self.groups["slow"].pace = 12
        self.groups["rejecting"].contents = self._packets(malformed=0.15)
        self.groups["late"].age = 3600
        self.groups["drifting"].contents = itertools.cycle(self._low)
        self.groups["drifting"].pace = 12
        self.groups["halting"].settings["rejects.in_a_row"] = 3

    def start(self) -> None:
        groups = self.groups.values()
        for group in groups:
            group.broker.create(group.topic("in"))
            group.broker.create(group.topic("out"), group.topic("dead"), group.topic("scores"))
        here = {group.name: group.topic("in") for group in groups if group.broker is self.broker}
        ports = {group.name: group.port for group in groups} | {"exporter": free_port()}
        self._closing.callback(Exporter(self.broker, here, ports["exporter"]).close)
        labels = {name: {"cluster": CLUSTER} | ({"group": name} if name in self.groups else {}) for name in ports}
        self.prometheus = Prometheus(self._folder / "prometheus", labels, self._rules(), **ports)
        self._closing.callback(self.prometheus.close)
        for group in groups:
            group.start(self._folder)
        for group in groups:
            assert group.worker is not None
            group.worker.await_ready(PATIENCE)
        # Workers that were slow to start were missed.
        self.prometheus.await_value('count(ALERTS{alertstate="firing"}) or vector(0)', 0)
        self.began = time.time()
        self._run(self._publish)

    def happen(self) -> None:
        """Everything that goes wrong."""
        dead, halting, silent, away = (self.groups[name] for name in ("dead", "halting", "silent", "away"))
        for name, group in self.groups.items():
            self.prometheus.await_value(f'sum(rbstream_alerts_total{{group="{name}"}}) > bool 20', 1, PATIENCE)
            assert group.worker is not None
        self.happened = time.time()
        away.pace = silent.pace = 0
        # Else the client may be caught in a call that it never comes back from (librdkafka's issue 5456).
        idle = "sum(rbstream_consumer_lag_messages{0}) + sum(rbstream_uncommitted_alerts{0})"
        idle += " + sum(increase(rbstream_alerts_total{0}[5s]))"
        self.prometheus.await_value(idle.replace("{0}", '{group="away"}'), 0)
        self.other.kill()
        quota = f"consumer_byte_rate={SLOW_BYTES_PER_SECOND}"
        self.broker.tool(
            "kafka-configs.sh", "--bootstrap-server", self.broker.servers, "--alter", "--add-config", quota,
            "--entity-type", "clients", "--entity-name", "slow",
        )  # fmt: skip
        assert dead.worker is not None
        dead.worker.kill()
        halting.contents = iter(lambda: b"not Avro", None)
        self._run(self._start_again)
        # Until there is something to drift away from: an hour of scores by a model that is an hour old, a day ago.
        self._wait_until(self.began + 130)
        self.groups["drifting"].contents = itertools.cycle(self._high)
        self._wait_until(self.happened + LASTS)

    def fired(self, name: str) -> set[str]:
        """The alerts that fired for a group, at any time."""
        series = f'ALERTS{{group="{name}", alertstate="firing"}}'
        return {labels["alertname"] for labels, _ in self.prometheus.history(series, self.began, time.time())}

    def close(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)
        for group in self.groups.values():
            if group.worker is not None and group.worker.running:
                group.worker.kill()
        self._closing.close()

    def _group(self, name: str, broker: Broker) -> Group:
        names = {word: f"{name}-{word}" for word in ("in", "out", "dead", "scores", "id")} | {"group": name}
        settings = worker_settings(broker.servers, self._bundle, names, rejects__max_ratio=0.9)
        return Group(name, broker, settings, self._packets())

    def _packets(self, malformed: float = 0.0) -> Iterator[bytes | None]:
        made = changed(make_packets(self._made, 1_000_000, malformed))
        return (each.content for each in made)

    def _by_score(self) -> list[bytes]:
        """Packets in order of their score."""
        model = Model(bundle=self._bundle, device="cpu")
        opened = open_bundle(model)
        pipeline = make_pipeline(make_scorer(opened, model), {"main": Filter(0.5, None)}, Limits(), 32)
        packets = [Packet(Origin("in", str(number)), each.content) for number, each in enumerate(self._made)]
        drb = [outcome.drb for batch in pipeline.run([packets]) for outcome in batch.outcomes]
        return [packets[number].content for number in np.argsort(drb)]

    def _rules(self) -> list[Path]:
        """The rules as installed, but for how long a minute is; and a site's for each group."""
        of_sites = []
        for name, group in self.groups.items():
            (found,) = site(CLOCK)["groups"]
            for rule in found["rules"]:
                rule["expr"] = rule["expr"].replace(f'"{GROUP}"', f'"{name}"').replace(TOPICS, group.topic("in"))
                rule["expr"] = rule["expr"].replace(OVERDUE, SHORT).replace(f'"{SITES}"', f'"{CLUSTER}"')
                rule["labels"] = {"cluster": CLUSTER, "group": name}
                if rule["record"] == "rbstream:observing":
                    rule["expr"] = OBSERVING
            of_sites.append(found | {"name": name})
        written = {"rules.yaml": rules(CLOCK), "site.yaml": {"groups": of_sites}}
        for name, content in written.items():
            (self._folder / name).write_text(yaml.safe_dump(content))
        return [self._folder / name for name in written]

    def _run(self, target: Callable[[], None]) -> None:
        self._threads.append(threading.Thread(target=target, daemon=True))
        self._threads[-1].start()

    def _publish(self) -> None:
        """To every group at its pace, until all is over."""
        producers = {
            broker.servers: Producer({"bootstrap.servers": broker.servers, "log_level": 0})
            for broker in (self.broker, self.other)
        }
        while not self._over.wait(0.1):
            for group in self.groups.values():
                producer = producers[group.broker.servers]
                due = group.pace and int((time.time() - self.began) * group.pace) - group.sent
                for _ in range(due if 0 < due < 100 else 0):
                    stamp = int((time.time() - group.age) * 1000)
                    producer.produce(group.topic("in"), next(group.contents), partition=0, timestamp=stamp)
                    group.sent += 1
            for producer in producers.values():
                producer.poll(0)

    def _start_again(self) -> None:
        """As Kubernetes does, which waits ever longer between starts: here always so long that it is missed."""
        halting = self.groups["halting"]
        while not self._over.is_set():
            assert halting.worker is not None
            if not halting.worker.running and not self._over.wait(10):
                assert halting.worker.status == 3, halting.worker.text()
                halting.start(self._folder)
            self._over.wait(0.2)

    @staticmethod
    def _wait_until(when: float) -> None:
        wait_until(lambda: time.time() > when, "time passes", LASTS + PATIENCE, pause=0.5)


@pytest.fixture(scope="module")
def night(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    other = Broker()
    other.start()
    night = Night(broker, other, SHIPPED, tmp_path_factory.mktemp("incidents"))
    try:
        night.start()
        night.happen()
        yield night
    finally:
        night.close()
        other.close()


@pytest.mark.parametrize("name", EXPECTED)
def test_an_incident_fires_what_it_should_and_nothing_else(night: Night, name: str) -> None:
    assert night.fired(name) == EXPECTED[name]


PANELS = {f"{page.name}: {panel.title}": panel for page in DASHBOARDS for panel in page.panels}
# No GPU is here: their queries are tried on recorded series, in tests/deploy/rules.test.yaml.
GPU = {"Worker: GPU memory", "Worker: GPU in use"}
# With nothing but zeros in one of their queries, as nothing of the kind happens.
QUIET = {"Model: Not upstream's score"}


@pytest.mark.parametrize("name", [name for name in PANELS if name not in GPU])
def test_every_query_of_a_panel_returns_data(night: Night, name: str) -> None:
    panel: Panel = PANELS[name]
    for query in panel.queries:
        found = night.prometheus.history(filled_in(query.expression), night.began, time.time())
        values = {value for _, points in found for _, value in points if value == value}
        assert values, query.expression
        assert values != {0.0} or name in QUIET, query.expression


def test_the_dashboards_can_be_drawn(night: Night, tmp_path: Path) -> None:
    folder = Path(os.environ.get("RBSTREAM_TEST_PICTURES", tmp_path))
    empty = []
    for page in DASHBOARDS:
        name = page.name.lower()
        asked = load(DEPLOY / f"grafana/{name}.json"), night.prometheus.history, night.began, time.time()
        empty += [f"{page.name}: {title}" for title in draw(*asked, tmp_path / f"{name}.png")]
        # As many as a reader can tell apart: one that is well beside some that aren't.
        draw(*asked, folder / f"{name}.png", "well|slow|rejecting|drifting")
    assert set(empty) == GPU
