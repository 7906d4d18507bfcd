"""Folders that are whole or not there: filled under a temporary name, renamed when complete."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rbstream.errors import UsageError
from rbstream.output import OutputError, make_folder, temporary


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A folder to fill; it takes its name only if the block ends well.

    Raises UsageError where the path is there already (nothing is overwritten), OutputError where it can't be written.
    """
    path = Path(path)
    if path.exists():
        raise UsageError(f"{path}: is there already; name a folder that isn't")
    part = temporary(path)
    try:
        make_folder(part)
        try:
            yield part
            part.rename(path)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"{path}: can't be written: {error.strerror or error}") from error
