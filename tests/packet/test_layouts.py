"""Which schemas are read, and which are refused as what."""

import copy
import json
import resource
import time
from typing import Any

import made
import pytest
from made import RAW_SCHEMA, SYNC, changed_schema, container, header, read_both, reasons, record

from rbstream.errors import Rejection, UsageError
from rbstream.packet.alert import Alert, Rejected
from rbstream.packet.container import encode_block
from rbstream.packet.schema import MAX_PARTS, load_schema
from rbstream.packet.survey import ZTF, survey_named


def with_fields(*fields: dict[str, Any], **replaced: Any) -> dict[str, Any]:
    """ZTF's schema with more fields, or other types for some of its own; None takes one out."""
    schema = copy.deepcopy(RAW_SCHEMA)
    schema["fields"] = [f for f in schema["fields"] if replaced.get(f["name"], f) is not None]
    for field in schema["fields"]:
        field["type"] = replaced.get(field["name"], field["type"])
    schema["fields"] += fields
    return schema


def field(name: str, kind: Any) -> dict[str, Any]:
    return {"name": name, "type": kind}


def rec(name: str, *types: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [field(f"f{i}", kind) for i, kind in enumerate(types)]}


def doubling(levels: int, leaf: Any) -> Any:
    """Definitions that each refer ten times to the one before: ten to the power of `levels` leaves."""
    kinds = [rec("level0", leaf)]
    kinds += [rec(f"level{n}", *[f"level{n - 1}"] * 10) for n in range(1, levels)]
    return rec("all", *kinds)


def nested(depth: int) -> Any:
    schema: Any = "int"
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def raw_nested(depth: int) -> bytes:
    return b'{"type":"array","items":' * depth + b'"int"' + b"}" * depth


CANDIDATE = next(f["type"] for f in RAW_SCHEMA["fields"] if f["name"] == "candidate")
REFUSED: dict[str, tuple[Any, str]] = {
    "not JSON": (b"{'type': 'record'}", "schema"),
    "not UTF-8": (b'{"type": "\xff"}', "schema"),
    "UTF-16": ('"int"'.encode("utf-16"), "schema"),
    "nothing": (b"", "schema"),
    "a number": (b"5", "schema"),
    "a union of no types": ([], "schema"),
    "an unknown type": (with_fields(field("x", "number")), "schema"),
    "a missing type": (with_fields({"name": "x"}), "schema"),
    "a field that is no object": ({"type": "record", "name": "r", "fields": ["x"]}, "schema"),
    "a field name that is a path": (with_fields(field("candidate.drb", "float")), "schema"),
    "a name with half a surrogate": (with_fields(field("x", rec("a\ud800", "int"))), "schema"),
    "a name that is a number": (
        with_fields(field("x", {"type": "record", "name": 5, "fields": []})),
        "schema",
    ),
    "a name defined twice": (with_fields(field("x", rec("a", "int")), field("y", rec("a", "int"))), "schema"),
    "a record in itself": (with_fields(field("x", rec("a", ["null", "a"]))), "schema"),
    "an array of itself": (with_fields(field("x", rec("a", {"type": "array", "items": "a"}))), "schema"),
    "an array of null": (with_fields(field("x", {"type": "array", "items": "null"})), "schema"),
    "an array of nothing": (with_fields(field("x", {"type": "array", "items": rec("a")})), "schema"),
    "an array of nothing, wrapped": (
        with_fields(field("n", rec("a")), field("x", {"type": "array", "items": {"type": "a"}})),
        "schema",
    ),
    "an array of fixed of no bytes": (
        with_fields(field("x", {"type": "array", "items": {"type": "fixed", "name": "f", "size": 0}})),
        "schema",
    ),
    "a fixed of negative size": (
        with_fields(field("x", {"type": "fixed", "name": "f", "size": -1})),
        "schema",
    ),
    "a fixed whose size is text": (
        with_fields(field("x", {"type": "fixed", "name": "f", "size": "9"})),
        "schema",
    ),
    "an enum without symbols": (
        with_fields(field("x", {"type": "enum", "name": "e", "symbols": []})),
        "schema",
    ),
    "a union of nothing": (with_fields(field("x", [])), "schema"),
    "a million million nulls": (with_fields(field("x", doubling(12, "null"))), "schema"),
    "a million million strings": (with_fields(field("x", doubling(12, "string"))), "schema"),
    "100 arrays in each other": (with_fields(field("x", nested(100))), "schema"),
    "900 arrays in each other": (raw_nested(900), "schema"),
    "40,000 arrays in each other": (raw_nested(40_000), "schema"),
    "400,000 lists in each other": (b"[" * 400_000, "schema"),
    "not a record": ("string", "layout"),
    "a union of records": ([RAW_SCHEMA], "layout"),
    "another survey's name": ({**RAW_SCHEMA, "name": "lsst.alert", "namespace": ""}, "layout"),
    "no candid": (with_fields(candid=None), "layout"),
    "candid as text": (with_fields(candid="string"), "layout"),
    "candid of two types": (with_fields(candid=["long", "string"]), "layout"),
    "two candids": (with_fields(field("candid", "long")), "layout"),
    "no candidate": (with_fields(candidate=None), "layout"),
    "a candidate of two records": (with_fields(candidate=[CANDIDATE, rec("other", "int")]), "layout"),
    "no science cutout": (with_fields(cutoutScience=None, cutoutTemplate=None), "schema"),
    "no difference cutout": (with_fields(cutoutDifference=None), "layout"),
    "a cutout that is text": (with_fields(cutoutDifference="string"), "layout"),
    "a candidate's type used elsewhere": (with_fields(field("x", "ztf.alert.candidate")), "layout"),
    "drb as text": (changed_schema(drb="string"), "layout"),
    "drb as text or number": (changed_schema(drb=["float", "string"]), "layout"),
    "drb of both precisions": (changed_schema(drb=["float", "double"]), "layout"),
    "drbversion as number": (changed_schema(drbversion="int"), "layout"),
    "drb_upstream as text": (changed_schema(drb_upstream=["null", "string"]), "layout"),
    "magpsf as text": (changed_schema(magpsf="string"), "layout"),
}


