"""`rbstream publish` on a real broker: what goes in comes out, an alert a message, at the pace asked for."""

import gzip
import io
import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import fastavro
import pytest
from broker import Broker
from tiny import RBSTREAM, environment, rbstream, write_tar
from waiting import wait_until

from rbstream.kafka.publish import Letter, Pace, Request, feeding_config
from rbstream.settings import Settings, Sink, Source

Fresh = Callable[[str], str]
OTHER_SURVEY = {"type": "record", "name": "rubin.alert", "fields": [{"name": "diaSourceId", "type": "long"}]}


def publish(broker: Broker, topic: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    return rbstream("publish", *arguments, "--topic", topic, "--bootstrap-servers", broker.servers)


@pytest.fixture
def topic(broker: Broker, fresh: Fresh) -> str:
    name = fresh("published")
    broker.create(name, partitions=3)
    return name


def values(broker: Broker, topic: str) -> list[bytes]:
    return [message.value() or b"" for message in broker.read(topic)]


def records(content: bytes) -> list[Any]:
    return list(fastavro.reader(io.BytesIO(content)))


def is_cut_short(content: bytes) -> bool:
    try:
        records(content)
    except EOFError:
        return True
    return False


@pytest.fixture
def with_jd(tmp_path: Path, packets: list[bytes]) -> Callable[[list[float]], Path]:
    """A night of alerts that were observed at these times [days]."""

    def make(times: list[float]) -> Path:
        schema = fastavro.reader(io.BytesIO(packets[0])).writer_schema
        alerts = [records(packet)[0] for packet in packets[: len(times)]]
        for alert, jd in zip(alerts, times, strict=True):
            alert["candidate"]["jd"] = jd
        path = tmp_path / "timed.avro"
        with path.open("wb") as file:
            fastavro.writer(file, schema, alerts)
        return path

    return make


def test_a_night_goes_out_an_alert_a_message_by_object(broker: Broker, topic: str, night: Path) -> None:
    begun = time.time() * 1000
    done = publish(broker, topic, night)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"60 of 60 messages delivered to {topic}")
    messages = broker.read_all(topic)
    alerts = [records(message.value()) for message in messages]
    assert [len(alert) for alert in alerts] == [1] * 60
    assert sorted((alert for (alert,) in alerts), key=lambda alert: alert["candid"]) == sorted(
        records(night.read_bytes()), key=lambda alert: alert["candid"]
    )
    assert [message.key().decode() for message in messages] == [alert["objectId"] for (alert,) in alerts]
    assert len({(message.key(), message.partition()) for message in messages}) == len({m.key() for m in messages})
    assert all(begun - 1 <= message.timestamp()[1] <= time.time() * 1000 for message in messages)


def test_packets_go_out_byte_for_byte_whatever_they_are(
    broker: Broker, topic: str, packets: list[bytes], tmp_path: Path
) -> None:
    deflated, other = io.BytesIO(), io.BytesIO()
    schema = fastavro.reader(io.BytesIO(packets[3])).writer_schema
    fastavro.writer(deflated, schema, records(packets[3]), codec="deflate")
    fastavro.writer(other, OTHER_SURVEY, [{"diaSourceId": 5}])
    contents = {
        "whole": packets[0],
        "cut short": packets[1][:-100],
        "no Avro": b'{"candid": 1}',
        "empty": b"",
        "more behind it": packets[2] + b"and more",
        "deflated": deflated.getvalue(),
        "another survey": other.getvalue(),
        "framed": b"\x00\x00\x00\x00\x05abc",
    }
    night = write_tar(tmp_path / "night.tar", [(f"{name}.avro", value) for name, value in contents.items()])
    for number, value in enumerate(contents.values()):
        (tmp_path / f"{number}.avro").write_bytes(value)
    done = publish(broker, topic, night, *(tmp_path / f"{n}.avro" for n in range(len(contents))))
    assert done.returncode == 0, done.stderr
    assert sorted(values(broker, topic)) == sorted([*contents.values()] * 2)


def test_what_is_broken_in_a_night_goes_out_beside_its_alerts(
    broker: Broker, topic: str, night: Path, tmp_path: Path
) -> None:
    content = night.read_bytes()
    for length in (len(content) - 1000, 200_000):  # large ones are cut before they are read, small ones are not
        (tmp_path / f"broken-{length}.avro").write_bytes(content[:length])
    done = publish(broker, topic, *tmp_path.glob("broken-*.avro"))
    assert done.returncode == 0, done.stderr
    read = rbstream("replay", *tmp_path.glob("broken-*.avro"), "--max-reject-ratio", 1, "--json")
    sent = tmp_path / "sent"
    sent.mkdir()
    for number, value in enumerate(values(broker, topic)):
        (sent / f"{number}.avro").write_bytes(value)
    again = rbstream("replay", sent, "--max-reject-ratio", 1, "--json")
    counts = [[json.loads(each.stdout)[name] for name in ("in", "passed", "filtered")] for each in (read, again)]
    assert counts[0] == counts[1]
    assert counts[0][0] >= 60


