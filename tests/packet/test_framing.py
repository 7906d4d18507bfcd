"""Confluent's framing: framed records read as the same records in a container do, and nothing else gets through."""

import json
import struct
from typing import Any

import made
import pytest
from bounds import bounded
from hypothesis import example, given
from hypothesis import strategies as st
from made import BOTH, LIMITS, RAW_SCHEMA, SYNC, container, encoded, record

from rbstream.errors import Rejection
from rbstream.packet.alert import Alert, Origin, Packet, Rejected
from rbstream.packet.annotate import annotate
from rbstream.packet.container import encode_block, encode_header
from rbstream.packet.framing import RegistryError, SchemaSource, unframe
from rbstream.packet.reader import PacketReader
from rbstream.settings import Limits

SCHEMA_TEXT = json.dumps(RAW_SCHEMA).encode()
ORIGIN = Origin("alerts/0/7")


class Schemas:
    """Schemas by id, in memory."""

    def __init__(self, texts: dict[int, bytes]) -> None:
        self.texts = texts

    def schema(self, id_: int) -> bytes:
        if id_ not in self.texts:
            raise Rejection("container", "schema_id", f"schema id {id_} is unknown")
        return self.texts[id_]


ZTF = Schemas({7: SCHEMA_TEXT, 2**32 - 1: SCHEMA_TEXT})


def framed(payload: bytes, id_: int = 7) -> bytes:
    return b"\x00" + struct.pack(">I", id_) + payload


def items(
    content: bytes, by: PacketReader = BOTH[0], schemas: SchemaSource | None = ZTF, limits: Limits = LIMITS
) -> list[Alert | Rejected]:
    packet = unframe(ORIGIN, content, schemas, limits)
    return [packet] if isinstance(packet, Rejected) else list(by.read(packet))


def only(content: bytes, **options: Any) -> Rejected:
    (rejected,) = items(content, **options)
    assert isinstance(rejected, Rejected)
    return rejected


def reason(content: bytes, **options: Any) -> str:
    rejection = only(content, **options).rejection
    return f"{rejection.stage} {rejection.reason}"


def seen(alert: Alert | Rejected) -> Any:
    """All that the pipeline makes of an alert: values, cutouts, what goes out annotated, its original."""
    assert isinstance(alert, Alert), alert
    values = {path: repr(alert.value(path)) for path in alert.layout.decoders}
    cutouts = [alert.cutout(path) for path in alert.layout.cutouts]
    written = encode_header(alert.layout.output_schema, alert.layout.sync) + annotate(alert, 0.25, "v")
    return alert.candid, alert.object_id, values, cutouts, written, made.decoded(alert.original())


records = st.builds(
    record,
    candid=st.integers(-(2**63), 2**63 - 1),
    objectId=st.text(max_size=20),
    magpsf=st.floats(width=32, allow_nan=False),
    drb=st.none() | st.floats(0, 1, width=32),
    ssnamenr=st.none() | st.text(max_size=9),
)


@pytest.mark.parametrize("by", BOTH, ids=["walk", "general"])
@given(value=records, id_=st.sampled_from([7, 2**32 - 1]))
def test_a_framed_alert_equals_the_same_alert_in_a_container(by: PacketReader, value: dict[str, Any], id_: int) -> None:
    (alert,) = items(framed(encoded(value), id_), by)
    (same,) = by.read(Packet(ORIGIN, container(value)))
    assert seen(alert) == seen(same)


@given(
    content=st.binary(max_size=60)
    | st.binary(max_size=40).map(framed)
    | st.builds(lambda start, end: framed(encoded(record())[start:end]), st.integers(0, 300), st.integers(-300, -1))
)
@example(b"")
@example(b"\x00")
@example(framed(b""))
def test_any_bytes_give_alerts_or_rejections_the_same_by_both_ways(content: bytes) -> None:
    by_walk, by_general = ([outcome(item) for item in items(content, by)] for by in BOTH)
    assert by_walk == by_general
    assert by_walk


