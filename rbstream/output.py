"""Files that are whole or not there: written under a temporary name, renamed when complete."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from rbstream.errors import RbstreamError


class OutputError(RbstreamError):
    """An output that can't be written."""


def temporary(path: Path) -> Path:
    """The name a file has until it is whole: hidden, beside the final one, so that the rename can't cross disks."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def make_folder(folder: Path) -> None:
    """The folder and those above it, where they are not there. Raises OSError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:  # "File exists" would tell nobody that a folder was wanted
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from error


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write, that takes its final name only if the block ends well. Raises OutputError."""
    path = Path(path)
    part = temporary(path)
    try:
        make_folder(path.parent)
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: can't be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            part.unlink()
