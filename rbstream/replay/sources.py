"""Paths to pieces: what to read, in order, without reading more of it than has to be cut.

A piece is a packet, or some blocks of a large container. Of archives and large containers in plain files only the
place is handed on, and whoever decodes reads them; of standard input and compressed archives the bytes are.
"""

import glob
import gzip
import io
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, cast

from rbstream.errors import Rejection, UsageError
from rbstream.packet.alert import Origin, Packet, Rejected
from rbstream.packet.container import HEADER_SLACK_BYTES, MAGIC, Header, read_header
from rbstream.replay.blocks import BlockGroup, block_groups
from rbstream.replay.rejects import is_rejects, rejected_packets
from rbstream.replay.streams import BUFFER_BYTES, Gunzipped, joined
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
    if paths.count(STDIN) > 1:
        raise UsageError("-: standard input can be read only once")
    if STDIN in paths and sys.stdin is None:
        raise UsageError("-: standard input is closed")
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
            files = (file for file in sorted(Path(folder).rglob("*")) if _is_night(file))
            here += [str(file) for file in files if not _is_hidden(file.relative_to(folder))]
        if not here:
            what = "no file in it ends in " + ", ".join(SUFFIXES) if folders else "no such file or folder"
            raise UsageError(f"{path}: {what}")
        found += here
    return found


def _is_night(file: Path) -> bool:
    return file.name.lower().endswith(SUFFIXES) and file.is_file()


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


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
                        path = name if self._file.seekable() else None
                        yield from _stream(name, self._file, path, self._limits)
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
    return Rejected(Rejection("container", "unreadable", f"can't be read: {error.strerror or error}"), origin, b"")


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
    """The pieces of one input. path: where pieces can be read again, if they can."""
    start = file.read(SNIFFED_BYTES)
    if not start.startswith(GZIP_MAGIC):
        yield from _plain(name, start, file, path, limits)
        return
    unzipped = Gunzipped(gzip.GzipFile(fileobj=joined(start, file)))
    inner = joined(b"", cast(BinaryIO, unzipped))
    source: Source | None = None
    for source in _plain(name, inner.read(SNIFFED_BYTES), inner, None, limits):
        yield source
    if isinstance(source, Rejected) and source.rejection.reason != "too_large":
        return  # the archive in it broke off: that was said already
    while unzipped.read(BUFFER_BYTES):
        pass  # what is behind a tar's end: only then gzip compares its checksum, and tells of damage in what was read
    if unzipped.error is not None:
        yield Rejected(Rejection("container", "gzip", f"gzip: {unzipped.error}"), Origin(name), b"")


def _plain(name: str, start: bytes, file: BinaryIO, path: str | None, limits: Limits) -> Iterator[Source]:
    """The pieces of what is not compressed, by what it begins with: `start`, already read from the file."""
    if path is None:
        whole = joined(start, file)
    else:
        file.seek(0)
        whole = cast(io.BufferedReader, file)
    if _is_tar(name, start):
        for member in members(whole, name, path is not None, limits):
            yield _member_piece(name, member, path)
    elif start.startswith(MAGIC):
        yield from _container(name, whole, path, limits)
    else:  # not a packet: the reader says what it is instead
        yield Piece(Origin(name), content=whole.read(limits.packet_bytes))


def _is_tar(name: str, start: bytes) -> bool:
    """Whether a file that starts so is a tar: a header, or (by name) the zeros that end one without members.

    Without the name, zeros are what a crash leaves of any file.
    """
    return start[TAR_MAGIC_OFFSET:].startswith(TAR_MAGIC) or (
        start == bytes(SNIFFED_BYTES) and name.lower().endswith(SUFFIXES[1:])
    )


def _member_piece(name: str, member: Member | Rejected, path: str | None) -> Source:
    if isinstance(member, Rejected):
        return member
    origin = Origin(name, member.name)
    if member.content is not None or path is None:
        return Piece(origin, content=member.content, length=member.size)
    return Piece(origin, path=path, offset=member.offset, length=member.size)


def _container(name: str, file: io.BufferedReader, path: str | None, limits: Limits) -> Iterator[Source]:
    """A container whole if it is small, else in groups of blocks, up to where it breaks off."""
    small = max(PIECE_BYTES, limits.schema_bytes + HEADER_SLACK_BYTES)
    content = file.read(small)
    try:
        header = read_header(content, limits)
    except Rejection:
        yield Piece(Origin(name), content=content + file.read(limits.packet_bytes))
        return
    if is_rejects(header):
        head, rest = content[: header.length], joined(content[header.length :], file)
        yield from rejected_packets(name, rest, head, header, limits)
    elif len(content) < small:
        yield Piece(Origin(name), content=content)
    else:
        head, rest = content[: header.length], joined(content[header.length :], file)
        for group in block_groups(rest, header, PIECE_BYTES, limits):
            yield _group_piece(name, head, header, group, path)


def _group_piece(name: str, head: bytes, header: Header, group: BlockGroup, path: str | None) -> Piece:
    origin = Origin(name, None, group.first_record, group.offset)
    content = group.content if path is None else None
    return Piece(origin, head, content, path or "", group.offset, len(group.content), group.records)
