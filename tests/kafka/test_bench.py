"""`rbstream bench kafka`: a tiny run, and what it leaves behind."""

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from broker import Broker
from confluent_kafka import KafkaException
from tiny import RBSTREAM, environment, rbstream
from waiting import wait_until

ROOT = Path(__file__).parents[2]
TINY = ("--alerts", 300, "--rate", 50, "--warm-up", 1, "--seconds", 2, "--soak", 400, "--device", "cpu")


def ours(broker: Broker) -> list[str]:
    """The bench's topics on the broker."""
    return [topic for topic in broker.admin.list_topics(timeout=10).topics if topic.startswith("rbstream-bench-")]


def under_way(broker: Broker) -> bool:
    """Whether messages have been published to one of them."""
    try:
        return any(end for topic in ours(broker) for end in broker.ends(topic).values())
    except KafkaException:  # just made, or just removed
        return False


@pytest.fixture(scope="module")
def result(broker: Broker, night: Path, bundle: Path) -> dict[str, Any]:
    """What a tiny run says as JSON."""
    done = rbstream(
        "bench", "kafka", night, "--bootstrap-servers", broker.servers, "--model", bundle, *TINY, "--json", timeout=400
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_its_keys_are_the_documented_ones(result: dict[str, Any]) -> None:
    pace = {"alerts", "alerts_per_second", "cpu_seconds"}
    soak = {"alerts", "first_bytes", "last_bytes", "max_bytes", "growth_bytes_per_100000", "samples"}
    assert set(result["pipeline"]) == {"alerts_per_second", "cpu_seconds"}
    assert set(result["copy"]) == pace
    assert set(result["exactly-once"]) == set(result["at-least-once"]) == pace | {"ratio", "latency"}
    assert set(result["exactly-once"]["latency"]) == {"rate", "alerts", "p50", "p99", "max"}
    assert set(result["soak"]) == soak
    text = (ROOT / "docs" / "bench.md").read_text(encoding="utf-8")
    assert result["two-clusters"] is None
    keys = {*result, *result["copy"], *result["exactly-once"], *result["exactly-once"]["latency"], *result["soak"]}
    assert [key for key in keys if f"`{key}`" not in text] == []


def test_between_two_clusters_it_is_beside_a_worker_within_one(
    broker: Broker, sink: Broker, night: Path, bundle: Path
) -> None:
    done = rbstream(
        "bench", "kafka", night, "--bootstrap-servers", broker.servers, "--sink-bootstrap-servers", sink.servers,
        "--model", bundle, *TINY, "--seconds", 0, "--soak", 0, "--json", timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    two = json.loads(done.stdout)["two-clusters"]
    assert set(two) == {"alerts", "alerts_per_second", "cpu_seconds", "side_by_side", "ratio"}
    assert two["alerts"] >= 300
    assert two["ratio"] == pytest.approx(two["side_by_side"]["two"] / two["side_by_side"]["one"], abs=1e-4)
    assert not ours(broker)
    assert not ours(sink)


def test_the_ratios_are_those_of_their_parts(result: dict[str, Any]) -> None:
    floor = result["pipeline"]["cpu_seconds"] + result["copy"]["cpu_seconds"]
    assert result["floor_cpu_seconds"] == pytest.approx(floor, abs=2e-9)
    for delivery in ("exactly-once", "at-least-once"):
        worker = result[delivery]
        assert worker["ratio"] == pytest.approx(worker["cpu_seconds"] / floor, abs=1e-4)
        assert worker["cpu_seconds"] > 0
        assert worker["alerts_per_second"] > 0


def test_at_least_as_many_alerts_were_measured_as_asked_for(result: dict[str, Any]) -> None:
    assert all(result[step]["alerts"] >= 300 for step in ("copy", "exactly-once", "at-least-once"))
    assert result["soak"]["alerts"] >= 400
    assert result["packets"] == 60
    assert result["packet_bytes"] > 50_000


def test_latencies_are_in_order(result: dict[str, Any]) -> None:
    for delivery in ("exactly-once", "at-least-once"):
        latency = result[delivery]["latency"]
        assert latency["rate"] == 50
        assert latency["alerts"] > 0
        assert 0 < latency["p50"] <= latency["p99"] <= latency["max"]


def test_the_soak_tells_of_its_samples(result: dict[str, Any]) -> None:
    soak = result["soak"]
    counts, sizes = zip(*soak["samples"], strict=True)
    assert len(counts) == 20
    assert list(counts) == sorted(counts)
    assert (soak["first_bytes"], soak["last_bytes"]) == (sizes[1], sizes[-1])
    assert soak["max_bytes"] == max(sizes[1:])
    assert isinstance(soak["growth_bytes_per_100000"], int)


def test_nothing_stays_on_the_broker(result: dict[str, Any], broker: Broker) -> None:
    wait_until(lambda: not ours(broker), "the bench's topics gone")
    groups = broker.admin.list_consumer_groups().result(30).valid
    assert [group.group_id for group in groups if group.group_id.startswith("rbstream-bench-")] == []


def test_a_table_for_a_person_and_what_is_left_out_is_not_in_it(broker: Broker, night: Path, bundle: Path) -> None:
    done = rbstream(
        "bench", "kafka", night, "--bootstrap-servers", broker.servers, "--model", bundle, "--device", "cpu",
        "--alerts", 100, "--seconds", 0, "--soak", 0, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = done.stdout.splitlines()
    assert [line.split()[0] for line in table[1:5]] == ["pipeline", "copy", "exactly-once", "at-least-once"]
    assert "memory" not in done.stdout


def test_ctrl_c_in_the_middle_leaves_nothing(broker: Broker, night: Path, bundle: Path) -> None:
    process = subprocess.Popen(
        [*RBSTREAM, "bench", "kafka", night, "--bootstrap-servers", broker.servers, "--model", bundle, *map(str, TINY)],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_until(lambda: under_way(broker), "a step began")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    wait_until(lambda: not ours(broker), "the bench's topics gone")


def test_without_a_broker_it_says_so(bundle: Path) -> None:
    done = rbstream("bench", "kafka", "--bootstrap-servers", "127.0.0.1:9", "--model", bundle)
    assert done.returncode == 1
    assert "no broker answers at 127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_makes_no_sense_is_refused() -> None:
    assert rbstream("bench", "kafka").returncode == 2
    done = rbstream("bench", "kafka", "--bootstrap-servers", "127.0.0.1:9", "--rate", "0")
    assert done.returncode == 2
    assert "--rate" in done.stderr


def test_a_file_called_kafka_is_benched_by_its_path(tmp_path: Path, night: Path, bundle: Path) -> None:
    (tmp_path / "kafka").write_bytes(night.read_bytes())
    done = rbstream("bench", "./kafka", "--model", bundle, "--device", "cpu", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["alerts"] == 60