def outcome(item: Alert | Rejected) -> Any:
    """What became of it, without the details: fastavro's differ from run to run."""
    if isinstance(item, Alert):
        return seen(item)
    return item.rejection.stage, item.rejection.reason, item.origin, item.packet


@given(content=st.binary(max_size=60) | st.sampled_from([container(record()), framed(encoded(record()))]))
def test_without_schemas_all_bytes_stay_as_they_are(content: bytes) -> None:
    assert unframe(ORIGIN, content, None, LIMITS) == Packet(ORIGIN, content)


def test_framed_packets_where_no_schemas_are_given_are_rejected_with_their_first_bytes() -> None:
    rejected = only(framed(encoded(record())), schemas=None)
    assert (rejected.rejection.stage, rejected.rejection.reason) == ("container", "not_avro")
    assert "00 00 00 00" in rejected.rejection.detail


def test_containers_stay_as_they_are_beside_framed_packets() -> None:
    content = container(record(), record())
    assert unframe(ORIGIN, content, ZTF, LIMITS) == Packet(ORIGIN, content)


def test_the_original_of_a_framed_alert_is_a_container_that_reads_the_same() -> None:
    (alert,) = items(framed(encoded(record())))
    assert isinstance(alert, Alert)
    (again,) = BOTH[0].read(Packet(ORIGIN, alert.original()))
    assert seen(again) == seen(alert)


def test_an_id_that_is_not_known_is_a_rejection_with_the_message_as_it_came() -> None:
    content = framed(encoded(record()), 8)
    rejected = only(content)
    assert (rejected.rejection.stage, rejected.rejection.reason) == ("container", "schema_id")
    assert (rejected.origin, rejected.packet) == (ORIGIN, content)


def test_a_registry_that_fails_is_no_fault_of_the_packet() -> None:
    class Gone:
        def schema(self, id_: int) -> bytes:
            raise RegistryError("no answer")

    with pytest.raises(RegistryError, match="no answer"):
        unframe(ORIGIN, framed(b""), Gone(), LIMITS)


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"", "record record"),
        (encoded(record())[:-1], "record record"),
        (encoded(record()) + b"\x00", "record record"),
        (encoded(record()) * 2, "record record"),
        (container(record()), "record record"),
    ],
    ids=["nothing", "cut short", "a byte more", "two records", "a container"],
)
def test_what_is_framed_is_exactly_one_record(payload: bytes, expected: str) -> None:
    last = items(framed(payload))[-1]
    assert isinstance(last, Rejected)
    assert f"{last.rejection.stage} {last.rejection.reason}" == expected


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (b"", "schema schema"),
        (b"{", "schema schema"),
        (b'"string"', "layout layout"),
        (b'{"type":"record","name":"rubin.alert","fields":[]}', "layout layout"),
        (b" " * (LIMITS.schema_bytes + 1), "container too_large"),
    ],
    ids=["empty", "no JSON", "no record", "another survey's", "too large"],
)
def test_a_schema_that_cannot_be_used_gives_the_reason_that_it_gives_in_a_container(
    schema: bytes, expected: str
) -> None:
    payload = encoded(record())
    contained = encode_header(schema, SYNC) + encode_block([payload], SYNC)
    assert reason(framed(payload), schemas=Schemas({7: schema})) == expected
    assert reason(contained) == expected


def test_sizes_are_checked_before_memory_is_taken() -> None:
    content = framed(bytes(LIMITS.packet_bytes))
    with bounded(1, 5):
        assert reason(content) == "container too_large"
    long = framed(encoded(record()))
    assert reason(long, limits=LIMITS.model_copy(update={"packet_bytes": len(long) - 1})) == "container too_large"
    assert isinstance(items(long, limits=LIMITS.model_copy(update={"packet_bytes": len(long)}))[0], Alert)