def test_rejects_files_go_out_as_the_packets_in_them(
    broker: Broker, topic: str, packets: list[bytes], tmp_path: Path
) -> None:
    broken = [packets[0][:-50], b"not Avro at all"]
    write_tar(tmp_path / "night.tar", [(f"{n}.avro", value) for n, value in enumerate(broken)])
    rbstream("replay", tmp_path / "night.tar", "--rejects", tmp_path / "rejects.avro", "--max-reject-ratio", 1)
    done = publish(broker, topic, tmp_path / "rejects.avro")
    assert done.returncode == 0, done.stderr
    assert sorted(values(broker, topic)) == sorted(broken)


def test_inputs_that_break_off_are_told_and_what_was_before_goes_out(
    broker: Broker, topic: str, night: Path, tmp_path: Path
) -> None:
    zipped = gzip.compress(night.read_bytes(), 1)
    (tmp_path / "cut.avro.gz").write_bytes(zipped[: len(zipped) // 2])
    done = publish(broker, topic, tmp_path / "cut.avro.gz")
    assert done.returncode == 0, done.stderr
    assert "1 inputs could not be read, and were left out" in done.stdout
    assert "cut.avro.gz" in done.stderr
    sent = values(broker, topic)
    whole = [value for value in sent if not is_cut_short(value)]
    candids = [alert["candid"] for alert in records(night.read_bytes())]
    assert len(whole) > 20
    assert {records(value)[0]["candid"] for value in whole} == set(candids[: len(whole)])
    assert len(sent) - len(whole) == 1  # the alert in which it breaks off


def test_nothing_to_publish_is_told_even_in_a_loop(broker: Broker, topic: str, tmp_path: Path) -> None:
    empty = write_tar(tmp_path / "night.tar", [])
    done = publish(broker, topic, empty, "--loop")
    assert done.returncode == 1
    assert "nothing to publish" in done.stderr


def test_a_topic_that_is_not_there_is_made_only_where_that_is_asked_for(
    broker: Broker, fresh: Fresh, night: Path
) -> None:
    topic = fresh("new")
    refused = publish(broker, topic, night)
    assert refused.returncode == 1
    assert f"no topic {topic}" in refused.stderr
    assert "--create PARTITIONS" in refused.stderr
    assert f"kafka-topics.sh --bootstrap-server {broker.servers} --create --topic {topic}" in refused.stderr
    assert publish(broker, topic, night, "--create", 2).returncode == 0
    assert publish(broker, topic, night, "--create", 5).returncode == 0
    assert broker.partitions(topic) == [0, 1]
    assert len(values(broker, topic)) == 120


def test_usage_is_refused_with_what_to_say_instead(night: Path) -> None:
    for arguments, words in [
        ((night, "--topic", "t"), "source.bootstrap_servers is not set"),
        (("-", "--topic", "t", "--loop", "--bootstrap-servers", "x"), "standard input can be read only once"),
        ((night, "--topic", "t", "--rate", "0"), "--rate"),
        ((night, "--topic", "t", "--rate", "nan"), "--rate"),
        ((night, "--topic", "t", "--rate", "5", "--realtime"), "not allowed with"),
        ((night, "--topic", "t", "--create", "0"), "--create"),
        (("nothing-here.avro", "--topic", "t"), "no such file or folder"),
        ((night,), "--topic"),
    ]:
        done = rbstream("publish", *arguments)
        assert done.returncode == 2, arguments
        assert words in done.stderr


def test_messages_that_a_topic_does_not_take_fail_the_command_and_the_others_go_out(
    broker: Broker, fresh: Fresh, packets: list[bytes], tmp_path: Path
) -> None:
    topic, limit = fresh("small"), sorted(map(len, packets))[30]
    broker.create(topic, max_message_bytes=limit)
    write_tar(tmp_path / "night.tar", [(f"{n}.avro", packet) for n, packet in enumerate(packets)])
    done = publish(broker, topic, tmp_path / "night.tar")
    sent = values(broker, topic)
    assert 0 < len(sent) < len(packets)
    assert sorted(sent) == sorted(packet for packet in packets if len(packet) <= max(map(len, sent)))
    assert done.returncode == 1
    assert f"{len(packets) - len(sent)} messages were not delivered; the first: " in done.stderr
    assert "too large" in done.stderr
    assert done.stdout.startswith(f"{len(sent)} of {len(packets)} messages delivered")


@pytest.fixture
def endless(broker: Broker, topic: str, night: Path) -> Iterator["subprocess.Popen[str]"]:
    command = [*RBSTREAM, "publish", night, "--topic", topic, "--bootstrap-servers", broker.servers, "--loop"]
    process = subprocess.Popen(
        [*map(str, command), "--rate", "300"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_loop_goes_on_until_it_is_stopped_and_then_delivers_what_is_queued(
    broker: Broker, topic: str, endless: "subprocess.Popen[str]", number: signal.Signals, status: int
) -> None:
    wait_until(lambda: sum(broker.ends(topic).values()) > 130, "the night was published twice")
    endless.send_signal(number)
    told, errors = endless.communicate(timeout=60)
    assert (endless.returncode, errors) == (status, "")
    sent = len(values(broker, topic))
    assert told.startswith(f"{sent:,} of {sent:,} messages delivered")


def test_a_broker_that_is_killed_and_comes_back_has_every_alert_once(broker: Broker, topic: str, night: Path) -> None:
    command = [*RBSTREAM, "publish", night, "--topic", topic, "--bootstrap-servers", broker.servers, "--rate", "20"]
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    wait_until(lambda: sum(broker.ends(topic).values()) > 5, "some are there")
    broker.kill()
    broker.start()
    told, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert told.startswith("60 of 60 messages delivered")
    assert sorted(records(value)[0]["candid"] for value in values(broker, topic)) == sorted(
        alert["candid"] for alert in records(night.read_bytes())
    )


def seconds(done: "subprocess.CompletedProcess[str]") -> float:
    """What the command says that it took."""
    (told,) = re.findall(r" in ([0-9.]+) s, ", done.stdout)
    return float(told)


def test_at_a_rate_no_alert_is_early(broker: Broker, topic: str, night: Path) -> None:
    assert seconds(publish(broker, topic, night, "--rate", 40)) >= 1.4  # 59 waits of 25 ms, to a tenth of a second


def test_in_realtime_no_alert_is_early(broker: Broker, topic: str, with_jd: Callable[[list[float]], Path]) -> None:
    second = 1 / 86_400
    night = with_jd([2_460_000.5, 2_460_000.5 + second, 2_460_000.5, 2_460_000.5 + 1.5 * second])
    assert seconds(publish(broker, topic, night, "--realtime")) >= 1.4


def test_a_rate_is_kept_smoothly_and_a_stall_is_not_made_up_for_in_a_burst() -> None:
    pace, now, sent = Pace(Request([], "t", rate=10)), 0.0, []
    for number in range(40):
        if number == 20:
            now += 30  # stalled
        now += max(0.0, pace.ahead(Letter(b""), now))
        sent.append(now)
        pace.sent(now)
    assert sent[:20] == pytest.approx([n / 10 for n in range(20)])
    assert [b - a for a, b in pairwise(sent[20:])] == pytest.approx([0.1] * 19)
    assert sent[20] == pytest.approx(31.9)


def test_a_short_delay_is_made_up_for_so_that_the_rate_holds() -> None:
    pace = Pace(Request([], "t", rate=10))
    pace.sent(0.0)
    pace.sent(0.6)
    assert pace.ahead(Letter(b""), 0.6) == pytest.approx(-0.4)


def test_in_realtime_alerts_are_as_far_apart_as_they_were_observed() -> None:
    pace, day = Pace(Request([], "t", realtime=True)), 86_400.0
    times = [None, 5.0, 5.5, 5.25, None, 6.0, 4.0]
    ahead = [pace.ahead(Letter(b"", jd=jd), 200.0) for jd in times]
    assert ahead == [0.0, 0.0, 0.5 * day, 0.25 * day, 0.0, day, -day]


def test_as_fast_as_kafka_takes_them_nothing_waits() -> None:
    pace = Pace(Request([], "t"))
    for _ in range(3):
        assert pace.ahead(Letter(b""), 7.0) == 0.0
        pace.sent(7.0)


def test_the_way_into_the_sources_cluster_is_the_workers_own() -> None:
    sasl = {"security.protocol": "SASL_SSL", "sasl.username": "me", "ssl.ca.location": "/ca.pem"}
    source = Source(bootstrap_servers="survey:9092", properties=sasl | {"fetch.wait.max.ms": "50"})
    one = feeding_config(Settings(source=source, sink=Sink(properties={"linger.ms": "20"})))
    two = feeding_config(
        Settings(source=source, sink=Sink(bootstrap_servers="ours:9092", properties={"linger.ms": "20"}))
    )
    for config in (one, two):
        assert config.items() >= sasl.items()
        assert config["bootstrap.servers"] == "survey:9092"
        assert (config["enable.idempotence"], config["acks"]) == (True, "all")
        assert "transactional.id" not in config
        assert "fetch.wait.max.ms" not in config
    assert one["linger.ms"] == "20"
    assert "linger.ms" not in two
