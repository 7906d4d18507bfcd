"""What a worker can't work with: said clearly, with the documented status, no traceback and no busy loop."""

import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from broker import Broker, free_port
from confluent_kafka import Message
from stage import PATIENCE, Stage
from waiting import wait_until
from worker import Worker, worker_settings

NAMES = {name: name for name in ("in", "out", "dead", "scores", "group", "id")}
# A worker's start, torch's import and its model's check included, takes some 4 s; waiting must cost next to nothing.
MOST_CPU_SECONDS = 15.0


@pytest.fixture(scope="module")
def topics(broker: Broker) -> dict[str, str]:
    broker.create(*(f"refused-{name}" for name in ("in", "out", "dead", "scores")))
    broker.create("refused-narrow", max_message_bytes=10_000)
    return {name: f"refused-{name}" for name in NAMES}


def refused(worker: Worker, seconds: float = PATIENCE) -> tuple[int, str]:
    """Status and text of a worker that ends by itself."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    status = worker.wait(seconds)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    text = worker.text()
    assert "Traceback" not in text
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < MOST_CPU_SECONDS
    return status, text


CASES: list[tuple[str, dict[str, Any], int, list[str]]] = [
    ("no broker", {"source.bootstrap_servers": "127.0.0.1:1"}, 1, ["no broker answers at 127.0.0.1:1", "refused"]),
    ("no such host", {"source.bootstrap_servers": "nohost.invalid:9092"}, 1, ["nohost.invalid", "resolve"]),
    ("no source topic", {"source.topics": ["nothere"]}, 1, ["source", "no topic nothere", "--create"]),
    ("no sink topic", {"sink.topic": "nothere"}, 1, ["sink", "no topic nothere", "--create"]),
    ("no dead letters", {"sink.dead_letters": "nothere"}, 1, ["no topic nothere"]),
    ("narrow topic", {"sink.topic": "refused-narrow"}, 1, ["refused-narrow", "10000", "max.message.bytes"]),
    ("no bundle", {"model.bundle": "/nowhere/x.pt"}, 1, ["/nowhere/x.pt"]),
    ("no TorchScript", {"model.bundle": "/etc/passwd"}, 1, ["/etc/passwd", "TorchScript"]),
    ("other bundle", {"model.sha256": "0" * 64}, 1, ["SHA-256"]),
    ("no such field", {"filter.where": "nofield < 3"}, 2, ["nofield"]),
    ("no such device", {"model.device": "cuda"}, 1, ["cuda"]),
    ("no such property", {"sink.properties.no.such": "1"}, 2, ["no.such"]),
    ("breaks a promise", {"source.properties.enable.auto.commit": "true"}, 2, ["enable.auto.commit"]),
    ("no topics", {"source.topics": []}, 2, ["source.topics", "RBSTREAM_SOURCE__TOPICS"]),
]


@pytest.fixture(scope="module")
def other(kafka: None) -> Iterator[Broker]:
    """A second cluster that lets in who knows a password."""
    broker = Broker(users={"rbstream": "secret"})
    try:
        yield broker.start()
    finally:
        broker.close()


@pytest.mark.parametrize(("changes", "status", "words"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_cannot_be_used_is_named_and_ends_the_worker(
    broker: Broker, topics: dict[str, str], bundle: Path, tmp_path: Path,
    changes: dict[str, Any], status: int, words: list[str],
) -> None:  # fmt: skip
    worker = Worker(tmp_path, worker_settings(broker.servers, bundle, topics) | changes)
    got, text = refused(worker)
    assert got == status, text
    assert all(word in text for word in words), text


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
def test_a_wrong_password_is_said_and_never_shown(
    other: Broker, topics: dict[str, str], bundle: Path, tmp_path: Path, mechanism: str
) -> None:
    login = {
        "source.properties.security.protocol": "SASL_PLAINTEXT", "source.properties.sasl.mechanism": mechanism,
        "source.properties.sasl.username": "rbstream", "source.properties.sasl.password": "hunter2-wrong",
    }  # fmt: skip
    status, text = refused(Worker(tmp_path, worker_settings(other.sasl_servers, bundle, topics) | login))
    assert status == 1
    assert "does not let us in" in text
    assert "hunter2" not in text


def test_the_right_password_from_a_secret_file_lets_it_in(
    other: Broker, topics: dict[str, str], bundle: Path, tmp_path: Path
) -> None:
    other.create("refused-in", "refused-out", "refused-dead", "refused-scores")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/source.properties.sasl.password").write_text("secret\n")
    login = {
        "source.properties.security.protocol": "SASL_PLAINTEXT", "source.properties.sasl.mechanism": "SCRAM-SHA-256",
        "source.properties.sasl.username": "rbstream",
    }  # fmt: skip
    settings = worker_settings(other.sasl_servers, bundle, topics) | login
    worker = Worker(tmp_path, settings, "--secrets", tmp_path / "secrets")
    worker.await_ready(PATIENCE)
    assert worker.stop() == 0


def test_a_taken_port_is_said(broker: Broker, topics: dict[str, str], bundle: Path, tmp_path: Path) -> None:
    port = int(broker.servers.rpartition(":")[2])
    worker = Worker(tmp_path, worker_settings(broker.servers, bundle, topics) | {"metrics.port": port})
    status, text = refused(worker)
    assert (status, str(port) in text) == (2, True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_broker_whose_disk_is_full_ends_the_worker_and_nothing_is_lost_when_there_is_room_again(
    kafka: None, bundle: Path, tmp_path: Path, packets: list[bytes], small_disk: Path, fresh: Callable[[str], str]
) -> None:
    sizes = {"log.segment.bytes": 1 << 20, "log.index.size.max.bytes": 4096, "offsets.topic.segment.bytes": 1 << 20,
             "transaction.state.log.segment.bytes": 1 << 20, "log.preallocate": "false"}  # fmt: skip
    broker = Broker(properties=sizes, log_dir=small_disk / "data")
    stage: Stage | None = None
    try:
        stage = Stage(broker.start(), bundle, tmp_path, fresh("full"))
        stage.publish(packets[:40])
        filler = small_disk / "filler"
        worker = stage.start(sink__max_outage="20s")
        stage.await_scores(1)
        fill(filler)
        with pytest.raises(Exception):  # noqa: B017, PT011 - whichever way the broker goes down first
            stage.publish(packets[40:], seconds=10)
        # It halts where a write finds no room. Where that is a page of a mapped index, it can live on by halves.
        broker.await_death(10)
        status, text = refused(worker)
        assert status == 1, text
        assert "Kafka" in text

        filler.unlink()
        broker.start()
        stage.start()
        stage.publish(packets[40:50])
        there = offsets_of(stage.read("in"))
        stage.await_scores(len(there))
        assert [score["offset"] for score in stage.scores()] == there
    finally:
        if stage is not None:
            stage.close()
        broker.close()


def test_a_frozen_broker_ends_the_worker_that_waits_for_alerts_when_it_was_away_for_too_long(
    kafka: None, bundle: Path, tmp_path: Path, fresh: Callable[[str], str]
) -> None:
    broker = Broker()
    stage: Stage | None = None
    try:
        stage = Stage(broker.start(), bundle, tmp_path, fresh("frozen"))
        worker = stage.start(sink__max_outage="20s")
        broker.send(signal.SIGSTOP)
        # Its connections live on, so that nothing fails before its requests have timed out, which takes 60 s.
        status, text = refused(worker, 55)
        assert status == 1, text
        assert "no broker has answered" in text
    finally:
        if stage is not None:
            stage.close()
        broker.close()


def fill(path: Path) -> None:
    """Take what is left of a disk."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 16))


def offsets_of(messages: list[Message]) -> list[int]:
    return sorted(message.offset() or 0 for message in messages)


def test_a_port_that_answers_but_is_no_kafka_is_no_broker(topics: dict[str, str], bundle: Path, tmp_path: Path) -> None:
    port = free_port()
    server = subprocess.Popen(["python3", "-m", "http.server", str(port), "--bind", "127.0.0.1"], cwd=tmp_path,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        wait_until(lambda: subprocess.run(["bash", "-c", f"</dev/tcp/127.0.0.1/{port}"]).returncode == 0, "a server")
        status, text = refused(Worker(tmp_path, worker_settings(f"127.0.0.1:{port}", bundle, topics)))
        assert status == 1
        assert "no broker answers" in text
    finally:
        server.kill()
        server.wait()
