"""Outcomes to messages: what goes out is whole, says where it came from, and never more than a topic takes."""

import io
import json
from pathlib import Path
from typing import Any

import fastavro
import pytest

from rbstream import __version__
from rbstream.errors import Rejection
from rbstream.packet.alert import Alert, Origin, Packet, Rejected
from rbstream.packet.reader import PacketReader
from rbstream.packet.survey import ZTF
from rbstream.pipeline import Outcome
from rbstream.settings import Limits
from rbstream.worker.batcher import Message
from rbstream.worker.messages import Destinations, Encoder, Outgoing, wire_bytes
from rbstream.worker.source import as_message

READER = PacketReader(ZTF, ("science", "template", "difference"), frozenset({"jd"}), Limits())
LARGE = {"out": 1 << 20, "bright": 1 << 20, "dead": 1 << 20, "scores": 1 << 20}


def encoder(scores: str | None = "scores", **limits: int) -> Encoder:
    routes = {"main": "out", "bright": "bright"}
    return Encoder(Destinations(routes, "dead", scores, LARGE | limits), "tiny1")


def message(value: bytes, key: bytes | None = b"key", headers: Any = ()) -> Message:
    return Message("ztf", 3, 42, key, value, 1_700_000_000_123, list(headers))


def items(content: bytes) -> list[Alert | Rejected]:
    return list(READER.read(Packet(Origin("ztf/3/42", "0"), content)))


def passed(content: bytes, *routes: str) -> Outcome:
    (alert,) = items(content)
    return Outcome("passed", alert, "", 0.8765432, None, routes)


def by_route(messages: list[Outgoing]) -> dict[str, Outgoing]:
    return {each.route: each for each in messages}


def record_of(value: bytes) -> dict[str, Any]:
    (record,) = fastavro.reader(io.BytesIO(value))
    return record  # type: ignore[return-value]


def test_an_annotated_alert_goes_out_under_its_object_with_where_it_came_from(packets: list[bytes]) -> None:
    outcome, messages = encoder().encode(message(packets[0]), passed(packets[0], "main"))
    out, before = by_route(messages)["main"], record_of(packets[0])
    record = record_of(out.value)
    assert out.topic == "out"
    assert out.key == before["objectId"].encode()
    assert out.timestamp == 1_700_000_000_123
    assert record["candidate"]["drbversion"] == "tiny1"
    headers = {name: (value or b"").decode() for name, value in out.headers}
    processed = headers.pop("rbstream.processed")
    assert processed.startswith("20")
    assert headers == {
        "rbstream.source.topic": "ztf",
        "rbstream.source.partition": "3",
        "rbstream.source.offset": "42",
        "rbstream.source.record": "0",
        "rbstream.source.timestamp": "1700000000123",
        "rbstream.source.key": "key",
        "rbstream.model": "tiny1",
        "rbstream.drb": "0.8765432",
    }
    assert outcome.verdict == "passed"


def test_the_inputs_headers_travel_on_but_for_those_of_another_rbstream(packets: list[bytes]) -> None:
    given = [("survey", b"ztf"), ("rbstream.source.topic", b"older"), ("empty", None), ("survey", b"twice")]
    _, messages = encoder().encode(message(packets[0], headers=given), passed(packets[0], "main"))
    headers = by_route(messages)["main"].headers
    assert headers[:3] == [("survey", b"ztf"), ("empty", None), ("survey", b"twice")]
    assert [value for name, value in headers if name == "rbstream.source.topic"] == [b"ztf"]


def test_a_key_that_is_no_text_is_written_so_that_it_can_be_read_and_no_key_is_no_header(packets: list[bytes]) -> None:
    for key, written in ((b"\xff\x00a", "\\xff\x00a"), (None, None), (b"", "")):
        _, messages = encoder().encode(message(packets[0], key), passed(packets[0], "main"))
        headers = dict(by_route(messages)["main"].headers)
        value = headers.get("rbstream.source.key")
        assert (None if value is None else value.decode()) == written


def test_every_route_gets_its_copy_and_the_alert_has_one_score(packets: list[bytes]) -> None:
    _, messages = encoder().encode(message(packets[0]), passed(packets[0], "main", "bright"))
    assert sorted(each.topic for each in messages) == ["bright", "out", "scores"]


def test_a_filtered_alert_has_a_score_and_nothing_else(packets: list[bytes]) -> None:
    (alert,) = items(packets[0])
    _, (score,) = encoder().encode(message(packets[0]), Outcome("filtered", alert, "threshold", 0.25))
    record, before = record_of(score.value), record_of(packets[0])
    assert record == {
        "candid": before["candid"], "objectId": before["objectId"], "jd": before["candidate"]["jd"], "drb": 0.25,
        "model": "tiny1", "verdict": "filtered", "reason": "threshold",
        "topic": "ztf", "partition": 3, "offset": 42, "record": 0,
    }  # fmt: skip
    assert score.key == before["objectId"].encode()


def test_without_a_scores_topic_none_are_made(packets: list[bytes]) -> None:
    (alert,) = items(packets[0])
    assert encoder(scores=None).encode(message(packets[0]), Outcome("filtered", alert, "threshold", 0.25))[1] == []


