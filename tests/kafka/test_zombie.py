"""A worker that is halted inside an open transaction until others have its partitions can't commit when it goes on."""

import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from board import Board
from broker import Broker
from check import Place, differences, gather
from confluent_kafka import Producer
from fleet import LAUNCHER
from packets import Made, make_packets, templates
from waiting import wait_until
from worker import Worker, worker_settings

PACKETS = 300


# Offsets that were sent block the heir until the transaction times out: the broker then fences the zombie.
@pytest.mark.parametrize(
    ("protocol", "step", "timeout", "clusters"),
    [
        ("classic", "produced", "60000", 1),
        ("classic", "commit", "8000", 1),
        ("consumer", "produced", "60000", 1),
        ("consumer", "commit", "8000", 1),
        ("classic", "produced", "60000", 2),
        ("consumer", "commit", "8000", 2),
    ],
)
def test_a_zombie_changes_nothing(
    protocol: str,
    step: str,
    timeout: str,
    clusters: int,
    broker: Broker,
    request: pytest.FixtureRequest,
    bundle: Path,
    fresh: Callable[[str], str],
    tmp_path: Path,
    workers: list[Worker],
) -> None:
    names = {word: fresh(word) for word in ("in", "out", "dead", "scores", "group")}
    broker.create(names["in"], partitions=2)
    sink: Broker = broker if clusters == 1 else request.getfixturevalue("sink")
    sink.create(names["out"], names["dead"], names["scores"])
    prefix = f"{names['group']}.progress." if clusters == 2 else ""

    def lag() -> dict[tuple[str, int], int]:
        return broker.lag(names["group"], names["in"], kept=sink, prefix=prefix)

    # Two thirds before the worker is halted, one after: both workers have something to do.
    packets = list(make_packets(templates(tmp_path, alerts=20), PACKETS))
    published = publish(broker, names["in"], packets[: 2 * PACKETS // 3])

    def start(name: str) -> tuple[Worker, Board]:
        properties = {"sink.properties.transaction.timeout.ms": timeout, "sink.bootstrap_servers": sink.servers}
        if protocol == "classic":
            properties["source.properties.session.timeout.ms"] = "6000"
        settings = worker_settings(broker.servers, bundle, names | {"id": fresh(name)}, source__group_protocol=protocol)
        board = tmp_path / f"{name}.board"
        command = (sys.executable, LAUNCHER, board, "rbstream")
        worker = Worker(tmp_path, settings | properties, name=name, command=command)
        workers.append(worker)
        return worker, Board(board)

    zombie, board = start("zombie")
    board.order(step, signal.SIGSTOP)
    wait_until(lambda: board.obeyed and zombie.halted(), f"halted at {step}, see {zombie.log}", 60)
    assert board.held > 0
    assert board.in_transaction

    heir, _ = start("heir")
    heir.await_log("partitions assigned")
    published += publish(broker, names["in"], packets[2 * PACKETS // 3 :])
    wait_until(lambda: not lag(), f"all taken over, see {heir.log}", 90)

    before = len(zombie.text())
    zombie.send(signal.SIGCONT)
    wait_until(
        lambda: not zombie.running or "partitions assigned" in zombie.text()[before:],
        f"the zombie rejoined, or left it to its supervisor: see {zombie.log}",
        60,
    )
    assert zombie.running or zombie.status == 1
    for worker in (zombie, heir):
        if worker.running:
            assert worker.stop() == 0, worker.text()[-2000:]
    assert not lag()
    wait_until(lambda: not sink.open_transactions(), "no transaction open")
    found = differences(gather(sink, names, published, bundle, tmp_path, broker))
    assert found == {}, json.dumps({name: len(keys) for name, keys in found.items()})


def publish(broker: Broker, topic: str, packets: list[Made]) -> list[Place]:
    delivered: list[Place] = []
    producer = Producer({"bootstrap.servers": broker.servers, "enable.idempotence": True})
    for packet in packets:
        producer.produce(
            topic,
            packet.content,
            packet.key,
            on_delivery=lambda error, m: delivered.append((m.topic(), m.partition(), m.offset())),
        )
    assert producer.flush(60) == 0
    return delivered


@pytest.fixture
def workers() -> Iterator[list[Worker]]:
    """Workers that a test started; what is left of them is killed."""
    started: list[Worker] = []
    yield started
    for worker in started:
        if worker.running:
            worker.kill()
