"""Avro object containers: header, blocks, codecs. Every size is checked before memory is taken."""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cramjam
import zstandard

from rbstream.errors import Rejection
from rbstream.packet.varint import decode_long, encode_long
from rbstream.settings import Limits

MAGIC = b"Obj\x01"
SYNC_BYTES = 16
STAGE = "container"
# Beside schema and codec, headers hold a few short notes; this is what they may take together.
HEADER_SLACK_BYTES = 1 << 16
# The largest Avro block header: two 64-bit longs.
BLOCK_HEADER_BYTES = 20


@dataclass(frozen=True, slots=True)
class Header:
    """A container's header. length: its size in bytes, so that blocks start there."""

    schema: bytes
    codec: str
    sync: bytes
    length: int


@dataclass(frozen=True, slots=True)
class Block:
    """One block: `count` records in `data[start:end]`, decompressed. offset: of its first byte where it was read."""

    offset: int
    count: int
    data: bytes
    start: int
    end: int


def read_header(data: bytes, limits: Limits) -> Header:
    """The header at the start of `data`. Raises Rejection: empty, not_avro, header, truncated, too_large, codec."""
    if not data:
        raise Rejection(STAGE, "empty", "no bytes at all")
    if not data.startswith(MAGIC):
        raise Rejection(
            STAGE, "not_avro", f"starts with {data[:4].hex(' ')}, not with Avro's {MAGIC.hex(' ')}"
        )
    return _parse_header(data[: limits.schema_bytes + HEADER_SLACK_BYTES], limits)


def _parse_header(data: bytes, limits: Limits) -> Header:
    try:
        metadata, position = _metadata(data, len(MAGIC))
    except (EOFError, ValueError) as error:
        if len(data) >= limits.schema_bytes + HEADER_SLACK_BYTES:
            raise Rejection(STAGE, "too_large", f"header over {len(data)} bytes") from error
        reason = "truncated" if isinstance(error, EOFError) else "header"
        raise Rejection(STAGE, reason, f"header: {error}") from error
    sync = data[position : position + SYNC_BYTES]
    if len(sync) < SYNC_BYTES:
        raise Rejection(STAGE, "truncated", "the data end inside the header's sync marker")
    schema = metadata.get(b"avro.schema")
    if schema is None:
        raise Rejection(STAGE, "header", "no avro.schema in the header")
    if len(schema) > limits.schema_bytes:
        raise Rejection(
            STAGE, "too_large", f"schema of {len(schema)} bytes; the limit is {limits.schema_bytes}"
        )
    codec = metadata.get(b"avro.codec", b"null").decode("ascii", "replace")
    if codec not in DECOMPRESS:
        raise Rejection(STAGE, "codec", f"codec {codec!r}; known are {', '.join(DECOMPRESS)}")
    return Header(schema, codec, sync, position + SYNC_BYTES)


def _metadata(data: bytes, position: int) -> tuple[dict[bytes, bytes], int]:
    """The header's map of bytes. Raises EOFError, ValueError."""
    metadata: dict[bytes, bytes] = {}
    while True:
        count, position = decode_long(data, position)
        if count == 0:
            return metadata, position
        if count < 0:  # a negative count is followed by the size of the map's block
            count = -count
            _, position = decode_long(data, position)
        for _ in range(count):
            key, position = _bytes(data, position)
            metadata[key], position = _bytes(data, position)


def _bytes(data: bytes, position: int) -> tuple[bytes, int]:
    size, position = decode_long(data, position)
    if size < 0:
        raise ValueError(f"a length of {size} at byte {position}")
    if position + size > len(data):
        raise EOFError(f"{size} bytes announced at byte {position}, {len(data) - position} there")
    return data[position : position + size], position + size


def read_blocks(data: bytes, position: int, header: Header, limits: Limits) -> Iterator[Block]:
    """The blocks from `position` to the end of `data`.

    Raises Rejection at the first that is cut short, has a wrong sync marker, is over the limits or can't be
    decompressed: nothing of that block is given out. The block's offset is `Rejection.offset`.
    """
    while position < len(data):
        try:
            block, position = _block(data, position, header, limits)
        except Rejection as rejection:
            raise BrokenOff(rejection, position) from None
        yield block


