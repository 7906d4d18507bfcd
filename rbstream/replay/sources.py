"""Paths to pieces: what to read, in order, without reading more of it than has to be cut.

A piece is a packet, or some blocks of a large container. Of plain files only the place is handed on, and whoever
decodes reads them; of standard input and compressed archives the bytes are.
"""

import glob
import gzip
import io
import os
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, cast

from rbstream.errors import Rejection, UsageError
from rbstream.packet.alert import Origin, Packet, Rejected
from rbstream.packet.container import MAGIC, SYNC_BYTES, Header, read_header
from rbstream.packet.varint import MAX_BYTES, decode_long
from rbstream.replay.rejects import REJECT_SCHEMA_NAME, rejected_packets
from rbstream.replay.tar import Member, members
from rbstream.settings import Limits

STDIN = "-"
SUFFIXES = (".avro", ".tar", ".tar.gz", ".tgz")
GZIP_MAGIC = b"\x1f\x8b"
# Where the word "ustar" stands in a tar's first header (POSIX.1-1988).
TAR_MAGIC, TAR_MAGIC_OFFSET = b"ustar", 257
SNIFFED_BYTES = 512
# A container up to this size is one piece; of a larger one, so much is. Some ten packets: little enough to spread
# over processes, enough that cutting costs nothing beside decoding.
PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes, or where they are: `length` bytes from `offset` of `path`.

    header: of the container, where the bytes are blocks of one. records: how many alerts to expect.
    """

    origin: Origin
    header: bytes | None = None
    content: bytes | None = None
    path: str = ""
    offset: int = 0
    length: int = 0
    records: int = 1


Source = Piece | Packet | Rejected


def find_inputs(paths: list[str]) -> list[str]:
    """The files behind files, folders (searched for `SUFFIXES`) and globs, sorted within each; `-` stays.

    Raises UsageError where a path leads to nothing.
    """
    found: list[str] = []
    for path in paths:
        if path == STDIN or os.path.isfile(path) or (os.path.exists(path) and not os.path.isdir(path)):
            found.append(path)
            continue
        folders = [path] if os.path.isdir(path) else []
        matches = [] if folders else sorted(glob.glob(path, recursive=True))
        folders += [match for match in matches if os.path.isdir(match)]
        here = [match for match in matches if not os.path.isdir(match)]
        for folder in folders:
            here += [str(file) for file in sorted(Path(folder).rglob("*")) if _is_night(file)]
        if not here:
            what = "no file in it ends in " + ", ".join(SUFFIXES) if folders else "no such file or folder"
            raise UsageError(f"{path}: {what}")
        found += here
    return found


def _is_night(file: Path) -> bool:
    return file.name.lower().endswith(SUFFIXES) and not file.name.startswith(".") and file.is_file()


class Inputs:
    """What there is to decode in some files, in order. total: bytes in them, None with standard input among them."""

    def __init__(self, names: list[str], limits: Limits) -> None:
        self._names = names
        self._limits = limits
        self._behind = 0
        self._file: BinaryIO | None = None
        self.total = None if STDIN in names else sum(map(_file_size, names))

    @property
    def position(self) -> int:
        """Bytes behind what was cut last."""
        return self._behind + (self._file.tell() if self._file is not None and self._file.seekable() else 0)

    def __iter__(self) -> Iterator[Source]:
        """Pieces; and a rejection for each input that can't be opened or breaks off."""
        for name in self._names:
            try:
                if name == STDIN:
                    yield from _stream(name, sys.stdin.buffer, None, self._limits)
                else:
                    with open(name, "rb") as self._file:
                        yield from _stream(name, self._file, name if self._file.seekable() else None, self._limits)
            except OSError as error:
                yield _unreadable(Origin(name), error)
            self._file = None
            self._behind += 0 if name == STDIN else _file_size(name)


def _file_size(name: str) -> int:
    try:
        return os.path.getsize(name)
    except OSError:
        return 0  # gone or not readable: a rejection when its turn comes


def _unreadable(origin: Origin, error: OSError) -> Rejected:
    return Rejected(
        Rejection("container", "unreadable", f"can't be read: {error.strerror or error}"), origin, b""
    )


def load(source: Source, limits: Limits) -> Packet | Rejected:
    """A source with its bytes."""
    if not isinstance(source, Piece):
        return source
    if source.content is not None:
        return Packet(source.origin, source.content, source.header)
    try:
        content = os.pread(_descriptor(source.path), source.length, source.offset)
    except OSError as error:
        return _unreadable(source.origin, error)
    return Packet(source.origin, content, source.header)


