"""Damaged packets: each item is an alert or a rejection, soon and in little memory, and never anything else.

RBSTREAM_TEST_MUTATIONS says how many packets are damaged (else 2,000), RBSTREAM_TEST_TRUNCATIONS how many
times each real packet is cut short (else 10).
"""

import contextlib
import os
import random
import resource
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import made
import numpy as np
import pytest
from made import Item, container, items, record

from rbstream.cutout import decode_cutout
from rbstream.errors import Rejection
from rbstream.packet.alert import Alert, Origin, Packet, Rejected
from rbstream.packet.annotate import annotate
from rbstream.simulate.stamp import stamp_data

MUTATIONS = int(os.environ.get("RBSTREAM_TEST_MUTATIONS", "2000"))
TRUNCATIONS = int(os.environ.get("RBSTREAM_TEST_TRUNCATIONS", "10"))
# A packet is 76 kB, the largest real file 2.5 MB; the general path takes some fifty times a record's bytes.
MEMORY = 128 << 20
SECONDS = 5
INTERESTING = (0, 1, 2, 3, 0x7F, 0x80, 0xFE, 0xFF)


@cache
def made_packets() -> tuple[bytes, ...]:
    stamp = stamp_data(np.random.default_rng(1).normal(size=(63, 63)).astype(np.float32))
    cutouts = {
        f"cutout{name}": {"fileName": name, "stampData": stamp} for name in ("Science", "Template", "Difference")
    }
    values = [record(candid=n, magpsf=17.5, ssnamenr="Ž", drb=0.5, **cutouts) for n in range(3)]
    several = [container(*values, codec=codec, one=False) for codec in ("null", "deflate", "snappy", "zstandard")]
    return (container(values[0]), *several)


def mutated(draw: random.Random, content: bytes) -> bytes:
    """A packet with up to eight changes: bits, bytes, runs put in, taken out or taken from elsewhere."""
    body = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 4, 8))):
        # Half of them where structure is: at the start, around the ends of records, or behind the schema.
        at = (
            draw.randrange(len(body))
            if draw.random() < 0.5
            else draw.choice((draw.randrange(200), -draw.randrange(1, 200), 20_000 + draw.randrange(2000)))
        )
        at %= len(body)
        kind = draw.randrange(6)
        if kind == 0:
            body[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            body[at] = draw.choice(INTERESTING)
        elif kind == 2:
            body[at:at] = draw.randbytes(draw.randrange(1, 12))
        elif kind == 3:
            del body[at : at + draw.randrange(1, 40)]
        elif kind == 4:
            body[at : at + 10] = b"\xff" * draw.randrange(1, 10)
        else:
            start = draw.randrange(len(body))
            body[at:at] = body[start : start + draw.randrange(1, 400)]
        if not body:
            break
    return bytes(body)


def consume(content: bytes) -> list[Item]:
    """Read a packet, decode its cutouts and annotate it, as the pipeline does."""
    read = list(made.BOTH[0].read(Packet(Origin("damaged"), content)))
    for item in read:
        if isinstance(item, Rejected):
            assert isinstance(item.packet, bytes)
            continue
        for path in item.layout.cutouts:
            with contextlib.suppress(Rejection):
                assert decode_cutout(item.cutout(path) or b"", made.LIMITS).ndim == 2
        for field in (*made.FIELDS, "drb", "drbversion", "drb_upstream", "drbversion_upstream"):
            item.value(f"candidate.{field}")
        item.published(made.FIELDS | {"drbversion_upstream"}, "v")
        annotate(item, 0.5, "v")
    return read


@pytest.fixture
def bounded() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < MEMORY


def check_damaged(packets: list[bytes], count: int) -> None:
    draw = random.Random(20260101)
    slowest = 0.0
    for _ in range(count):
        content = mutated(draw, draw.choice(packets))
        start = time.monotonic()
        consume(content)
        slowest = max(slowest, time.monotonic() - start)
    assert slowest < SECONDS


@pytest.mark.usefixtures("bounded")
def test_damaged_packets_are_alerts_or_rejections() -> None:
    check_damaged(list(made_packets()), MUTATIONS // 2)


@pytest.mark.usefixtures("bounded")
def test_damaged_real_packets_are_alerts_or_rejections(shared_data: Path) -> None:
    paths = sorted((shared_data / "ztf").rglob("*.avro"))
    check_damaged([path.read_bytes() for path in paths if path.stat().st_size < 1 << 20], MUTATIONS // 2)


def test_both_ways_agree_on_damaged_packets() -> None:
    draw = random.Random(7)
    packets = made_packets()
    for _ in range(min(MUTATIONS, 1000) // 2):
        made.read_both(mutated(draw, draw.choice(packets)))


def test_rejections_of_damaged_packets_are_the_same_when_read_again() -> None:
    draw = random.Random(8)
    packets, again = made_packets(), 0
    for _ in range(min(MUTATIONS, 1000) // 2):
        for item in items(mutated(draw, draw.choice(packets))):
            if isinstance(item, Rejected):
                (twice,) = made.BOTH[0].read(Packet(item.origin, item.packet))
                assert isinstance(twice, Rejected)
                assert twice.rejection.reason == item.rejection.reason
                assert twice.origin == item.origin
                again += 1
    assert again > 50


@pytest.mark.usefixtures("bounded")
def test_real_packets_cut_short_anywhere_keep_their_whole_records(shared_data: Path) -> None:
    draw = random.Random(9)
    for path in sorted((shared_data / "ztf/alerts").glob("*.avro")):
        content = path.read_bytes()
        whole = items(content)
        for _ in range(TRUNCATIONS):
            length = draw.randrange(len(content))
            read = items(content[:length])
            alerts = [item for item in read if isinstance(item, Alert)]
            assert [a.candid for a in alerts] == [a.candid for a in whole if isinstance(a, Alert)][: len(alerts)]
            assert len(read) - len(alerts) <= 1
            assert read or length >= whole[0].origin.offset
            if isinstance(read[-1] if read else None, Rejected):
                assert read[-1].rejection.reason in {"truncated", "empty", "not_avro"}  # type: ignore[union-attr]
