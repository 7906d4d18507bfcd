"""The worker on a real broker: what comes in goes out once, and what it can't do it says."""

import gzip
import io
import itertools
import signal
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fastavro
import numpy as np
import pytest
import torch
from astropy.io import fits
from broker import Broker, free_port
from cluster import headers
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from stage import PATIENCE, Stage, offsets, record
from tiny import write_tiny
from torch import nn
from waiting import wait_until

from rbstream.model.network import L2Image, RealBogus
from rbstream.packet.container import read_blocks, read_header
from rbstream.settings import Limits


@pytest.fixture
def stage(
    broker: Broker, bundle: Path, tmp_path: Path, fresh: Callable[[str], str], request: pytest.FixtureRequest
) -> Iterator[Stage]:
    """Topics of this test's own. Its parameter: how many partitions."""
    made = Stage(broker, bundle, tmp_path, fresh("worker"), partitions=getattr(request, "param", 1))
    yield made
    made.close()


def test_an_alert_goes_out_scored_once_with_its_time_its_headers_and_its_object_as_key(
    stage: Stage, packets: list[bytes]
) -> None:
    sent_at = int(time.time() * 1000) - 3_600_000
    stage.publish(packets[:10], timestamp=sent_at, headers=[("survey", b"ztf")])
    worker = stage.start()
    scores = stage.await_scores(10)
    assert worker.stop() == 0
    assert [score["offset"] for score in scores] == list(range(10))
    sent = {record["candid"]: record for record in map(record, stage.read("out"))}
    for message in stage.read("out"):
        alert = record(message)
        assert message.key() == alert["objectId"].encode()
        assert message.timestamp()[1] == sent_at
        assert headers(message)["survey"] == "ztf"
        assert headers(message)["rbstream.source.topic"] == stage.topic("in")
    assert {score["candid"]: score["drb"] for score in scores} == {
        candid: pytest.approx(alert["candidate"]["drb"], abs=1e-7) for candid, alert in sent.items()
    }
    assert stage.read("dead") == []
    assert stage.lag() == {}


def test_what_cannot_be_scored_is_a_dead_letter_as_it_came(stage: Stage, packets: list[bytes]) -> None:
    bad = [b"", b"not Avro", packets[0][:-20], None]
    stage.publish([packets[1], *bad, packets[2]])
    stage.start(rejects__in_a_row=50)
    scores = stage.await_scores(6)
    assert [score["verdict"] for score in scores] == ["passed", *["rejected"] * 4, "passed"]
    assert [score["reason"] for score in scores[1:5]] == ["empty", "not_avro", "truncated", "empty"]
    letters = sorted(stage.read("dead"), key=lambda letter: int(headers(letter)["rbstream.source.offset"]))
    assert [letter.value() for letter in letters] == [b"", b"not Avro", packets[0][:-20], b""]
    assert [letter.key() for letter in letters] == [b"key-%d" % number for number in range(1, 5)]
    assert offsets(stage.read("out")) == [0, 5]


def test_a_message_of_several_records_goes_out_as_one_message_an_alert(stage: Stage, night: Path) -> None:
    content = night.read_bytes()
    header = read_header(content, Limits())
    *_, last = itertools.islice(read_blocks(content, header.length, header, Limits()), 9)
    stage.publish([content[: last.behind]])
    stage.start(batch__max_alerts=4)
    scores = stage.await_scores(9)
    assert [score["record"] for score in scores] == list(range(9))
    out = stage.read("out")
    assert sorted(int(headers(message)["rbstream.source.record"]) for message in out) == list(range(9))
    assert {record(message)["candid"] for message in out} == {score["candid"] for score in scores}


