"""Members of a tar, one after the other, in flat memory: a tar is never unpacked, and none ends unnoticed."""

import io
import os
import tarfile
from collections.abc import Iterator
from typing import Any, NamedTuple

from rbstream.errors import Rejection
from rbstream.packet.alert import Origin, Rejected
from rbstream.settings import Limits

# Long names and PAX attributes are read whole by tarfile; a real one has some hundred bytes.
MAX_EXTENDED_HEADER_BYTES = 1 << 16
_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.SOLARIS_XHDTYPE,
)


class Member(NamedTuple):
    """A regular file in a tar: its place, and its bytes where the tar can't be read again."""

    name: str
    offset: int
    size: int
    content: bytes | None


class _Header(tarfile.TarInfo):
    """A header that refuses to take memory for what an attacker announces, and notices the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        header = super().frombuf(buf, encoding, errors)
        if header.type in _EXTENDED and header.size > MAX_EXTENDED_HEADER_BYTES:
            raise tarfile.ReadError(f"an extended header of {header.size} bytes")
        return header

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> "_Header":
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # a block of zeros: the archive's proper end
            tar.ended = True  # type: ignore[attr-defined]
            raise

    def _refuse_sparse(self, *_: object) -> "_Header":
        raise tarfile.ReadError("a sparse member, which can't be streamed")

    # Four formats of it, each with a map that is as long as whoever wrote it likes.
    _proc_sparse = _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse_sparse


class _Ending:
    """A file that says so where it is read behind its end: tarfile would skip an announced petabyte in tiny steps."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self._ended = False

    def read(self, size: int) -> bytes:
        content = self._file.read(size)
        if not content and self._ended:
            raise EOFError("the data end before what was announced")
        self._ended = not content
        return content


class _Tar(tarfile.TarFile):
    tarinfo = _Header
    ended = False


def members(file: io.BufferedReader, name: str, seekable: bool, limits: Limits) -> Iterator[Member | Rejected]:
    """The regular members in order; and a rejection where one is too large or the tar breaks off."""
    at = 0
    end = os.fstat(file.fileno()).st_size if seekable else None
    try:
        opened: Any = file if seekable else _Ending(file)
        with _Tar.open(fileobj=opened, mode="r:" if seekable else "r|") as tar:
            while (header := tar.next()) is not None:
                # tarfile keeps every header and attribute, which grow with the night.
                tar.members.clear()  # type: ignore[attr-defined]
                tar.pax_headers.clear()  # type: ignore[attr-defined]
                if header.size < 0 or header.offset < at:
                    raise tarfile.ReadError("a member of negative size")
                at = header.offset
                if end is not None and header.offset_data + header.size > end:
                    yield _broken(Origin(name, header.name, offset=at), "ends inside this member: cut short")
                    return
                if header.isreg():
                    yield _member(tar, header, name, seekable, limits)
            if not tar.ended:
                yield _broken(Origin(name, offset=tar.offset), "ends without its end-of-archive block: cut short")
    except (tarfile.TarError, EOFError, OSError, ValueError, RecursionError) as error:
        # tarfile calls itself for each attribute header in a row: a thousand of them are an attack.
        yield _broken(Origin(name, offset=at), f"breaks off behind the member at byte {at}: {error}")


def _member(
    tar: tarfile.TarFile, header: tarfile.TarInfo, name: str, seekable: bool, limits: Limits
) -> Member | Rejected:
    if header.size > limits.packet_bytes:
        detail = f"member of {header.size} bytes; the limit is {limits.packet_bytes}"
        origin = Origin(name, header.name, offset=header.offset)
        return Rejected(Rejection("container", "too_large", detail), origin, b"")
    if seekable:
        return Member(header.name, header.offset_data, header.size, None)
    stream = tar.extractfile(header)
    assert stream is not None  # a regular member has one
    content = stream.read()
    if len(content) < header.size:
        raise tarfile.ReadError(f"{header.size - len(content)} bytes of {header.name} are missing")
    return Member(header.name, header.offset_data, header.size, content)


def _broken(origin: Origin, detail: str) -> Rejected:
    return Rejected(Rejection("container", "tar", f"tar {detail}"), origin, b"")