@pytest.mark.parametrize("content", [b"", b"not Avro", b"Obj\x01"])
def test_a_dead_letter_is_the_message_as_it_came_and_why(content: bytes) -> None:
    (item,) = items(content)
    assert isinstance(item, Rejected)
    _, messages = encoder().encode(message(content, headers=[("a", b"b")]), Outcome("rejected", item, "x"))
    letter = by_route(messages)["dead_letters"]
    headers = {name: (value or b"").decode() for name, value in letter.headers}
    assert (letter.topic, letter.value, letter.key) == ("dead", content, b"key")
    assert headers["a"] == "b"
    assert headers["rbstream.source.offset"] == "42"
    assert headers["rbstream.stage"] == "container"
    assert headers["rbstream.reason"] == item.rejection.reason
    assert headers["rbstream.detail"] == item.rejection.detail
    assert headers["rbstream.version"] == __version__
    score = record_of(by_route(messages)["scores"].value)
    assert (score["verdict"], score["drb"], score["candid"], score["offset"]) == ("rejected", None, None, 42)


def test_of_several_records_the_bad_one_alone_is_the_dead_letter(night: Path, packets: list[bytes]) -> None:
    content = night.read_bytes()
    first, second = items(content)[:2]
    assert isinstance(first, Alert)
    assert isinstance(second, Alert)
    item = Rejected(Rejection("cutout", "cutout_gzip", "broken"), second.origin, second.original())
    _, messages = encoder().encode(message(content), Outcome("rejected", item, "cutout_gzip"))
    letter = by_route(messages)["dead_letters"]
    assert record_of(letter.value)["candid"] == second.candid
    assert dict(letter.headers)["rbstream.source.record"] == b"1"


def test_an_alert_that_is_larger_than_its_topic_takes_is_rejected(packets: list[bytes]) -> None:
    whole = encoder().encode(message(packets[0]), passed(packets[0], "main"))[1][0]
    exact = wire_bytes(whole)
    assert encoder(out=exact).encode(message(packets[0]), passed(packets[0], "main"))[0].verdict == "passed"
    outcome, messages = encoder(out=exact - 1).encode(message(packets[0]), passed(packets[0], "main", "bright"))
    assert (outcome.verdict, outcome.reason) == ("rejected", "too_large")
    assert sorted(each.route for each in messages) == ["dead_letters", "scores"]
    assert by_route(messages)["dead_letters"].value == packets[0]
    assert record_of(by_route(messages)["scores"].value)["verdict"] == "rejected"


def test_a_dead_letter_that_is_too_large_says_what_and_where_it_is(packets: list[bytes]) -> None:
    content = b"x" * 200_000
    (item,) = items(content)
    given = [("huge", b"h" * 200_000), ("survey", b"ztf")]
    made = encoder(dead=64 << 10).encode(message(content, b"k" * 90_000, given), Outcome("rejected", item, "x"))[1]
    letter = by_route(made)["dead_letters"]
    body, headers = json.loads(letter.value), dict(letter.headers)
    assert wire_bytes(letter) < 64 << 10
    assert headers["rbstream.body"] == b"sha256"
    assert headers["rbstream.reason"] == b"not_avro"
    assert {key: body[key] for key in ("topic", "partition", "offset", "record", "bytes")} == {
        "topic": "ztf", "partition": 3, "offset": 42, "record": 0, "bytes": 200_000,
    }  # fmt: skip
    assert len(body["sha256"]) == 64


def test_a_key_or_a_name_without_end_makes_no_score_that_a_topic_would_refuse(packets: list[bytes]) -> None:
    (item,) = items(b"")
    made = encoder().encode(message(b"", b"k" * (2 << 20)), Outcome("rejected", item, "empty"))[1]
    assert all(wire_bytes(each) < 64 << 10 for each in made)
    (alert,) = items(packets[0])
    assert isinstance(alert, Alert)
    alert.object_id = "Z" * (1 << 20)
    (score,) = encoder().encode(message(packets[0], None), Outcome("filtered", alert, "threshold", 0.1))[1]
    assert record_of(score.value)["objectId"] is score.key is None
    assert record_of(score.value)["candid"] == alert.candid


def test_a_time_far_ahead_which_kafka_would_refuse_becomes_now(packets: list[bytes]) -> None:
    ahead = message(packets[0])._replace(timestamp=1 << 52)
    assert [each.timestamp for each in encoder().encode(ahead, passed(packets[0], "main"))[1]] == [0, 0]


@pytest.mark.parametrize(("jd", "written"), [("2460000.5", None), (True, None), (2460000, 2460000.0), (None, None)])
def test_a_jd_of_another_type_is_no_reason_to_stop(
    packets: list[bytes], monkeypatch: pytest.MonkeyPatch, jd: object, written: float | None
) -> None:
    (alert,) = items(packets[0])
    monkeypatch.setattr(Alert, "value", lambda self, path: jd)
    (score,) = encoder().encode(message(packets[0]), Outcome("filtered", alert, "threshold", 0.1))[1]
    assert record_of(score.value)["jd"] == written


def test_headers_that_the_client_cannot_read_are_a_word_in_their_place() -> None:
    class Strange:
        topic, partition, offset = (lambda self: "ztf"), (lambda self: 0), (lambda self: 7)
        key, value, timestamp = (lambda self: None), (lambda self: None), (lambda self: (0, -1))

        def headers(self) -> None:
            raise SystemError(
                "returned a result with an exception set"
            )  # as confluent_kafka does, for a name like b"\xff"

    taken = as_message(Strange())
    assert (taken.value, taken.timestamp, taken.headers) == (b"", 0, [("unreadable-headers", b"a name was no UTF-8")])
