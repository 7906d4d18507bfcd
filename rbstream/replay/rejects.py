"""The rejects file: packets that could not be scored, kept with their original bytes to be taken up again."""

import hashlib
import io
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import fastavro
from fastavro.schema import SchemaParseException, UnknownType, to_parsing_canonical_form

from rbstream.errors import Rejection
from rbstream.files import data_path
from rbstream.output import utf8
from rbstream.packet.alert import Origin, Packet, Rejected
from rbstream.packet.container import (
    SYNC_BYTES,
    Block,
    BrokenOffError,
    Header,
    encode_block,
    encode_header,
    read_blocks,
    read_header,
)
from rbstream.replay.blocks import block_groups
from rbstream.settings import Limits

# A reject may hold as much as a block over the limit and what follows it, and its header.
PACKETS_IN_A_REJECT = 3
_SCHEMA_ERRORS = (SchemaParseException, UnknownType, KeyError, TypeError, AttributeError)


@cache
def _schema() -> tuple[Any, bytes, bytes]:
    """The schema parsed and as text, and the container's sync marker (derived: same input, same bytes)."""
    raw = json.loads(data_path("schemas/rbstream.reject.avsc").read_text(encoding="utf-8"))
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
        "detail": utf8(rejection.detail),
        "file": utf8(origin.file),
        "member": None if origin.member is None else utf8(origin.member),
        "record": origin.record,
        "offset": origin.offset,
        "packet": rejected.packet,
    }
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, parsed, record)
    return encode_block([buffer.getvalue()], sync)


def is_rejects(header: Header) -> bool:
    """Whether a container is a rejects file, by its schema: also one that others have read and written again."""
    if b'"packet"' not in header.schema:  # parsing each packet's schema would cost more than decoding it
        return False
    try:
        found = to_parsing_canonical_form(json.loads(header.schema))
    except (ValueError, RecursionError, *_SCHEMA_ERRORS):
        return False
    return bool(found == to_parsing_canonical_form(_schema()[0]))


def rejected_packets(
    name: str, file: io.BufferedReader, head: bytes, header: Header, limits: Limits
) -> Iterator[Packet | Rejected]:
    """The packets in a rejects file, each with the origin it had; and a rejection where the file breaks off.

    file: stands behind the header, `head`.
    """
    # What was refused as too large was kept with as much of what follows.
    limits = limits.model_copy(update={"packet_bytes": PACKETS_IN_A_REJECT * limits.packet_bytes})
    for group in block_groups(file, header, 1, limits):
        try:
            for block in read_blocks(group.content, 0, header, limits):
                yield from _taken_up(block, limits)
        except BrokenOffError as broken:
            origin = Origin(name, None, group.first_record, group.offset)
            yield Rejected(broken.rejection, origin, head + group.content)
        except (EOFError, ValueError, IndexError, TypeError) as error:
            rejection = Rejection("record", "record", f"in a rejects file: {type(error).__name__}: {error}")
            origin = Origin(name, None, group.first_record, group.offset)
            yield Rejected(rejection, origin, head + group.content)


def _taken_up(block: Block, limits: Limits) -> Iterator[Packet]:
    parsed, _, _ = _schema()
    records = io.BytesIO(block.data[block.start : block.end])
    for _ in range(block.count):
        record: Any = fastavro.schemaless_reader(records, parsed, None)
        content = record["packet"]
        # Offsets count from the start of the input, whose header the packet now starts with once more; one that was
        # refused for its header stays at 0.
        offset = record["offset"] and record["offset"] - _header_length(content, limits)
        yield Packet(Origin(record["file"], record["member"], record["record"], offset), content)


def _header_length(content: bytes, limits: Limits) -> int:
    try:
        return read_header(content, limits).length
    except Rejection:
        return 0