class _File:
    """An open file that is closed when it falls out of the cache."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


# A tar is opened once, not once a member; a folder's files come one after the other.
@lru_cache(maxsize=4)
def _open(path: str) -> _File:
    return _File(path)


def _descriptor(path: str) -> int:
    return _open(path).descriptor


def _stream(name: str, file: BinaryIO, path: str | None, limits: Limits) -> Iterator[Source]:
    """The pieces of one input, by what it begins with. path: where pieces can be read again, if they can."""
    start = file.read(SNIFFED_BYTES)
    if path is not None:
        file.seek(0)
        whole = cast(io.BufferedReader, file)
    else:
        whole = io.BufferedReader(_Joined(start, file), PIECE_BYTES)
    if start.startswith(GZIP_MAGIC):
        try:
            yield from _stream(name, cast(BinaryIO, gzip.GzipFile(fileobj=whole)), None, limits)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            yield Rejected(Rejection("container", "gzip", f"gzip: {error}"), Origin(name), b"")
    elif start[TAR_MAGIC_OFFSET:].startswith(TAR_MAGIC):
        yield from (
            _member_piece(name, member, path) for member in members(whole, name, path is not None, limits)
        )
    elif start.startswith(MAGIC):
        yield from _container(name, whole, path, limits)
    else:  # not a packet: the reader says what it is instead
        yield Piece(Origin(name), content=whole.read(limits.packet_bytes))


def _member_piece(name: str, member: Member | Rejected, path: str | None) -> Source:
    if isinstance(member, Rejected):
        return member
    origin = Origin(name, member.name)
    if member.content is not None or path is None:
        return Piece(origin, content=member.content, length=member.size)
    return Piece(origin, path=path, offset=member.offset, length=member.size)


def _container(name: str, file: io.BufferedReader, path: str | None, limits: Limits) -> Iterator[Source]:
    """A container whole if it is small, else in groups of blocks, up to where it breaks off."""
    content = file.read(PIECE_BYTES)
    try:
        header = read_header(content, limits)
    except Rejection:
        yield Piece(Origin(name), content=content)
        return
    if REJECT_SCHEMA_NAME.encode() in header.schema:
        yield from rejected_packets(name, io.BufferedReader(_Joined(content, file)))
    elif len(content) < PIECE_BYTES:
        yield Piece(Origin(name), content=content)
    else:
        rest = io.BufferedReader(_Joined(content[header.length :], file), PIECE_BYTES)
        yield from _groups(name, rest, content[: header.length], header, path, limits)


class _Joined(io.RawIOBase):
    """Bytes already read, then the rest of the file."""

    def __init__(self, start: bytes, rest: BinaryIO) -> None:
        self._start = memoryview(start)
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self._start:
            return self._rest.readinto(buffer)  # type: ignore[attr-defined,no-any-return]
        size = min(len(buffer), len(self._start))
        buffer[:size] = self._start[:size]
        self._start = self._start[size:]
        return size


def _groups(
    name: str, file: io.BufferedReader, head: bytes, header: Header, path: str | None, limits: Limits
) -> Iterator[Source]:
    """Blocks in groups of about `PIECE_BYTES`. A block that isn't whole ends the last group: the reader says why."""
    offset, record = header.length, 0
    group, records, whole = bytearray(), 0, True
    while whole:
        block, count, whole = _next_block(file, header, limits)
        group += block
        records += count
        if len(group) >= PIECE_BYTES or (not whole and group):
            origin = Origin(name, None, record, offset)
            content = None if path else bytes(group)
            yield Piece(origin, head, content, path or "", offset, len(group), records)
            offset, record = offset + len(group), record + records
            group, records = bytearray(), 0


def _next_block(file: BinaryIO, header: Header, limits: Limits) -> tuple[bytes, int, bool]:
    """A block's bytes and its count of records; and whether the container goes on behind it."""
    numbers = _long(file)
    start = numbers + _long(file)
    try:
        count, position = decode_long(start, 0)
        size, _ = decode_long(start, position)
    except (EOFError, ValueError):
        return start, 0, False
    if count < 0 or not 0 <= size <= limits.packet_bytes:
        return start + file.read(limits.packet_bytes), 0, False
    body = file.read(size + SYNC_BYTES)
    whole = len(body) == size + SYNC_BYTES and body.endswith(header.sync)
    return start + body, count, whole


def _long(file: BinaryIO) -> bytes:
    """The bytes of one Avro long."""
    read = b""
    while len(read) < MAX_BYTES:
        byte = file.read(1)
        read += byte
        if not byte or byte[0] < 0x80:
            break
    return read
