"""Files that are read once, from the front: put together again after a look at their start, or unzipped."""

import gzip
import io
import zlib
from typing import BinaryIO, cast

BUFFER_BYTES = 1 << 20


def joined(start: bytes, rest: BinaryIO) -> io.BufferedReader:
    """Bytes already read, then the rest of the file."""
    return io.BufferedReader(cast(io.RawIOBase, _Joined(start, rest)), BUFFER_BYTES)


class _Joined(io.RawIOBase):
    def __init__(self, start: bytes, rest: BinaryIO) -> None:
        self._start = memoryview(start)
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self._start:
            # One read of what is there: a pipe's bytes are used as they come.
            return self._rest.readinto1(buffer)  # type: ignore[attr-defined,no-any-return]
        size = min(len(buffer), len(self._start))
        buffer[:size] = self._start[:size]
        self._start = self._start[size:]
        return size


class Gunzipped(io.RawIOBase):
    """What a gzip file unzips to, up to where it ends or breaks off; `error` then says why.

    An exception instead would take along what a reader had in its buffer: whole packets.
    """

    def __init__(self, file: gzip.GzipFile) -> None:
        self._file = file
        self.error: Exception | None = None

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; none at the end."""
        try:
            return self._file.read1(size)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            self.error = error
            return b""

    def readinto1(self, buffer: memoryview) -> int:
        """As a buffered file's."""
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)