class BrokenOff(Exception):
    """The container ends here: `rejection` says why, `offset` where the block began."""

    def __init__(self, rejection: Rejection, offset: int) -> None:
        super().__init__(str(rejection))
        self.rejection = rejection
        self.offset = offset


def _block(data: bytes, offset: int, header: Header, limits: Limits) -> tuple[Block, int]:
    try:
        count, position = decode_long(data, offset)
        size, position = decode_long(data, position)
    except EOFError as error:
        raise Rejection(STAGE, "truncated", f"block at byte {offset}: {error}") from error
    except ValueError as error:
        raise Rejection(STAGE, "block", f"block at byte {offset}: {error}") from error
    if count < 0 or size < 0:
        raise Rejection(STAGE, "block", f"block at byte {offset} announces {count} records in {size} bytes")
    if size > limits.packet_bytes:
        raise Rejection(
            STAGE, "too_large", f"block of {size} bytes at byte {offset}; the limit is {limits.packet_bytes}"
        )
    end = position + size
    sync = data[end : end + SYNC_BYTES]
    if len(sync) < SYNC_BYTES:
        missing = end + SYNC_BYTES - len(data)
        raise Rejection(
            STAGE, "truncated", f"block of {size} bytes at byte {offset}: the last {missing} are missing"
        )
    if sync != header.sync:
        raise Rejection(STAGE, "sync", f"wrong sync marker at byte {end}, behind the block at byte {offset}")
    if header.codec == "null":  # in place: a copy of 76 kB costs more than finding what is in it
        return Block(offset, count, data, position, end), end + SYNC_BYTES
    payload = _decompress(header.codec, data[position:end], limits)
    return Block(offset, count, payload, 0, len(payload)), end + SYNC_BYTES


def _decompress(codec: str, stored: bytes, limits: Limits) -> bytes:
    try:
        payload = DECOMPRESS[codec](stored, limits.packet_bytes)
    except Rejection:
        raise
    except Exception as error:  # cramjam raises its own, by codec; all of them mean: these bytes are bad
        raise Rejection(STAGE, "codec", f"{codec} block can't be decompressed: {error}") from error
    return payload


def _too_large(limit: int) -> Rejection:
    return Rejection(STAGE, "too_large", f"block of more than {limit} bytes, decompressed")


def _deflate(stored: bytes, limit: int) -> bytes:
    engine = zlib.decompressobj(-15)
    payload = engine.decompress(stored, limit + 1)
    if len(payload) > limit:
        raise _too_large(limit)
    if not engine.eof:
        raise ValueError("the compressed data are cut short")
    return payload


def _snappy(stored: bytes, limit: int) -> bytes:
    body, checksum = stored[:-4], stored[-4:]
    if cramjam.snappy.decompress_raw_len(body) > limit:
        raise _too_large(limit)
    payload = bytes(cramjam.snappy.decompress_raw(body))
    if zlib.crc32(payload).to_bytes(4, "big") != checksum:
        raise ValueError("checksum is wrong")
    return payload


def _zstandard(stored: bytes, limit: int) -> bytes:
    with zstandard.ZstdDecompressor().stream_reader(stored) as reader:
        payload: bytes = reader.read(limit + 1)
    if len(payload) > limit:
        raise _too_large(limit)
    return payload


DECOMPRESS: dict[str, Callable[[bytes, int], bytes]] = {
    "null": lambda stored, limit: stored,
    "deflate": _deflate,
    "snappy": _snappy,
    "zstandard": _zstandard,
}


def encode_header(schema: bytes, sync: bytes) -> bytes:
    """The header of an uncompressed container."""
    entries = {b"avro.schema": schema, b"avro.codec": b"null"}
    pairs = b"".join(encode_long(len(x)) + x for entry in entries.items() for x in entry)
    return MAGIC + encode_long(len(entries)) + pairs + encode_long(0) + sync


def encode_block(parts: list[bytes | memoryview], sync: bytes, count: int = 1) -> bytes:
    """An uncompressed block of `count` records whose bytes are the parts joined."""
    size = sum(map(len, parts))
    return b"".join([encode_long(count), encode_long(size), *parts, sync])
