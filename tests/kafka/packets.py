"""Packets to publish, as many as wanted and no two alike: simulated alerts, and a share of malformed ones."""

import gzip
import io
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import fastavro
import numpy as np
from tiny import split

from rbstream.packet.varint import encode_long
from rbstream.simulate import simulate_night

SYNC_BYTES = 16
# Candids of a simulated night differ in the last twelve digits of nineteen: this tells a million packets apart.
CANDID_STEP = 10**12
GZIP_MAGIC = b"\x1f\x8b"
UPSTREAM = 0.625


class Made(NamedTuple):
    """A message to publish. kind: `valid`, or one of MALFORMED. content: None is Kafka's null."""

    kind: str
    key: bytes
    content: bytes | None


class Template(NamedTuple):
    """A simulated alert that others are made from by giving it another candid."""

    candid: int
    object_id: str
    content: bytes

    def numbered(self, more: int) -> bytes:
        """The same alert under another candid, as long in Avro's bytes: everything else stays where it is."""
        old, new = encode_long(self.candid), encode_long(self.candid + more)
        assert len(old) == len(new)
        assert self.content.count(old) == 2, "candid stands in the alert and in its candidate"
        return self.content.replace(old, new)


def templates(folder: Path, alerts: int = 200, seed: int = 1) -> list[Template]:
    """A simulated night in a folder, which is made there if it is not there yet."""
    night = folder / f"night-{alerts}-{seed}.avro"
    if not night.exists():
        simulate_night(night, alerts, seed)
    contents = split(night)
    with night.open("rb") as file:
        records = list(fastavro.reader(file))
    return [Template(r["candid"], r["objectId"], packet) for r, packet in zip(records, contents, strict=True)]


def make_packets(base: list[Template], n: int, malformed: float = 0.05, seed: int = 1) -> Iterator[Made]:
    """`n` messages of which about a share `malformed` can't be scored, or not all of it; always the same for a seed."""
    draw = random.Random(seed)
    kinds = list(MALFORMED)
    for number in range(n):
        template = draw.choice(base)
        packet = template.numbered(number * CANDID_STEP)
        kind = draw.choice(kinds) if draw.random() < malformed else "valid"
        content = MALFORMED[kind](packet, draw) if kind in MALFORMED else packet
        yield Made(kind, template.object_id.encode(), content)


def changed(packets: Iterator[Made]) -> Iterator[Made]:
    """The same, with one in ten of the valid ones scored upstream, one with a masked pixel, one at the chip's edge."""
    changes = {0: scored_upstream, 1: masked, 2: at_the_edge}
    for number, made in enumerate(packets):
        change = changes.get(number % 10)
        plain = change is None or made.kind != "valid" or made.content is None
        yield made if plain else made._replace(content=change(made.content))


def edited(packet: bytes, edit: Callable[[dict[str, Any]], None]) -> bytes:
    """The packet with its record edited in place."""
    reader = fastavro.reader(io.BytesIO(packet))
    record: Any = next(reader)
    edit(record)
    buffer = io.BytesIO()
    fastavro.writer(buffer, reader.writer_schema or {}, [record])
    return buffer.getvalue()


def scored_upstream(packet: bytes) -> bytes:
    return edited(packet, lambda record: record["candidate"].update(drb=UPSTREAM))


def masked(packet: bytes) -> bytes:
    return edited(packet, lambda record: mask(record["cutoutScience"], slice(30, 31)))


def at_the_edge(packet: bytes) -> bytes:
    return edited(packet, lambda record: mask(record["cutoutScience"], slice(-3, None)))


def mask(stamp: dict[str, Any], rows: slice) -> None:
    fits = bytearray(gzip.decompress(stamp["stampData"]))
    # One in a hundred is cut short by the chip's edge.
    height, width = (int(re.search(rb"NAXIS%d *= *(\d+)" % axis, fits)[1]) for axis in (2, 1))
    pixels: Any = np.frombuffer(fits, ">f4", height * width, offset=2880).reshape(height, width)
    pixels[rows] = np.nan
    stamp["stampData"] = gzip.compress(fits)


def _truncated(packet: bytes, draw: random.Random) -> bytes:
    return packet[: draw.randrange(1, len(packet))]


def _flipped(packet: bytes, draw: random.Random) -> bytes:
    """Some bytes changed in the record: mostly in a stamp, whose checksum then fails."""
    content = bytearray(packet)
    for _ in range(3):
        content[draw.randrange(packet.index(GZIP_MAGIC), len(packet))] ^= draw.randrange(1, 256)
    return bytes(content)


def _not_avro(packet: bytes, draw: random.Random) -> bytes:
    return f'{{"candid": {draw.randrange(10**12)}}}'.encode()


def _wrong_sync(packet: bytes, draw: random.Random) -> bytes:
    return packet[:-SYNC_BYTES] + draw.randbytes(SYNC_BYTES)


def _bad_cutout(packet: bytes, draw: random.Random) -> bytes:
    stamp = packet.rindex(GZIP_MAGIC)
    return packet[:stamp] + b"no" + packet[stamp + 2 :]


def _double(packet: bytes, draw: random.Random) -> bytes:
    """Two records: this one, and once more with a stamp that can't be read."""
    header = packet.index(packet[-SYNC_BYTES:]) + SYNC_BYTES
    return packet + _bad_cutout(packet, draw)[header:]


MALFORMED: dict[str, Callable[[bytes, random.Random], bytes | None]] = {
    "truncated": _truncated,
    "flipped": _flipped,
    "empty": lambda packet, draw: b"",
    "null": lambda packet, draw: None,
    "not_avro": _not_avro,
    "wrong_sync": _wrong_sync,
    "bad_cutout": _bad_cutout,
    "double": _double,
}
