"""Annotated packets: what changed, and that nothing else did."""

import copy
import math
from collections import Counter
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import changed_schema, container, decoded, items, record

from rbstream.packet.alert import Alert
from rbstream.packet.annotate import annotate
from rbstream.packet.container import encode_header

ADDED = {"drb", "drbversion", "drb_upstream", "drbversion_upstream"}


def annotated(alert: Alert, drb: float, version: str) -> bytes:
    return encode_header(alert.layout.output_schema, alert.layout.sync) + annotate(alert, drb, version)


def same(one: Any, other: Any) -> bool:
    """Equal, NaN to NaN."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and math.isnan(one):
        return isinstance(other, float) and math.isnan(other)
    return type(one) is type(other) and bool(one == other)


def check(content: bytes, drb: float = 0.123456789, version: str = "made_1") -> Alert:
    """Annotate every record and hold the result against plain fastavro's reading; the last alert."""
    inputs = decoded(content)
    alerts = items(content)
    for alert, before in zip(alerts, inputs, strict=True):
        assert isinstance(alert, Alert)
        result = annotated(alert, drb, version)
        (after,) = decoded(result)
        old, new = before.pop("candidate"), after.pop("candidate")
        assert same(before, after)
        for name in old.keys() - ADDED:
            assert same(old[name], new[name]), name
        assert new.keys() == old.keys() | ADDED
        # Exactly the score that was given: all its bits where the field has them, else the nearest float32.
        assert same(new["drb"], float(np.float32(drb))) or new["drb"] == drb
        assert new["drbversion"] == version
        assert same(new["drb_upstream"], old.get("drb_upstream", old.get("drb")))
        assert new["drbversion_upstream"] == old.get("drbversion_upstream", old.get("drbversion"))
        assert same(alert.drb_upstream, new["drb_upstream"])
        names = frozenset({"drbversion", "drb_upstream", "drbversion_upstream"})
        published = alert.published(names, version)
        assert all(same(published[name], new[name]) for name in names)
        _check_bytes(alert, result)
        _check_again(result, new)
    assert isinstance(alerts[-1], Alert)
    return alerts[-1]


def _check_bytes(alert: Alert, result: bytes) -> None:
    """What lies before, between and behind the places of the score is the same byte for byte."""
    (again,) = items(result)
    assert isinstance(again, Alert)
    places = [path for path in ("candidate.drb", "candidate.drbversion") if path in alert.spans]
    end = "candidate.$end"
    assert _between(alert, places, alert.spans[end][0]) == _between(again, places, _without_added(alert, again))
    assert alert.data[alert.spans[end][1] : alert.end] == again.data[again.spans[end][1] : again.end]


def _without_added(alert: Alert, again: Alert) -> int:
    starts = [again.spans[path][0] for path in alert.layout.appended]
    return min([*starts, again.spans["candidate.$end"][0]])


def _between(alert: Alert, places: list[str], end: int) -> list[bytes]:
    position, parts = alert.start, []
    for start, behind in sorted(alert.spans[path] for path in places):
        parts.append(alert.data[position:start])
        position = behind
    return [*parts, alert.data[position:end]]


def _check_again(result: bytes, first: dict[str, Any]) -> None:
    """To annotate an annotated packet changes the score and keeps what was upstream."""
    (alert,) = items(result)
    assert isinstance(alert, Alert)
    (again,) = decoded(annotated(alert, 0.75, "made_2"))
    expected = {**first, "drb": 0.75, "drbversion": "made_2"}
    assert same(again["candidate"], expected)
    assert alert.layout.appended == ()
    assert alert.layout.output_schema == items(annotated(alert, 0.5, ""))[0].layout.output_schema  # type: ignore[union-attr]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.floats(0, 1, width=32),
    st.text(max_size=200),
    st.none() | st.floats(width=32),
    st.text(max_size=200),
)
def test_any_score_and_version_over_any_other(
    drb: float, version: str, before: float | None, before_version: str
) -> None:
    check(container(record(drb=before, drbversion=before_version)), drb, version)


SCHEMAS = {
    "as ZTF has it": {},
    "no drb, as before 3.3": {"drb": None, "drbversion": None},
    "no drbversion": {"drbversion": None},
    "drb that can't be null": {"drb": "float"},
    "drb of double precision": {"drb": "double"},
    "nullable drb of double precision": {"drb": ["double", "null"]},
    "null last": {"drb": ["float", "null"]},
    "nullable drbversion": {"drbversion": ["null", "string"]},
    "types written at length": {"drb": {"type": "float"}, "drbversion": ["null", {"type": "string"}]},
    "drb_upstream already there": {"drb_upstream": ["null", "float"]},
}


@pytest.mark.parametrize("types", SCHEMAS.values(), ids=SCHEMAS.keys())
@pytest.mark.parametrize("codec", ["null", "deflate", "snappy"])
def test_every_layout_of_the_score_and_every_codec(types: dict[str, Any], codec: str) -> None:
    schema = changed_schema(**types)
    values = [record(candid=n, drb=0.5, drbversion="d6_m7", magpsf=n / 7) for n in range(3)]
    for value in values:
        value["candidate"]["drb_upstream"] = 0.25
    check(container(*values, schema=schema, codec=codec, one=False))


@pytest.mark.parametrize("branch", [["null", 1], [1, "null"]], ids=["null first", "null last"])
def test_a_nullable_candidate_is_annotated(branch: list[Any]) -> None:
    schema = copy.deepcopy(made.RAW_SCHEMA)
    (field,) = (field for field in schema["fields"] if field["name"] == "candidate")
    field["type"] = [kind if kind == "null" else field["type"] for kind in branch]
    check(container(record(drb=0.5), record(drb=None), schema=schema, one=False))


def test_an_index_longer_than_it_need_be_is_not_carried_upstream() -> None:
    content = container(record(drb=0.5, drbversion="v"))
    (alert,) = items(content)
    assert isinstance(alert, Alert)
    at = alert.spans["candidate.drb"][0]
    body = alert.data[alert.start : at] + b"\x82\x00" + alert.data[at + 1 : alert.end]
    (odd,) = items(made.header() + made.encode_block([body], made.SYNC))
    assert isinstance(odd, Alert)
    (after,) = decoded(annotated(odd, 0.25, "w"))
    assert (after["candidate"]["drb"], after["candidate"]["drb_upstream"]) == (0.25, 0.5)


def test_every_real_record_is_annotated_and_otherwise_unchanged(shared_data: Path) -> None:
    seen: Counter[str] = Counter()
    for path in sorted((shared_data / "ztf/alerts").glob("*.avro")):
        content = path.read_bytes()
        alert = check(content)
        seen.update(alert.layout.appended)
        seen[alert.header.codec] += 1
        seen["of several"] += not alert.alone
    # pre-3.3, snappy and multi-record packets are among them
    assert seen["candidate.drb"] >= 1
    assert seen["snappy"] >= 1
    assert seen["of several"] >= 1