@pytest.mark.parametrize(("schema", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_a_schema_that_cannot_be_used_is_refused_at_once(schema: Any, reason: str) -> None:
    start = time.monotonic()
    (rejected,) = read_both(header(schema) + encode_block([bytes(100)], SYNC))
    assert isinstance(rejected, Rejected)
    assert rejected.rejection.reason == reason, rejected.rejection.detail
    assert time.monotonic() - start < 2
    rejected.rejection.detail.encode()  # a detail is written to files: no half surrogates


ACCEPTED: dict[str, dict[str, Any]] = {
    "Spark's name": {**RAW_SCHEMA, "name": "topLevelRecord", "namespace": ""},
    "invalid defaults": with_fields({"name": "x", "type": ["null", "int"], "default": "none"}),
    "logical types": with_fields(field("x", {"type": "long", "logicalType": "timestamp-micros"})),
    "a name in an object": with_fields(field("y", rec("a", "int")), field("x", {"type": "a"})),
    "an enum": with_fields(field("x", {"type": "enum", "name": "e", "symbols": ["a", "b"]})),
    "a fixed": with_fields(field("x", {"type": "fixed", "name": "f", "size": 4})),
    "a large fixed, empty otherwise": with_fields(field("x", rec("a"))),
    "a thousand strings": with_fields(field("x", rec("a", *["string"] * 1000))),
    "a filter's field of an odd type": changed_schema(rb={"type": "array", "items": "int"}),
    "a filter's field of bytes": changed_schema(rb=["null", "bytes"]),
    "two candidate fields of a name, unwanted": copy.deepcopy(RAW_SCHEMA),
}
made.candidate_fields(ACCEPTED["two candidate fields of a name, unwanted"]).append(field("fwhm", "int"))


@pytest.mark.parametrize("schema", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_a_schema_that_is_odd_but_clear_is_read(schema: dict[str, Any]) -> None:
    clean = load_schema(json.dumps(schema).encode())[1]
    value = made.least_value(clean)
    value["candidate"]["rb"] = None if "bytes" in str(value) else value["candidate"].get("rb")
    for name in ("Science", "Template", "Difference"):
        value[f"cutout{name}"] = None
    value.update({"x": _least(clean)} if any(f["name"] == "x" for f in clean["fields"]) else {})
    (alert,) = read_both(header(schema) + encode_block([made.encoded(value, clean)], SYNC))
    assert isinstance(alert, Alert), alert.rejection.detail
    assert alert.value("candidate.rb") is None


def _least(clean: Any) -> Any:
    (kind,) = (f["type"] for f in clean["fields"] if f["name"] == "x")
    if isinstance(kind, dict) and kind["type"] in ("enum", "fixed"):
        return kind["symbols"][0] if kind["type"] == "enum" else bytes(kind["size"])
    return {"f0": 0} if isinstance(kind, str) and kind.endswith("a") else made.least_value(kind)


def test_a_fixed_of_gigabytes_is_only_a_record_cut_short() -> None:
    schema = with_fields(field("x", {"type": "fixed", "name": "f", "size": 1 << 40}))
    body = made.encoded(record())
    assert reasons(header(schema) + encode_block([body], SYNC)) == ["record"]
    assert reasons(header(schema) + encode_block([body], SYNC), made.BOTH[1]) == ["record"]


def test_the_largest_schema_that_is_read_takes_seconds_and_no_gigabytes() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.monotonic()
    for kind in ("string", "int", ["null", "float"]):
        schema = with_fields(field("x", rec("a", *[kind] * ((MAX_PARTS - 1500) // 3))))
        assert reasons(header(schema)) == []
    assert time.monotonic() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 << 10  # KiB


def test_a_flood_of_packets_with_a_bad_schema_costs_little() -> None:
    content = header(with_fields(candid=None)) + encode_block([bytes(100)], SYNC)
    reasons(content)
    start = time.monotonic()
    for _ in range(500):
        assert reasons(content) == ["layout"]
    assert time.monotonic() - start < 0.5


def test_surveys_are_known_by_name() -> None:
    assert survey_named("ztf") is ZTF
    with pytest.raises(UsageError, match="known are ztf"):
        survey_named("lsst")


def test_the_same_schema_gives_the_same_marker_and_others_another() -> None:
    markers = set()
    for schema in (RAW_SCHEMA, RAW_SCHEMA, changed_schema(drb=None)):
        (alert,) = made.items(container(record(), schema=schema))
        assert isinstance(alert, Alert)
        markers.add(alert.layout.sync)
    assert len(markers) == 2


def test_a_rejection_survives_a_pipe() -> None:
    import pickle

    again = pickle.loads(pickle.dumps(Rejection("record", "record", "what")))
    assert (again.stage, again.reason, again.detail) == ("record", "record", "what")
