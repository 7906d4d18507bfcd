"""Files that are whole or not there: written under a temporary name, renamed when complete."""

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from rbstream.errors import RbstreamError, UsageError


class OutputError(RbstreamError):
    """An output that can't be written."""


def temporary(path: Path) -> Path:
    """The name a file has until it is whole: hidden, beside the final one, so that the rename can't cross disks."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def utf8(name: str) -> str:
    """A file's name as text: names may hold bytes that are no UTF-8, Avro's and Parquet's strings may not."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def make_folder(folder: Path) -> None:
    """The folder and those above it, where they are not there. Raises OSError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:  # "File exists" would tell nobody that a folder was wanted
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from error


class PartFile(io.RawIOBase):
    """A file to write, under its temporary name until `commit`: whole under its own name, or not there.

    That holds against a killed process, not against a power cut: the system writes the last seconds when it likes.
    Raises UsageError where the path is there and no regular file (a device would be replaced by one), OutputError
    where it can't be made or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._target = path.resolve()  # what a link leads to is written, not the link
        if self._target.exists() and not self._target.is_file():
            raise UsageError(f"{path}: that is no regular file, and would be replaced by one; give a file's name")
        self._part = temporary(self._target)
        try:
            make_folder(self._target.parent)
            self._file = self._part.open("wb", buffering=0)
        except OSError as error:
            raise self._failed(error) from error

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def write(self, data: bytes | bytearray | memoryview, /) -> int:  # type: ignore[override]
        """All of the data: unbuffered, since most writes are megabytes."""
        view = memoryview(data)
        size = view.nbytes
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise self._failed(error) from error
        return size

    def commit(self) -> str:
        """Give the file its name, and return it."""
        try:
            self._file.close()
            self._part.replace(self._target)
        except OSError as error:
            raise self._failed(error) from error
        return str(self.path)

    def discard(self) -> None:
        """Remove what there is of it."""
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._part.unlink()

    def _failed(self, error: OSError) -> OutputError:
        return OutputError(f"{self.path}: can't be written: {error.strerror or error}")


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """A file that takes its name only if the block ends well. Raises as `PartFile`."""
    part = PartFile(Path(path))
    try:
        with io.BufferedWriter(cast(io.RawIOBase, part)) as file:
            yield file
        part.commit()
    finally:
        part.discard()
