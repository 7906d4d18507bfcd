"""Containers: codecs, blocks, markers, ends; what they announce and what they hold."""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import cramjam
import made
import pytest
import zstandard
from bounds import bounded
from made import SYNC, container, encoded, header, items, read_both, reasons, recoded, record

from rbstream.packet.alert import Alert, Origin, Packet, Rejected
from rbstream.packet.container import MAGIC, encode_block, encode_header, read_header
from rbstream.packet.varint import encode_long
from rbstream.settings import Limits

MIB = 1 << 20
CODECS = ("null", "deflate", "snappy", "zstandard")
RECORDS = [record(candid=number, objectId=f"ZTF{number}") for number in range(5)]


def deflated(payload: bytes) -> bytes:
    engine = zlib.compressobj(9, zlib.DEFLATED, -15)
    return engine.compress(payload) + engine.flush()


def snapped(payload: bytes) -> bytes:
    return bytes(cramjam.snappy.compress_raw(payload)) + zlib.crc32(payload).to_bytes(4, "big")


COMPRESS = {"deflate": deflated, "snappy": snapped, "zstandard": zstandard.ZstdCompressor().compress}


def compressed(codec: str, stored: bytes, count: int = 1) -> bytes:
    """A container of one block, given as it is stored."""
    return recoded(header(), codec) + encode_block([stored], SYNC, count)


@pytest.fixture
def in_bounds() -> Iterator[None]:
    """Fails a test that takes more than 64 MiB or 5 s."""
    with bounded(64, 5):
        yield


@pytest.mark.parametrize("one", [True, False], ids=["block each", "one block"])
@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_gives_every_record(codec: str, one: bool) -> None:
    alerts = read_both(container(*RECORDS, codec=codec, one=one))
    assert [(a.candid, a.object_id) for a in alerts if isinstance(a, Alert)] == [(n, f"ZTF{n}") for n in range(5)]
    assert [a.origin.record for a in alerts] == [0, 1, 2, 3, 4]
    assert [a.cutout("cutoutScience.stampData") for a in alerts if isinstance(a, Alert)] == [b"stamp of Science"] * 5


@pytest.mark.parametrize("one", [True, False], ids=["block each", "one block"])
@pytest.mark.parametrize("codec", CODECS)
def test_the_original_of_a_record_is_exactly_that_record(codec: str, one: bool) -> None:
    for number, alert in enumerate(items(container(*RECORDS, codec=codec, one=one))):
        assert isinstance(alert, Alert)
        assert made.decoded(alert.original()) == [RECORDS[number]]


def test_the_original_of_a_packet_of_one_record_is_the_packet_byte_for_byte() -> None:
    for codec in CODECS:
        content = container(RECORDS[0], codec=codec)
        (alert,) = items(content)
        assert isinstance(alert, Alert)
        assert alert.original() == content


def test_a_container_without_records_gives_nothing() -> None:
    assert items(container()) == []


@pytest.mark.parametrize("codec", CODECS)
def test_a_wrong_sync_marker_rejects_its_block_whole_and_all_that_follows(codec: str) -> None:
    content = bytearray(container(*RECORDS, codec=codec))
    offsets = [item.origin.offset for item in items(bytes(content))]
    content[offsets[3] - 1] ^= 1
    read = read_both(bytes(content))
    assert reasons(bytes(content)) == ["alert", "alert", "sync"]
    broken = read[-1]
    assert isinstance(broken, Rejected)
    assert broken.origin == Origin("made.avro", None, 2, offsets[2])


def test_every_truncation_keeps_the_records_before_it_and_is_one_rejection() -> None:
    content = container(*RECORDS[:3])
    ends = [*(item.origin.offset for item in items(content)), len(content)]
    places = {*range(40), *(e + d for e in ends for d in range(-40, 40)), *range(0, len(content), 97)}
    for length in sorted(place for place in places if 0 <= place < len(content)):
        whole = sum(end <= length for end in ends[1:])
        expected = ["alert"] * whole
        if length == 0:
            expected += ["empty"]
        elif length < len(MAGIC):
            expected += ["not_avro"]
        elif length not in ends:
            expected += ["truncated"]
        read = read_both(content[:length])
        assert reasons(content[:length]) == expected, length
        if length > ends[0] and length not in ends:
            assert read[-1].origin == Origin("made.avro", None, whole, ends[whole])


