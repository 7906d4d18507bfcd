"""Where annotated packets go: containers by schema, a folder or a tar by input. Whole, or not there."""

import itertools
import logging
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import IO, Protocol, TypeVar

from rbstream.errors import UsageError
from rbstream.output import OutputError, PartFile, make_folder, temporary
from rbstream.packet.alert import Origin
from rbstream.packet.container import encode_header
from rbstream.replay.chunk import ChunkResult, Segment
from rbstream.replay.sources import STDIN

logger = logging.getLogger(__name__)

# Some fifty packets; a member that grows beyond is spooled to disk.
MEMBER_BYTES_IN_MEMORY = 4 << 20
# File systems take 255; a number and the mark of an unfinished file have to fit as well.
LONGEST_NAME_BYTES = 200


class Output(Protocol):
    """Takes chunks in order; then either `commit` gives the files their names, or `discard` removes them."""

    def write(self, result: ChunkResult, payload: memoryview) -> None: ...

    def commit(self) -> list[str]: ...

    def discard(self) -> None: ...


def open_output(path: str, taken: list[str]) -> Output:
    """The output that a path asks for: `DIR/` or a folder, `*.tar`, else a container.

    taken: files that it may not overwrite, should it need further names.
    """
    target = Path(path)
    if path.endswith("/") or target.is_dir():
        return FolderOutput(target, taken)
    return TarOutput(target) if target.suffix == ".tar" else ContainerOutput(target, taken)


def spare_inputs(outputs: dict[str, str], inputs: list[str]) -> None:
    """Refuse outputs, by flag, that would overwrite an input or each other, or could not mean what they say.

    Raises UsageError.
    """
    taken = {Path(name).resolve(): "is an input" for name in inputs}
    for flag, path in outputs.items():
        _check_name(flag, path)
        target = Path(path).resolve()
        if flag == "-o" and (path.endswith("/") or target.is_dir()):
            if any(target == name.parent for name in taken):
                raise UsageError(f"-o {path}: inputs lie in it, and would be overwritten; give another folder")
        elif target in taken:
            raise UsageError(f"{flag} {path}: that {taken[target]}, and would be overwritten; give another name")
        elif target.is_dir():
            raise UsageError(f"{flag} {path}: that is a folder; give a file's name")
        taken[target] = f"is what {flag} names"


def _check_name(flag: str, path: str) -> None:
    if not path:
        raise UsageError(f"{flag} '': an empty name; an unset variable of the shell?")
    if path == STDIN:
        raise UsageError(f"{flag} -: standard output can't be written to; give a file's name")
    if flag == "-o" and path.lower().endswith((".gz", ".tgz")):
        raise UsageError(f"-o {path}: outputs are not zipped; give a name in .avro or .tar, or a folder")
    if flag == "--report" and not path.lower().endswith((".html", ".htm")):
        raise UsageError(f"--report {path}: the name has to end in .html")


class ContainerOutput:
    """`out.avro` for the first schema, `out.2.avro`, `out.3.avro`, ... for the others, in order of appearance.

    taken: files that a further schema's name may not overwrite.
    """

    def __init__(self, path: Path, taken: list[str]) -> None:
        self._path = path
        self._taken = {Path(name).resolve() for name in taken}
        self._files: dict[bytes, PartFile] = {}

    def write(self, result: ChunkResult, payload: memoryview) -> None:
        for sync, schema in result.schemas.items():
            if sync not in self._files:
                self._files[sync] = self._open(len(self._files) + 1)
                self._files[sync].write(encode_header(schema, sync))
        for segment, data in _segments(result, payload):
            self._files[segment.sync].write(data)

    def _name(self, number: int) -> Path:
        return self._path if number == 1 else _numbered(self._path, number)

    def _open(self, number: int) -> PartFile:
        path = self._name(number)
        if path.resolve() in self._taken:
            raise UsageError(
                f"{path}: needed for the packets' schema number {number}, but it is an input or "
                f"another output; give -o another name"
            )
        return PartFile(path)

    def commit(self) -> list[str]:
        written = [file.commit() for file in self._files.values()]
        further = map(self._name, itertools.count(len(written) + 1))
        there = itertools.takewhile(Path.exists, further)
        _tell_of_others([path for path in there if path.resolve() not in self._taken])
        return written

    def discard(self) -> None:
        for file in self._files.values():
            file.discard()


