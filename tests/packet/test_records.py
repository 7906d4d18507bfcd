"""The two ways of reading a record agree, on all that ZTF sends and on all that it doesn't."""

import copy
import struct
from pathlib import Path
from typing import Any

import fastavro
import made
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made import SYNC, container, encoded, header, items, read_both, record

from rbstream.packet.alert import Alert, Rejected
from rbstream.packet.container import encode_block
from rbstream.packet.layout import compile_layout
from rbstream.packet.survey import ZTF
from rbstream.packet.varint import encode_long

budget = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
FLOATS = st.floats(width=32) | st.sampled_from([-999.0, -3.4e38, 0.0])
TEXTS = st.text(max_size=12) | st.sampled_from(["", "a" * 127, "b" * 128, "Sternwarte Zürich", "ζ" * 64, "c" * 3000])
LEAVES: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(1 << 31), (1 << 31) - 1),
    "long": st.integers(-(1 << 63), (1 << 63) - 1),
    "float": FLOATS,
    "double": st.floats(),
    "string": TEXTS,
    "bytes": st.binary(max_size=200),
}


def values(schema: Any, *, spare: int = 4) -> st.SearchStrategy[Any]:
    """Values of a schema; most fields of a record keep their least value, or examples would be too large."""
    if isinstance(schema, list):
        return st.one_of(*(values(branch) for branch in schema))
    if isinstance(schema, str):
        return LEAVES[schema] if schema in LEAVES else values(CUTOUT)
    if schema["type"] == "record":
        fields = {field["name"]: field["type"] for field in schema["fields"]}
        chosen = st.lists(st.sampled_from(sorted(fields)), max_size=spare, unique=True)
        if len(fields) < 20:
            chosen = st.just(sorted(fields))
        least = st.builds(made.least_value, st.just(schema))
        return st.builds(
            lambda least, changed: {**least, **changed},
            least,
            chosen.flatmap(lambda names: st.fixed_dictionaries({name: values(fields[name]) for name in names})),
        )
    if schema["type"] == "array":
        return st.lists(values(schema["items"], spare=2), max_size=3)
    return values(schema["type"])


CUTOUT = {
    "type": "record",
    "fields": [{"name": "fileName", "type": "string"}, {"name": "stampData", "type": "bytes"}],
}
RECORDS = values(copy.deepcopy(made.RAW_SCHEMA))


@budget
@given(st.lists(RECORDS, min_size=1, max_size=3), st.booleans())
def test_hot_and_general_agree_on_whatever_the_schema_allows(records: list[dict[str, Any]], one: bool) -> None:
    content = container(*records, one=one)
    alerts = read_both(content)
    for alert, value in zip(alerts, made.decoded(content), strict=True):
        assert isinstance(alert, Alert)
        assert (alert.candid, alert.object_id) == (value["candid"], value["objectId"])
        for name in made.FIELDS | {"drb", "drbversion"}:
            assert repr(alert.value(f"candidate.{name}")) == repr(value["candidate"][name])
        for name in ("cutoutScience", "cutoutTemplate", "cutoutDifference"):
            stamp = value[name]["stampData"] if value[name] else None
            assert (alert.cutout(f"{name}.stampData") or None) == (stamp or None)


@settings(budget, max_examples=300)
@given(st.data())
def test_hot_and_general_agree_on_mutated_records(data: st.DataObject) -> None:
    value = record(prv_candidates=[made.least_value(_previous())] * 2, magpsf=17.5, ssnamenr="2005 AB")
    body = bytearray(encoded(value))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        kind = data.draw(st.sampled_from(["flip", "insert", "delete", "set"]))
        if kind == "delete":
            del body[at : at + data.draw(st.integers(1, 9))]
        elif kind == "insert":
            body[at:at] = data.draw(st.binary(min_size=1, max_size=9))
        else:
            body[at] = (
                body[at] ^ 1 << data.draw(st.integers(0, 7))
                if kind == "flip"
                else data.draw(st.sampled_from(b"\0\1\2\x7f\x80\xff"))
            )
        body = body or bytearray(1)
    read_both(header() + encode_block([bytes(body)], SYNC))


def _previous() -> Any:
    (field,) = (f["type"] for f in made.RAW_SCHEMA["fields"] if f["name"] == "prv_candidates")
    return next(branch for branch in field if branch != "null")["items"]


def _history(*blocks: bytes) -> bytes:
    """A record whose history is written as these blocks."""
    value = record(prv_candidates=[])
    body, empty = encoded(value), encoded(record(prv_candidates=None))
    at = next(i for i, (a, b) in enumerate(zip(body, empty, strict=False)) if a != b)
    assert body[at : at + 2] == b"\x02\x00"
    return header() + encode_block([body[: at + 1], *blocks, body[at + 1 :]], SYNC)


def test_arrays_of_several_blocks_and_with_negative_counts_are_read() -> None:
    item = encoded(made.least_value(_previous()), fastavro.parse_schema(copy.deepcopy(_previous())))
    counted = [encode_long(2) + item * 2, encode_long(1) + item]
    sized = [encode_long(-2) + encode_long(2 * len(item)) + item * 2]
    for blocks in (counted, sized, counted + sized, []):
        (alert,) = read_both(_history(*blocks))
        assert isinstance(alert, Alert)
        assert alert.cutout("cutoutDifference.stampData") == b"stamp of Difference"