def test_confluent_framed_packets_are_scored_with_schemas_from_a_folder(stage: Stage, packets: list[bytes]) -> None:
    header = read_header(packets[0], Limits())
    schemas = stage.folder / "schemas"
    schemas.mkdir()
    (schemas / "7.avsc").write_bytes(header.schema)
    (block,) = read_blocks(packets[0], header.length, header, Limits())
    framed = block.data[block.start : block.end]
    stage.publish([struct.pack(">xI", 7) + framed, struct.pack(">xI", 8) + framed, packets[0]])
    stage.start(source__schemas=schemas)
    scores = stage.await_scores(3)
    assert [score["reason"] for score in scores] == [None, "schema_id", None]
    framed_out, out = map(record, stage.read("out"))
    drb = framed_out["candidate"].pop("drb")
    assert drb == pytest.approx(out["candidate"].pop("drb"), abs=1e-6)  # another place in the batch, another last digit
    assert framed_out == out


def test_routes_have_filters_of_their_own_and_an_alert_counts_once(stage: Stage, packets: list[bytes]) -> None:
    stage.out.create(stage.topic("bright"), stage.topic("nothing"))
    stage.publish(packets[:40])
    routes = {
        "routes__bright__topic": stage.topic("bright"), "routes__bright__where": "magpsf < 19",
        "routes__nothing__topic": stage.topic("nothing"), "routes__nothing__where": "magpsf < 0",
    }  # fmt: skip
    worker = stage.start(filter__where="magpsf > 30", **routes)
    scores = stage.await_scores(40)
    bright = {record(packet)["candid"] for packet in stage.read("bright")}
    assert bright == {score["candid"] for score in scores if score["verdict"] == "passed"}
    assert 0 < len(bright) < 40
    assert {score["reason"] for score in scores if score["verdict"] == "filtered"} == {"where"}
    assert stage.read("out") == stage.read("nothing") == []
    assert (
        f'rbstream_messages_total{{route="bright",topic="{stage.topic("bright")}"}} {len(bright)}.0'
        in (worker.get("/metrics")[1])
    )


