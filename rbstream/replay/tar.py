"""Members of a tar, one after the other, in flat memory: a tar is never unpacked, and none ends unnoticed."""

import io
import os
import tarfile
from collections.abc import Iterator
from typing import NamedTuple

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
    def frombuf(cls, buf: bytes | bytearray, encoding: str | None, errors: str) -> "_Header":
        header = super().frombuf(buf, encoding, errors)
        if header.type in _EXTENDED and header.size > MAX_EXTENDED_HEADER_BYTES:
            raise tarfile.ReadError(f"an extended header of {header.size} bytes")
        return header

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> "_Header":
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # a block of zeros: the archive's proper end
            tar.ended = True  # type: ignore[attr-defined]
            raise


def members(
    file: io.BufferedReader, name: str, seekable: bool, limits: Limits
) -> Iterator[Member | Rejected]:
    """The regular members in order; and a rejection where one is too large or the tar breaks off."""
    at = 0
    end = os.fstat(file.fileno()).st_size if seekable else None
    try:
        with tarfile.open(fileobj=file, mode="r:" if seekable else "r|", tarinfo=_Header) as tar:
            tar.ended = False  # type: ignore[attr-defined]
            while (header := tar.next()) is not None:
                tar.members.clear()  # tarfile keeps every header, which grows with the night
                at = header.offset
                if end is not None and header.offset_data + header.size > end:
                    yield _broken(Origin(name, header.name, offset=at), "ends inside this member: cut short")
                    return
                if header.isreg():
                    yield _member(tar, header, name, seekable, limits)
            if not tar.ended:  # type: ignore[attr-defined]
                yield _broken(
                    Origin(name, offset=tar.offset), "ends without its end-of-archive block: cut short"
                )
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        yield _broken(Origin(name, offset=at), f"breaks off behind the member at byte {at}: {error}")


def _member(
    tar: tarfile.TarFile, header: tarfile.TarInfo, name: str, seekable: bool, limits: Limits
) -> Member | Rejected:
    if header.size > limits.packet_bytes:
        detail = f"member of {header.size} bytes; the limit is {limits.packet_bytes}"
        return Rejected(Rejection("container", "too_large", detail), Origin(name, header.name), b"")
    if header.issparse():
        return _broken(
            Origin(name, header.name, offset=header.offset), "has a sparse member, which can't be streamed"
        )
    if seekable:
        return Member(header.name, header.offset_data, header.size, None)
    stream = tar.extractfile(header)
    assert stream is not None  # a regular member has one
    return Member(header.name, header.offset_data, header.size, stream.read())


def _broken(origin: Origin, detail: str) -> Rejected:
    return Rejected(Rejection("container", "tar", f"tar {detail}"), origin, b"")
