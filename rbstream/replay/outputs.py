"""Where annotated packets go: containers by schema, a folder or a tar by input. Whole under their names, or not there."""

import io
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, Protocol, cast

from rbstream.errors import UsageError
from rbstream.output import OutputError, temporary
from rbstream.packet.alert import Origin
from rbstream.packet.container import encode_header
from rbstream.replay.chunk import ChunkResult, Segment

# Some fifty packets; a member that grows beyond is spooled to disk.
MEMBER_BYTES_IN_MEMORY = 4 << 20


class Output(Protocol):
    """Takes chunks in order; then either `commit` gives the files their names, or `discard` removes them."""

    def write(self, result: ChunkResult, payload: memoryview) -> None: ...

    def commit(self) -> list[str]: ...

    def discard(self) -> None: ...


def open_output(path: str, inputs: list[str]) -> Output:
    """The output that a path asks for: `DIR/` or a folder, `*.tar`, else a container.

    Raises UsageError where it would overwrite an input.
    """
    target = Path(path)
    given = {Path(name).resolve() for name in inputs}
    if path.endswith("/") or target.is_dir():
        folder = target.resolve()
        if any(folder == name.parent or folder in name.parents for name in given):
            raise UsageError(f"-o {path}: inputs lie in it, and would be overwritten; give another folder")
        return FolderOutput(target)
    if target.resolve() in given:
        raise UsageError(f"-o {path}: that is an input, and would be overwritten; give another name")
    return TarOutput(target) if target.suffix == ".tar" else ContainerOutput(target)


class PartFile:
    """A file under its temporary name. Raises OutputError where it can't be made or written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._part = temporary(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = self._part.open("wb", buffering=0)
        except OSError as error:
            raise OutputError(f"{path}: can't be written: {error.strerror}") from error

    def write(self, data: bytes | memoryview) -> None:
        """All of the data: unbuffered, since most writes are megabytes."""
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise OutputError(f"{self.path}: can't be written: {error.strerror}") from error

    def commit(self) -> str:
        """Give the file its name, and return it."""
        self._file.close()
        try:
            self._part.replace(self.path)
        except OSError as error:
            raise OutputError(f"{self.path}: can't be written: {error.strerror}") from error
        return str(self.path)

    def discard(self) -> None:
        """Remove what there is of it."""
        self._file.close()
        with suppress(OSError):
            self._part.unlink()


class ContainerOutput:
    """`out.avro` for the first schema, `out.2.avro`, `out.3.avro`, ... for the others, in order of appearance."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: dict[bytes, PartFile] = {}

    def write(self, result: ChunkResult, payload: memoryview) -> None:
        for sync, schema in result.schemas.items():
            if sync not in self._files:
                self._files[sync] = self._open(len(self._files) + 1)
                self._files[sync].write(encode_header(schema, sync))
        for segment, data in _segments(result, payload):
            self._files[segment.sync].write(data)

    def _open(self, number: int) -> PartFile:
        path = self._path
        return PartFile(path if number == 1 else path.with_name(f"{path.stem}.{number}{path.suffix}"))

    def commit(self) -> list[str]:
        return [file.commit() for file in self._files.values()]

    def discard(self) -> None:
        for file in self._files.values():
            file.discard()


class FolderOutput:
    """One container an input (or member of a tar) of which something passed, under its name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names = _Names()
        self._source: tuple[str, str | None] | None = None
        self._file: PartFile | None = None
        self._written: list[str] = []

    def write(self, result: ChunkResult, payload: memoryview) -> None:
        for segment, data in _segments(result, payload):
            if segment.origin[:2] != self._source:
                self._finish()
                self._source = segment.origin[:2]
                self._file = PartFile(self._folder / self._names.unused(segment.origin))
                self._file.write(encode_header(result.schemas[segment.sync], segment.sync))
            assert self._file is not None
            self._file.write(data)

    def _finish(self) -> None:
        if self._file is not None:
            self._written.append(self._file.commit())
            self._file = None

    def commit(self) -> list[str]:
        self._finish()
        return self._written

    def discard(self) -> None:
        if self._file is not None:
            self._file.discard()


class TarOutput:
    """A tar with one member an input (or member of a tar) of which something passed, under its name."""

    def __init__(self, path: Path) -> None:
        self._part = PartFile(path)
        self._tar = tarfile.open(fileobj=_Writer(self._part), mode="w|")  # noqa: SIM115 - closed by commit
        self._names = _Names()
        self._origin: Origin | None = None
        self._content = self._spool()

    def _spool(self) -> IO[bytes]:
        """Where a member grows until its size is known: in memory as a packet, beside the tar as a whole night."""
        folder = self._part.path.parent
        return cast(IO[bytes], tempfile.SpooledTemporaryFile(MEMBER_BYTES_IN_MEMORY, dir=folder))

    def write(self, result: ChunkResult, payload: memoryview) -> None:
        for segment, data in _segments(result, payload):
            if self._origin is None or segment.origin[:2] != self._origin[:2]:
                self._finish()
                self._origin = segment.origin
                self._content.write(encode_header(result.schemas[segment.sync], segment.sync))
            self._content.write(data)

    def _finish(self) -> None:
        if self._origin is not None:
            header = tarfile.TarInfo(self._names.unused(self._origin))
            header.size = self._content.tell()
            self._content.seek(0)
            self._tar.addfile(header, self._content)
            self._content = self._spool()

    def commit(self) -> list[str]:
        self._finish()
        self._tar.close()
        return [self._part.commit()]

    def discard(self) -> None:
        self._part.discard()


class _Writer(io.RawIOBase):
    """A part file as tarfile wants it."""

    def __init__(self, part: PartFile) -> None:
        self._part = part

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._part.write(data)
        return len(data)


class _Names:
    """Names for outputs: the input's own, made harmless; the second of a name gets `.2` before its ending."""

    def __init__(self) -> None:
        self._used: dict[str, int] = {}

    def unused(self, origin: Origin) -> str:
        """A relative path, without `..`, that was not given out before."""
        if origin.member is not None:
            parts = [part for part in PurePosixPath(origin.member).parts if part not in ("/", "..", ".")]
            name = "/".join(parts) or "member.avro"
        else:
            name = "stdin.avro" if origin.file == "-" else Path(origin.file).name
        count = self._used[name] = self._used.get(name, 0) + 1
        path = PurePosixPath(name)
        return name if count == 1 else str(path.with_name(f"{path.stem}.{count}{path.suffix}"))


def _segments(result: ChunkResult, payload: memoryview) -> Iterator[tuple[Segment, memoryview]]:
    position = 0
    for segment in result.segments:
        yield segment, payload[position : position + segment.size]
        position += segment.size