class FolderOutput:
    """One container an input (or member of a tar) of which something passed, under its name.

    They grow in a hidden folder beside their places, and move there when all of them are whole.
    """

    def __init__(self, folder: Path, taken: list[str]) -> None:
        self._folder = folder
        self._hidden = temporary(folder / "night")
        self._names = _Names(path.name for path in map(Path, taken) if path.resolve().parent == folder.resolve())
        self._inputs = _Turns()
        self._written: list[str] = []
        self._file: PartFile | None = None
        try:
            make_folder(self._hidden)
        except OSError as error:
            raise OutputError(f"{folder}: can't be written: {error.strerror}") from error

    def write(self, result: ChunkResult, payload: memoryview) -> None:
        for segment, data in _segments(result, payload):
            if self._inputs.turns_to(segment) or self._file is None:
                self._finish()
                self._written.append(self._names.unused(segment.origin))
                self._file = PartFile(self._hidden / self._written[-1])
                self._file.write(encode_header(result.schemas[segment.sync], segment.sync))
            self._file.write(data)

    def _finish(self) -> None:
        if self._file is not None:
            self._file.commit()
            self._file = None

    def commit(self) -> list[str]:
        self._finish()
        try:
            for name in self._written:
                (self._hidden / name).replace(self._folder / name)
        except OSError as error:
            raise OutputError(f"{self._folder / name}: can't be written: {error.strerror}") from error
        visible = self._folder.glob("[!.]*")
        _tell_of_others(sorted(path for path in visible if path.name not in self._names and path.is_file()))
        return [str(self._folder / name) for name in self._written]

    def discard(self) -> None:
        if self._file is not None:
            self._file.discard()
        shutil.rmtree(self._hidden, ignore_errors=True)


class TarOutput:
    """A tar with one member an input (or member of a tar) of which something passed, under its name."""

    def __init__(self, path: Path) -> None:
        self._part = PartFile(path)
        self._tar = tarfile.open(fileobj=self._part, mode="w")  # noqa: SIM115 - closed by commit
        self._names = _Names()
        self._inputs = _Turns()
        self._name = ""
        self._content = self._spool()

    def _spool(self) -> IO[bytes]:
        """Where a member grows until its size is known: in memory as a packet, beside the tar as a whole night."""
        return tempfile.SpooledTemporaryFile(MEMBER_BYTES_IN_MEMORY, dir=str(self._part.path.parent))

    def write(self, result: ChunkResult, payload: memoryview) -> None:
        try:
            for segment, data in _segments(result, payload):
                if self._inputs.turns_to(segment):
                    self._finish()
                    self._name = self._names.unused(segment.origin)
                    self._content.write(encode_header(result.schemas[segment.sync], segment.sync))
                self._content.write(data)
        except OSError as error:
            raise OutputError(f"{self._part.path}: can't be written: {error.strerror}") from error

    def _finish(self) -> None:
        if self._name:
            header = tarfile.TarInfo(self._name)
            header.size = self._content.tell()
            self._content.seek(0)
            self._tar.addfile(header, self._content)
            self._tar.members.clear()  # type: ignore[attr-defined]  # it keeps every header, which grows with the night
            self._content.close()
            self._content = self._spool()

    def commit(self) -> list[str]:
        self._finish()
        self._tar.close()
        return [self._part.commit()]

    def discard(self) -> None:
        self._content.close()
        self._part.discard()


class _Turns:
    """Notices where the packets of one input (or member of a tar) end and another's begin."""

    def __init__(self) -> None:
        self._last: tuple[object, ...] | None = None

    def turns_to(self, segment: Segment) -> bool:
        last, self._last = self._last, (segment.sync, *segment.origin[:2])
        return self._last != last


class _Names:
    """Names for outputs: the last part of the input's own; the second of a name gets `.2` before its ending.

    Without folders there is no `..`, and no member whose name is another one's folder.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._used = dict.fromkeys(taken, 1)

    def __contains__(self, name: str) -> bool:
        return name in self._used

    def unused(self, origin: Origin) -> str:
        """A file's name that was not given out before."""
        name = PurePosixPath(origin.file if origin.member is None else origin.member).name
        if name in ("", "..", STDIN):
            name = "member.avro" if origin.member is not None else "stdin.avro"
        name = os.fsdecode(os.fsencode(name)[-LONGEST_NAME_BYTES:])
        if name not in self._used:
            self._used[name] = 1
            return name
        number = self._used[name] + 1
        while (numbered := _numbered(PurePosixPath(name), number).name) in self._used:
            number += 1
        self._used[name] = number
        self._used[numbered] = 1
        return numbered


def _tell_of_others(paths: Sequence[Path]) -> None:
    """Whoever reads all that is there would take them for this run's: an earlier one's, with another threshold, say."""
    if paths:
        logger.warning("%s: was there already and is not of this run", paths[0], extra={"such_files": len(paths)})


_AnyPath = TypeVar("_AnyPath", bound=PurePath)


def _numbered(path: _AnyPath, number: int) -> _AnyPath:
    return path.with_name(f"{path.stem}.{number}{path.suffix}")


def _segments(result: ChunkResult, payload: memoryview) -> Iterator[tuple[Segment, memoryview]]:
    position = 0
    for segment in result.segments:
        yield segment, payload[position : position + segment.size]
        position += segment.size