@pytest.mark.parametrize("count", [1 << 40, -(1 << 40), (1 << 62)])
def test_an_array_of_billions_is_rejected(count: int) -> None:
    (rejected,) = read_both(_history(encode_long(count) + encode_long(1)))
    assert isinstance(rejected, Rejected)
    assert (rejected.rejection.stage, rejected.rejection.reason) == ("record", "record")


def _spliced(path: str, new: bytes, **changes: Any) -> bytes:
    """A record whose bytes at a path are others."""
    (alert,) = items(container(record(**changes)), made.BOTH[1])
    assert isinstance(alert, Alert)
    start, end = alert.spans[path]
    parts = [alert.data[alert.start : start], new, alert.data[end : alert.end]]
    return header() + encode_block([b"".join(parts)], SYNC)


WRITTEN = {
    "a number longer than it need be": ("candid", b"\x82\x80\x80\x80\x00", "alert"),
    "a number of more than 64 bits": ("candid", b"\xff" * 9 + b"\x7f", "record"),
    "a number of eleven bytes": ("candid", b"\x80" * 10 + b"\x00", "record"),
    "a string longer than it need be": ("objectId", b"\x82\x00a", "alert"),
    "a string of negative length": ("objectId", b"\x03abc", "record"),
    "a string that is not UTF-8": ("objectId", b"\x04\xc3\x28", "record"),
    "a string with half a surrogate": ("objectId", b"\x06\xed\xa0\x80", "record"),
    "a union index too high": ("candidate.drb", b"\x04" + struct.pack("<f", 0.5), "record"),
    "a union index of -1": ("candidate.drb", b"\x01" + struct.pack("<f", 0.5), "record"),
    "a union index longer than it need be": ("candidate.drb", b"\x82\x00" + struct.pack("<f", 0.5), "alert"),
}


@pytest.mark.parametrize(("path", "new", "expected"), WRITTEN.values(), ids=WRITTEN.keys())
def test_odd_ways_of_writing_a_value(path: str, new: bytes, expected: str) -> None:
    content = _spliced(path, new)
    read_both(content)
    assert made.reasons(content)[0] == expected


def test_candidate_and_cutouts_may_be_null_where_the_schema_says_so() -> None:
    schema = copy.deepcopy(made.RAW_SCHEMA)
    for field in schema["fields"]:
        if field["name"] in ("candidate", "candid"):
            field["type"] = ["null", field["type"]]
    nothing = {f"cutout{name}": None for name in ("Science", "Template", "Difference")}
    alert, rejected, candidless = read_both(
        container(record(**nothing), {**record(), "candidate": None}, {**record(), "candid": None}, schema=schema)
    )
    assert isinstance(alert, Alert)
    assert alert.cutout("cutoutScience.stampData") is None
    for item in (rejected, candidless):
        assert isinstance(item, Rejected)
        assert item.rejection.reason == "layout"


def test_stamps_of_no_bytes_and_nullable_stamps_are_none() -> None:
    schema = copy.deepcopy(made.RAW_SCHEMA)
    cutout = next(field["type"] for field in schema["fields"] if field["name"] == "cutoutScience")
    named = next(branch for branch in cutout if branch != "null")
    next(field for field in named["fields"] if field["name"] == "stampData")["type"] = ["null", "bytes"]
    for stamp, expected in ((None, None), (b"", None), (b"x", b"x")):
        content = container(record(cutoutScience={"fileName": "", "stampData": stamp}), schema=schema)
        (alert,) = read_both(content)
        assert isinstance(alert, Alert)
        assert alert.cutout("cutoutScience.stampData") == expected


def test_maps_and_nested_arrays_are_the_general_ways() -> None:
    schema = copy.deepcopy(made.RAW_SCHEMA)
    schema["fields"].insert(0, {"name": "notes", "type": {"type": "map", "values": {"type": "array", "items": "int"}}})
    content = container({**record(), "notes": {"a": [1, 2], "ü": []}}, schema=schema)
    assert compile_layout(_json(schema), ZTF, made.CHANNELS, frozenset()).walk is None
    (alert,) = read_both(content)
    assert isinstance(alert, Alert)
    assert alert.candid == 1234567890123


def _json(schema: Any) -> bytes:
    import json

    return json.dumps(schema).encode()


def test_a_record_larger_than_the_first_window_is_read() -> None:
    stamp = bytes(300_000)
    for by in made.BOTH:
        (alert,) = items(container(record(cutoutTemplate={"fileName": "é", "stampData": stamp})), by)
        assert isinstance(alert, Alert)
        assert alert.cutout("cutoutTemplate.stampData") == stamp


def test_hot_and_general_agree_on_every_real_packet(shared_data: Path) -> None:
    walked = 0
    for path in sorted((shared_data / "ztf").rglob("*.avro")):
        for item in read_both(path.read_bytes()):
            walked += isinstance(item, Alert) and item.layout.walk is not None
    assert walked >= 200