def test_an_output_that_is_larger_than_its_topic_takes_is_rejected(stage: Stage, packets: list[bytes]) -> None:
    sizes = sorted(len(packet) for packet in packets)
    limit = sizes[len(sizes) // 2] + 700
    stage.out.create(stage.topic("narrow"), **{"max.message.bytes": limit})
    stage.publish(packets)
    stage.start(sink__topic=stage.topic("narrow"), rejects__max_ratio=1, rejects__in_a_row=1000)
    scores = stage.await_scores(len(packets))
    reasons = [score["reason"] for score in scores]
    assert set(reasons) == {None, "too_large"}
    assert len(stage.read("dead")) == reasons.count("too_large")
    assert len(stage.read("narrow")) == reasons.count(None)
    stage.close()


def test_a_new_topic_that_matches_is_found_and_read_from_its_beginning(stage: Stage, packets: list[bytes]) -> None:
    pattern = f"^{stage.word}_[0-9]+_programid1$"
    stage.start(source__topics=[pattern], ready=False).await_log("ready to read")
    tonight = f"{stage.word}_20261122_programid1"
    stage.broker.create(tonight, f"{stage.word}_20261122_programid2", partitions=2)
    stage.publish(packets[:5], tonight)
    assert {score["topic"] for score in stage.await_scores(5)} == {tonight}


@pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
def test_behind_a_transactions_marker_the_lag_is_0(stage: Stage, packets: list[bytes], delivery: str) -> None:
    producer = Producer({"bootstrap.servers": stage.broker.servers, "transactional.id": stage.topic("chain")})
    producer.init_transactions(30)
    producer.begin_transaction()
    for packet in packets[:3]:
        producer.produce(stage.topic("in"), packet)
    producer.commit_transaction(30)
    producer.begin_transaction()
    producer.produce(stage.topic("in"), packets[3])
    producer.flush(30)
    producer.abort_transaction(30)
    stage.start(delivery=delivery)
    assert len(stage.await_scores(3)) == 3
    end = stage.broker.ends(stage.topic("in"))
    assert set(end.values()) == {6}
    wait_until(lambda: stage.lag() == {}, "lag 0 behind the markers", PATIENCE)


def test_a_committed_offset_that_was_deleted_halts_with_status_3_and_the_number_lost(
    stage: Stage, packets: list[bytes]
) -> None:
    stage.publish(packets[:8])
    topic = stage.topic("in")
    consumer = Consumer({"bootstrap.servers": stage.broker.servers, "group.id": stage.topic("group")})
    consumer.commit(offsets=[TopicPartition(topic, 0, 2)], asynchronous=False)
    consumer.close()
    admin = AdminClient({"bootstrap.servers": stage.broker.servers})
    for future in admin.delete_records([TopicPartition(topic, 0, 5)]).values():
        future.result()
    worker = stage.start(ready=False)
    assert worker.wait(PATIENCE) == 3
    assert "3 alerts were deleted before they were read" in worker.text()
    assert "Traceback" not in worker.text()
    assert stage.broker.committed(stage.topic("group"), topic)[topic, 0].offset == 2
    assert stage.scores() == []


def test_too_many_rejections_halt_at_the_same_place_until_they_are_accepted(stage: Stage, packets: list[bytes]) -> None:
    stage.publish([*packets[:5], *[b"bad"] * 12, *packets[5:10]])
    limits = {"rejects__in_a_row": 10, "batch__max_alerts": 4}
    committed = None
    for _ in range(2):
        worker = stage.start(ready=False, **limits)
        assert worker.wait(PATIENCE) == 3
        assert "10 alerts in a row" in worker.text()
        assert "Traceback" not in worker.text()
        offset = stage.broker.committed(stage.topic("group"), stage.topic("in"))[stage.topic("in"), 0].offset
        assert offset <= 14
        assert committed in (None, offset)
        committed = offset
        assert len(stage.scores()) == offset
    stage.start("--accept-rejects", 12, **limits)
    assert [score["verdict"] for score in stage.await_scores(22)].count("rejected") == 12


def test_a_second_signal_ends_a_worker_at_once_with_status_1(stage: Stage, packets: list[bytes]) -> None:
    worker = stage.start()
    worker.send(signal.SIGSTOP)  # both are there before it can finish
    worker.send(signal.SIGTERM)
    worker.send(signal.SIGINT)
    worker.send(signal.SIGCONT)
    assert worker.wait(PATIENCE) == 1
    assert "stopped at once" in worker.text()


def test_what_is_not_done_in_the_time_to_drain_is_read_again_and_said_so_with_status_1(
    stage: Stage, packets: list[bytes]
) -> None:
    header = read_header(packets[0], Limits())
    (block,) = read_blocks(packets[0], header.length, header, Limits())
    framed = struct.pack(">xI", 7) + block.data[block.start : block.end]
    stage.publish([packets[0], framed])
    # A registry that is away holds scoring up for some seconds.
    away = {"source__schema_registry": f"http://127.0.0.1:{free_port()}", "shutdown__drain": "1s"}
    worker = stage.start(**away, batch__max_alerts=1, batch__max_delay="10ms")
    worker.await_log("scoring failed; once more", PATIENCE)
    assert worker.stop() == 1
    assert "not done in 1 s; what is not committed will be read again" in worker.text()
    assert "Traceback" not in worker.text()
    schemas = stage.folder / "schemas"
    schemas.mkdir()
    (schemas / "7.avsc").write_bytes(header.schema)
    stage.start(source__schemas=schemas)
    assert [score["verdict"] for score in stage.await_scores(2)] == ["passed"] * 2


class Hangs(nn.Module):
    """A network that never answers for a batch whose first science stamp is empty, and its template is not."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.AvgPool2d(7), nn.Flatten(), nn.Linear(243, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        while bool((x[0, 0].abs().sum() == 0) & (x[0, 1].abs().sum() > 0)):
            x = x * 0.5 + x * 0.5  # a loop without any effect would be optimised away
        return self.network(x)


def test_scoring_that_never_ends_is_told_of_and_ends_the_worker_with_status_1(
    stage: Stage, packets: list[bytes]
) -> None:
    (alert,) = fastavro.reader(io.BytesIO(packets[1]))
    empty = io.BytesIO()
    fits.PrimaryHDU(np.zeros((63, 63), np.float32)).writeto(empty)
    alert["cutoutScience"]["stampData"] = gzip.compress(empty.getvalue())
    hanging = io.BytesIO()
    fastavro.writer(hanging, fastavro.reader(io.BytesIO(packets[1])).writer_schema, [alert])
    stage.publish([packets[0]])
    bundle = write_tiny(stage.folder / "hangs.pt", RealBogus(L2Image(), Hangs()))
    worker = stage.start(model__bundle=bundle, health__stuck_after="10s", sink__max_outage="1s")
    stage.await_scores(1)
    stage.publish([hanging.getvalue()])
    worker.await_log("the loop made no progress", PATIENCE)
    assert worker.wait(PATIENCE) == 1
    assert [score["offset"] for score in stage.scores()] == [0]
    assert stage.lag() == {(stage.topic("in"), 0): 1}


def test_a_worker_whose_transactional_id_is_taken_exits_with_status_1(stage: Stage, packets: list[bytes]) -> None:
    first = stage.start(name="first")
    stage.publish(packets[:2])
    stage.await_scores(2)
    stage.start(name="second")
    stage.publish(packets[2:20])
    assert first.wait(PATIENCE) == 1
    assert "Traceback" not in first.text()
    assert len(stage.await_scores(20)) == 20


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_killed_static_member_comes_back_under_its_name(stage: Stage, packets: list[bytes], protocol: str) -> None:
    static = {"source__instance_id": "rbstream-0", "source__group_protocol": protocol}
    first = stage.start(**static)
    stage.publish(packets[:5])
    stage.await_scores(5)
    first.kill()
    stage.publish(packets[5:10])
    second = stage.start(**static, name="second")
    assert [score["offset"] for score in stage.await_scores(10)] == list(range(10))
    assert second.stop() == 0
    assert "Traceback" not in second.text()


def test_between_two_clusters_nothing_is_lost(
    broker: Broker, bundle: Path, tmp_path: Path, packets: list[bytes], fresh: Callable[[str], str]
) -> None:
    sink = Broker()
    stage: Stage | None = None
    try:
        stage = Stage(broker, bundle, tmp_path, fresh("between"), sink=sink.start())
        first = stage.start(delivery="at-least-once")
        stage.publish(packets[:20])
        wait_until(lambda: stage is not None and stage.scores(), "a first score", PATIENCE)
        first.kill()
        stage.publish(packets[20:30])
        second = stage.start(delivery="at-least-once", name="second")
        wait_until(lambda: stage is not None and stage.lag() == {}, "lag 0", PATIENCE)
        assert second.stop() == 0
        assert {score["offset"] for score in stage.scores()} == set(range(30))
        assert set(offsets(stage.read("out"))) == set(range(30))
    finally:
        if stage is not None:
            stage.close()
        sink.close()


def test_kafka_away_and_back_loses_and_doubles_nothing(
    kafka: None, bundle: Path, tmp_path: Path, packets: list[bytes], fresh: Callable[[str], str]
) -> None:
    broker = Broker()
    stage: Stage | None = None
    try:
        stage = Stage(broker.start(), bundle, tmp_path, fresh("outage"))
        worker = stage.start()
        stage.publish(packets[:10])
        stage.await_scores(10)
        broker.kill()
        worker.await_log("brokers are down", PATIENCE)
        broker.start()
        stage.publish(packets[10:20])
        assert [score["offset"] for score in stage.await_scores(20)] == list(range(20))
        assert worker.stop() == 0
    finally:
        if stage is not None:
            stage.close()
        broker.close()
