"""The blocks of a large container, one after the other, without decoding what is in them."""

import io
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from rbstream.packet.container import SYNC_BYTES, Header
from rbstream.packet.varint import MAX_BYTES, decode_long
from rbstream.settings import Limits


class BlockGroup(NamedTuple):
    """Neighbouring blocks as they stand in the file, from byte `offset` on."""

    content: bytes
    offset: int
    first_record: int
    records: int


class _Block(NamedTuple):
    content: bytes
    records: int
    whole: bool


def block_groups(file: io.BufferedReader, header: Header, size: int, limits: Limits) -> Iterator[BlockGroup]:
    """Blocks in groups of at least `size` bytes, from a file that stands behind the header.

    A block that isn't whole ends the last group, with up to `limits.packet_bytes` of what follows it: whoever reads
    the group says what is wrong with it.
    """
    offset, record = header.length, 0
    group, records, whole = bytearray(), 0, True
    while whole:
        content, count, whole = _next_block(file, header, limits)
        group += content
        records += count
        if len(group) >= size or (not whole and group):
            yield BlockGroup(bytes(group), offset, record, records)
            offset, record = offset + len(group), record + records
            group, records = bytearray(), 0


def _next_block(file: BinaryIO, header: Header, limits: Limits) -> _Block:
    """The next block; one that is not whole ends the container, and so does an empty one."""
    numbers = _long(file)
    start = numbers + _long(file)
    try:
        count, position = decode_long(start, 0)
        size, _ = decode_long(start, position)
    except (EOFError, ValueError):
        return _Block(start + file.read(limits.packet_bytes), 0, False)
    if count < 0 or not 0 <= size <= limits.packet_bytes:
        return _Block(start + file.read(limits.packet_bytes), 0, False)
    body = file.read(size + SYNC_BYTES)
    if len(body) == size + SYNC_BYTES and body.endswith(header.sync):
        return _Block(start + body, count, True)
    return _Block(start + body + file.read(limits.packet_bytes), 0, False)


def _long(file: BinaryIO) -> bytes:
    """The bytes of one Avro long."""
    read = b""
    while len(read) < MAX_BYTES:
        byte = file.read(1)
        read += byte
        if not byte or byte[0] < 0x80:
            break
    return read
