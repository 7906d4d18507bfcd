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
# The window of zstandard level 19, the highest that needs no leave: readers are to take at least this.
ZSTANDARD_WINDOW_BYTES = 8 << 20
# Real headers have two to five entries.
MAX_HEADER_ENTRIES = 256


@dataclass(frozen=True, slots=True)
class Header:
    """A container's header. length: its size in bytes, so that blocks start there."""

    schema: bytes
    codec: str
    sync: bytes
    length: int


@dataclass(frozen=True, slots=True)
class Block:
    """One block: `count` records in `data[start:end]`, decompressed.

    offset, behind: of its first byte, and of the byte behind its sync marker, where it was read.
    """

    offset: int
    behind: int
    count: int
    data: bytes
    start: int
    end: int


def read_header(data: bytes, limits: Limits) -> Header:
    """The header at the start of `data`.

    Raises Rejection: empty, not_avro, header, truncated, too_large, codec.
    """
    if not data:
        raise Rejection(STAGE, "empty", "no bytes at all")
    if not data.startswith(MAGIC):
        raise Rejection(STAGE, "not_avro", f"starts with {data[:4].hex(' ')}, not with Avro's {MAGIC.hex(' ')}")
    largest = limits.schema_bytes + HEADER_SLACK_BYTES
    try:
        return _parse_header(data[:largest], limits)
    except EOFError as error:
        if len(data) >= largest:
            raise Rejection(STAGE, "too_large", f"header of more than {largest} bytes") from error
        raise Rejection(STAGE, "truncated", f"header: {error}") from error
    except ValueError as error:
        raise Rejection(STAGE, "header", f"header: {error}") from error


def _parse_header(data: bytes, limits: Limits) -> Header:
    """Raises Rejection; EOFError where the data end too early, ValueError where they are no header."""
    metadata, position = _metadata(data, len(MAGIC))
    sync = data[position : position + SYNC_BYTES]
    if len(sync) < SYNC_BYTES:
        raise EOFError("the data end inside the sync marker")
    schema = metadata.get(b"avro.schema")
    if schema is None:
        raise Rejection(STAGE, "header", "no avro.schema in the header")
    if len(schema) > limits.schema_bytes:
        raise Rejection(STAGE, "too_large", f"schema of {len(schema)} bytes; the limit is {limits.schema_bytes}")
    codec = metadata.get(b"avro.codec", b"null").decode("ascii", "replace")
    if codec not in DECOMPRESS:
        raise Rejection(STAGE, "codec", f"codec {codec!r}; known are {', '.join(DECOMPRESS)}")
    return Header(schema, codec, sync, position + SYNC_BYTES)


def _metadata(data: bytes, position: int) -> tuple[dict[bytes, bytes], int]:
    """The header's map of bytes. Raises EOFError, ValueError."""
    metadata: dict[bytes, bytes] = {}
    entries = 0
    while True:
        count, position = decode_long(data, position)
        if count == 0:
            return metadata, position
        if count < 0:  # a negative count is followed by the size of the map's block
            count = -count
            _, position = decode_long(data, position)
        entries += count
        if entries > MAX_HEADER_ENTRIES:
            raise ValueError(f"{entries} entries; at most {MAX_HEADER_ENTRIES} are read")
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

    Raises BrokenOffError at the first that is cut short, has a wrong sync marker, is over the limits or can't
    be decompressed: nothing of it is given out. Its reasons: truncated, sync, too_large, block, codec.
    """
    while position < len(data):
        try:
            block = _block(data, position, header, limits)
        except Rejection as rejection:
            raise BrokenOffError(rejection, position) from None
        yield block
        position = block.behind


class BrokenOffError(Exception):
    """The container ends here: `rejection` says why, `offset` where the block began."""

    def __init__(self, rejection: Rejection, offset: int) -> None:
        super().__init__(str(rejection))
        self.rejection = rejection
        self.offset = offset


def _block(data: bytes, offset: int, header: Header, limits: Limits) -> Block:
    try:
        count, position = decode_long(data, offset)
        size, position = decode_long(data, position)
    except EOFError as error:
        raise Rejection(STAGE, "truncated", f"block: {error}") from error
    except ValueError as error:
        raise Rejection(STAGE, "block", f"block: {error}") from error
    if count < 0 or size < 0:
        raise Rejection(STAGE, "block", f"a block announces {count} records in {size} bytes")
    if size > limits.packet_bytes:
        raise Rejection(STAGE, "too_large", f"block of {size} bytes; the limit is {limits.packet_bytes}")
    end = position + size
    sync = data[end : end + SYNC_BYTES]
    if len(sync) < SYNC_BYTES:
        missing = end + SYNC_BYTES - len(data)
        raise Rejection(STAGE, "truncated", f"block of {size} bytes: the last {missing} are missing")
    if sync != header.sync:
        raise Rejection(STAGE, "sync", f"wrong sync marker behind a block of {size} bytes")
    if header.codec == "null":  # in place: a copy of 76 kB costs more than finding what is in it
        return Block(offset, end + SYNC_BYTES, count, data, position, end)
    payload = _decompress(header.codec, data[position:end], limits)
    return Block(offset, end + SYNC_BYTES, count, payload, 0, len(payload))


def _decompress(codec: str, stored: bytes, limits: Limits) -> bytes:
    try:
        return DECOMPRESS[codec](stored, limits.packet_bytes)
    except (Rejection, MemoryError):
        raise
    except Exception as error:  # each codec raises its own; all of them mean: these bytes are bad
        raise Rejection(STAGE, "codec", f"{codec} block can't be decompressed: {error}") from error


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
    engine = zstandard.ZstdDecompressor(max_window_size=max(limit, ZSTANDARD_WINDOW_BYTES))
    announced = zstandard.get_frame_parameters(stored).content_size
    if limit < announced < zstandard.CONTENTSIZE_UNKNOWN:
        raise _too_large(limit)
    try:
        return engine.decompress(stored, max_output_size=limit)
    except zstandard.ZstdError:
        # Too long and cut short look the same here; reading on tells them apart.
        if len(engine.stream_reader(stored).read(limit + 1)) > limit:
            raise _too_large(limit) from None
        raise


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


def encode_block(parts: list[bytes | memoryview], sync: bytes, count: int = 1, head: bytes = b"") -> bytes:
    """An uncompressed block of `count` records whose bytes are the parts joined, behind `head`."""
    size = sum(map(len, parts))
    return b"".join([head, encode_long(count), encode_long(size), *parts, sync])