@pytest.mark.parametrize("codec", ["deflate", "zstandard", "snappy"])
def test_compressed_data_that_are_cut_short_or_damaged_are_the_codecs_fault(codec: str) -> None:
    stored = COMPRESS[codec](encoded(RECORDS[0]))
    assert reasons(compressed(codec, stored)) == ["alert"]
    for bad in (stored[:-1], stored[:-5], stored[: len(stored) // 2], stored[:3], b""):
        assert reasons(compressed(codec, bad)) == ["codec"]


def test_a_wrong_snappy_checksum_is_the_codecs_fault() -> None:
    stored = snapped(encoded(RECORDS[0]))
    assert reasons(compressed("snappy", stored[:-1] + bytes([stored[-1] ^ 1]))) == ["codec"]


def test_zstandard_frames_that_do_not_tell_their_size_are_read() -> None:
    streamed = zstandard.ZstdCompressor(write_content_size=False).compress(encoded(RECORDS[0]))
    assert reasons(compressed("zstandard", streamed)) == ["alert"]


def _bombs() -> dict[str, bytes]:
    zeros = bytes(MIB)
    engine = zlib.compressobj(9, zlib.DEFLATED, -15)
    deflate_bomb = b"".join(engine.compress(zeros) for _ in range(256)) + engine.flush()
    stream = zstandard.ZstdCompressor(level=3).compressobj()
    zstandard_bomb = b"".join(stream.compress(zeros) for _ in range(256)) + stream.flush()
    wide = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=False)
    return {
        "deflate": deflate_bomb,
        "zstandard": zstandard_bomb,
        "zstandard, size told": zstandard.ZstdCompressor().compress(bytes(64 * MIB)),
        "zstandard, wide": zstandard.ZstdCompressor(compression_params=wide).compress(bytes(64 * MIB)),
        "snappy": encode_long(1 << 40) + b"\0" * 1000,  # announces what it hasn't got
        "snappy, honest": snapped(bytes(32 * MIB)),
    }


@pytest.mark.parametrize(
    ("name", "stored"), _bombs().items(), ids=lambda value: value if isinstance(value, str) else ""
)
@pytest.mark.usefixtures("in_bounds")
def test_decompression_bombs_take_no_memory(name: str, stored: bytes) -> None:
    assert reasons(compressed(name.split(",")[0], stored)) in (["too_large"], ["codec"])


GIGA = 1 << 40
ANNOUNCED = {
    "block of a terabyte": (header() + encode_long(1) + encode_long(GIGA), "too_large"),
    "block of 10 MiB that isn't there": (header() + encode_long(1) + encode_long(10 * MIB), "truncated"),
    "negative size": (header() + encode_long(1) + encode_long(-5) + SYNC, "block"),
    "negative count": (header() + encode_long(-1) + encode_long(0) + SYNC, "block"),
    "count of more than 64 bits": (header() + b"\xff" * 12, "block"),
    "billions of records in no bytes": (header() + encode_block([], SYNC, GIGA), "record"),
    "header map of billions": (MAGIC + encode_long(GIGA) + encode_long(1) + b"a", "header"),
    "header key of a terabyte": (MAGIC + encode_long(1) + encode_long(GIGA), "truncated"),
    "header key of negative size": (MAGIC + encode_long(1) + encode_long(-4), "header"),
    "header of 300,000 entries": (MAGIC + encode_long(300_000) + b"\2a\2b" * 300_000, "header"),
    "header of 300,000 blocks": (MAGIC + (encode_long(1) + b"\2a\2b") * 300_000, "header"),
    "header without an end": (
        MAGIC + encode_long(1) + b"\2a" + encode_long(3 * MIB) + bytes(2 * MIB),
        "too_large",
    ),
    "header without a schema": (MAGIC + encode_long(0) + SYNC, "header"),
    "header without its marker": (header()[:-3], "truncated"),
    "schema over the limit": (encode_header(b" " * (MIB + 1), SYNC), "too_large"),
    "unknown codec": (compressed("bzip2", b""), "codec"),
    "codec that is no text": (header().replace(b"null", b"\xff\0\1\2"), "codec"),
    "Confluent framing": (b"\0\0\0\3\x84" + encoded(RECORDS[0]), "not_avro"),
    "gzip": (b"\x1f\x8b\x08\0" + bytes(100), "not_avro"),
    "nothing": (b"", "empty"),
}


@pytest.mark.parametrize(("content", "reason"), ANNOUNCED.values(), ids=ANNOUNCED.keys())
@pytest.mark.usefixtures("in_bounds")
def test_what_is_announced_takes_no_memory_and_has_its_reason(content: bytes, reason: str) -> None:
    (rejected,) = read_both(content)
    assert isinstance(rejected, Rejected)
    assert rejected.rejection.reason == reason


def test_a_header_map_in_several_blocks_with_sizes_is_read() -> None:
    schema, entry = json.dumps(made.RAW_SCHEMA).encode(), lambda b: encode_long(len(b)) + b
    pair = entry(b"avro.schema") + entry(schema)
    other = entry(b"note") + entry(b"x")
    head = MAGIC + encode_long(1) + other + encode_long(-1) + encode_long(len(pair)) + pair + encode_long(0) + SYNC
    assert read_header(head, made.LIMITS).codec == "null"
    assert reasons(head + encode_block([encoded(RECORDS[0])], SYNC)) == ["alert"]


def test_the_block_limit_is_a_setting() -> None:
    content = container(record(cutoutScience={"fileName": "", "stampData": bytes(5000)}))
    assert reasons(content, made.reader(limits=Limits(packet_bytes=4000))) == ["too_large"]
    assert reasons(content, made.reader(limits=Limits(record_bytes=4000))) == ["too_large"]
    assert reasons(content, made.reader(hot=False, limits=Limits(record_bytes=4000))) == ["too_large"]


def test_of_a_block_with_too_many_records_the_first_stand_and_the_rest_is_one_rejection() -> None:
    content = container() + encode_block([encoded(record) for record in RECORDS], SYNC, len(RECORDS))
    assert reasons(content, made.reader(limits=Limits(block_records=2))) == ["alert", "alert", "too_large"]


def _with(payload: bytes, count: int, *, before: int = 1) -> bytes:
    block = encode_block([*map(encoded, RECORDS[:before]), payload], SYNC, count)
    return container(RECORDS[4]) + block + encode_block([encoded(RECORDS[3])], SYNC)


BLOCKS: dict[str, tuple[bytes, list[str]]] = {
    "billions of records announced": (_with(b"", GIGA), ["alert", "alert", "record", "alert"]),
    "bytes behind the last record": (_with(b"rest", 1), ["alert", "alert", "record", "alert"]),
    "a record too many behind": (_with(encoded(RECORDS[1]), 1), ["alert", "alert", "record", "alert"]),
    "fewer records than announced": (_with(b"", 3), ["alert", "alert", "record", "alert"]),
    "a record that can't be read": (_with(b"\xff" * 2000, 2), ["alert", "alert", "record", "alert"]),
    "unreadable, then another": (
        _with(b"\xff" * 2000 + encoded(RECORDS[1]), 3),
        ["alert", "alert", "record", "alert"],
    ),
}


@pytest.mark.parametrize(("content", "expected"), BLOCKS.values(), ids=BLOCKS.keys())
def test_the_rest_of_a_block_is_one_rejection(content: bytes, expected: list[str]) -> None:
    read_both(content)
    assert reasons(content) == expected


@pytest.mark.parametrize(
    "content", [content for content, _ in (*ANNOUNCED.values(), *BLOCKS.values())], ids=[*ANNOUNCED, *BLOCKS]
)
def test_a_rejected_packet_read_again_has_the_same_reason_and_origin(content: bytes) -> None:
    for item in items(content):
        if isinstance(item, Rejected):
            (again,) = made.BOTH[0].read(Packet(item.origin, item.packet))
            assert isinstance(again, Rejected)
            assert again.rejection.reason == item.rejection.reason
            assert again.origin == item.origin
            assert again.packet == item.packet


def test_the_original_of_an_alert_read_again_has_its_origin() -> None:
    for item in items(container(*RECORDS)):
        assert isinstance(item, Alert)
        (again,) = made.BOTH[0].read(Packet(item.origin, item.original()))
        assert again.origin == item.origin


def test_blocks_cut_from_a_container_are_read_as_in_it() -> None:
    content = container(*RECORDS)
    whole = items(content)
    head, cut = read_header(content, made.LIMITS).length, whole[2].origin.offset
    rest = Packet(whole[2].origin, content[cut:], content[:head])
    for apart, together in zip(made.BOTH[0].read(rest), whole[2:], strict=True):
        assert isinstance(apart, Alert)
        assert isinstance(together, Alert)
        assert (apart.origin, apart.candid) == (together.origin, together.candid)
        assert made.decoded(apart.original()) == made.decoded(together.original())


def test_packets_found_in_the_wild_have_their_reasons(shared_data: Path) -> None:
    found = {path.name: read_both(path.read_bytes()) for path in (shared_data / "ztf/malformed").iterdir()}
    kinds = {name: [getattr(i, "rejection", None) and i.rejection.reason for i in read] for name, read in found.items()}
    assert len(kinds) == 5
    assert sum(reason is None for reasons in kinds.values() for reason in reasons) >= 1
    for path in (shared_data / "other-surveys").glob("*.avro"):
        assert reasons(path.read_bytes()) == ["not_avro" if path.name.startswith("lsst") else "layout"]


def test_a_packet_that_unfolds_to_gigabytes_is_broken_off() -> None:
    limits = Limits(packet_bytes=1 << 20)
    bomb = made.container(*[made.record(publisher="x" * 700_000)] * 40, codec="deflate")
    assert len(bomb) < 1 << 20
    with bounded(64, 20):
        found = made.reasons(bomb, made.reader(limits=limits))
    assert found == ["alert"] * 6 + ["too_large"]
