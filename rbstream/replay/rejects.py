"""The rejects file: packets that could not be scored, kept with their original bytes to be taken up again."""

import hashlib
import io
import json
from collections.abc import Iterator
from functools import cache
from typing import Any, BinaryIO

import fastavro

from rbstream.errors import Rejection
from rbstream.files import data_path
from rbstream.packet.alert import Origin, Packet, Rejected
from rbstream.packet.container import SYNC_BYTES, encode_block, encode_header

REJECT_SCHEMA_NAME = "rbstream.Reject"


@cache
def _schema() -> tuple[Any, bytes, bytes]:
    """The schema parsed and as text, and the container's sync marker (derived: same input, same bytes)."""
    raw = json.loads(data_path("schemas/rbstream.reject.avsc").read_text(encoding="utf-8"))
    raw["name"], raw["namespace"] = REJECT_SCHEMA_NAME, ""
    text = json.dumps(raw).encode()
    return fastavro.parse_schema(raw), text, hashlib.sha256(text).digest()[:SYNC_BYTES]


def rejects_header() -> bytes:
    """The header of a rejects file."""
    _, text, sync = _schema()
    return encode_header(text, sync)


def encode_reject(rejected: Rejected) -> bytes:
    """One block of a rejects file."""
    parsed, _, sync = _schema()
    rejection, origin = rejected.rejection, rejected.origin
    record = {
        "stage": rejection.stage,
        "reason": rejection.reason,
        "detail": _text(rejection.detail),
        "file": _text(origin.file),
        "member": None if origin.member is None else _text(origin.member),
        "record": origin.record,
        "offset": origin.offset,
        "packet": rejected.packet,
    }
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, parsed, record)
    return encode_block([buffer.getvalue()], sync)


def rejected_packets(name: str, file: BinaryIO) -> Iterator[Packet | Rejected]:
    """The packets in a rejects file, each with the origin it had; and a rejection where the file breaks off."""
    number = 0
    try:
        for record in fastavro.reader(file):
            origin = Origin(record["file"], record["member"], record["record"], record["offset"])
            yield Packet(origin, record["packet"])
            number += 1
    except MemoryError:
        raise
    except Exception as error:  # fastavro raises many kinds on bad bytes; each of them means the same
        rejection = Rejection(
            "container", "truncated", f"rejects file breaks off: {type(error).__name__}: {error}"
        )
        yield Rejected(rejection, Origin(name, record=number), b"")


def _text(value: str) -> str:
    """File names may hold bytes that are no UTF-8; Avro's strings may not."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
