"""Stacks of stamps in numpy's files, read forwards in parts: none is ever in memory whole."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rbstream.errors import UsageError
from rbstream.lab.dataset import UNKNOWN, DataError
from rbstream.lab.sources.candidate import KNOWN_ASTEROID, of_candidate
from rbstream.lab.sources.source import (
    Columns,
    Opinion,
    Part,
    Reading,
    converted,
    first_known,
    padded,
    table,
)
from rbstream.output import utf8

_STAMPS = ("stamps", "triplets", "images", "x", "X")
_LABELS = ("label", "labels", "y")
_SHAPE, _META, _ASTEROID, _CONSENSUS = "shape", "meta", "asteroid", "consensus"
# What surveys call some columns.
_ALIASES = {"objectId": "object", "diaSourceId": "candid", "diaObjectId": "object", "reliability": "drb"}
_MOST_CHANNELS = 8  # more than any survey's cutouts, less than any stamp's side
_PART_BYTES = 16 << 20  # of all arrays of a file, read at once: 350 triplets of 63 px
_READ_ERRORS = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, TokenError)


class _Array(Protocol):
    """An array in a file, read forwards."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def take(self, rows: int) -> NDArray[Any]:
        """The next rows. Raises as `_READ_ERRORS`."""
        ...


class _Mapped:
    """The array of a .npy file, mapped."""

    def __init__(self, path: Path) -> None:
        self._array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        self.shape, self.dtype = self._array.shape, self._array.dtype
        self._behind = 0

    def take(self, rows: int) -> NDArray[Any]:
        begin, self._behind = self._behind, self._behind + rows
        return np.array(self._array[begin : self._behind])


class _Streamed:
    """An array of a .npz file, unzipped as it is read; in Fortran's order it has to be read whole."""

    def __init__(self, file: IO[bytes]) -> None:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        self.shape, fortran, self.dtype = read(file)
        if self.dtype.hasobject:
            raise ValueError("it holds Python objects (pickled), which are not read; save numbers and texts")
        self._file = file
        self._whole: NDArray[Any] | None = None
        if fortran and len(self.shape) > 1:
            count = int(np.prod(self.shape, dtype=np.int64))
            self._whole = self._read(count).reshape(self.shape[::-1]).T

    def take(self, rows: int) -> NDArray[Any]:
        if self._whole is not None:
            taken, self._whole = self._whole[:rows], self._whole[rows:]
            return taken
        each = int(np.prod(self.shape[1:], dtype=np.int64))
        return self._read(rows * each).reshape(rows, *self.shape[1:])

    def _read(self, count: int) -> NDArray[Any]:
        wanted = count * self.dtype.itemsize
        data = self._file.read(wanted)
        if len(data) != wanted:
            raise EOFError(f"it was cut short: {len(data):,} bytes of {wanted:,}")
        return np.frombuffer(data, self.dtype)


class Arrays:
    """The stamps in a .npy or .npz file, with what a .npz says of them.

    Stamps are N x H x W (one channel), N x C x H x W or N x H x W x C. A .npz tells of them by arrays (N,) with the
    names of columns, `label`, `asteroid`, `consensus`, `shape` (N, [C,] 2) and `meta` (candidates as JSON).
    Raises UsageError for arrays that are no stamps, DataError for a file that can't be read.
    """

    def __init__(self, path: str, reading: Reading) -> None:
        self._path, self._reading = Path(path), reading
        self.name = utf8(self._path.name)
        with ExitStack() as stack:
            arrays = self._open(stack)
            self._stamps = self._named_stamps(arrays)
            stamps = arrays[self._stamps]
            self._check(arrays)
            shapes = {name: array.shape for name, array in arrays.items()}
            bytes_a_row = sum(_row_bytes(arrays[name]) for name in self._used(shapes))
            survey = self._survey(arrays)
        self._rows = stamps.shape[0]
        self._at_once = max(1, _PART_BYTES // max(1, bytes_a_row))
        self._last = self._channels_last(stamps.shape)
        self.count = 1 if len(stamps.shape) == 3 else stamps.shape[-1 if self._last else 1]
        height, width = stamps.shape[1:3] if self._last else stamps.shape[-2:]
        self.side = max(height, width)
        if self.side > reading.limits.cutout_side:
            raise UsageError(f"{self.name}: stamps of {self.side} pixels are larger than limits.cutout_side")
        self.channels = None
        self.survey, self.total, self.origin = survey, self._rows, {"arrays": self.name}
        self._done = 0

    @property
    def position(self) -> int:
        return self._done

    def parts(self) -> Iterator[Part]:
        with ExitStack() as stack:
            arrays = self._open(stack)
            used = self._used({name: array.shape for name, array in arrays.items()})
            self._done = 0
            while self._done < self._rows:
                rows = min(self._at_once, self._rows - self._done)
                try:
                    taken = {name: arrays[name].take(rows) for name in used}
                except _READ_ERRORS as error:
                    raise self._unreadable(error) from error
                self._done += rows
                yield self._part(taken)

    def notes(self) -> list[str]:
        return []

    def _open(self, stack: ExitStack) -> dict[str, _Array]:
        try:
            if self._path.suffix.lower() == ".npy":
                return {_STAMPS[0]: _Mapped(self._path)}
            archive = stack.enter_context(zipfile.ZipFile(self._path))
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            return {name[:-4]: _Streamed(stack.enter_context(archive.open(name))) for name in names}
        except _READ_ERRORS as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> DataError:
        return DataError(f"{self.name}: can't be read, or was cut short: {error}")

    def _named_stamps(self, arrays: Mapping[str, _Array]) -> str:
        found = [name for name in _STAMPS if name in arrays]
        if not found:
            found = [name for name, a in arrays.items() if len(a.shape) in (3, 4) and name != _SHAPE]
            if len(found) != 1:
                there = ", ".join(f"{name} {a.shape}" for name, a in arrays.items()) or "nothing"
                raise UsageError(f"{self.name}: which are the stamps? Name the array 'stamps'; there is {there}")
        return found[0]

    def _check(self, arrays: Mapping[str, _Array]) -> None:
        stamps = arrays[self._stamps]
        if len(stamps.shape) not in (3, 4):
            raise UsageError(
                f"{self.name}: the stamps are {stamps.shape}; they have to be N x H x W, N x C x H x W or N x H x W x C"
            )
        if 0 in stamps.shape:
            raise UsageError(f"{self.name}: the stamps are {stamps.shape}: there are none")
        if stamps.dtype.kind not in "fiub":
            raise UsageError(f"{self.name}: the stamps are {stamps.dtype}; they have to be real numbers")
        if missing := [name for name in self._reading.soft if name not in arrays]:
            there = ", ".join(sorted(arrays))
            raise UsageError(f"{self.name}: has no array {', '.join(missing)} to be a label; it has {there}")
        for name in [*self._labels(arrays), *self._columns(arrays), *self._reading.soft]:
            self._check_rows(name, arrays[name].shape, stamps.shape[0])

    def _check_rows(self, name: str, shape: tuple[int, ...], rows: int) -> None:
        if shape not in ((rows,), (rows, 1)):
            raise UsageError(f"{self.name}: array {name!r} is {shape}, for {rows} stamps; it has to be ({rows},)")

    def _channels_last(self, shape: tuple[int, ...]) -> bool:
        """Whether channels are the last axis: the short one, unless somebody says which."""
        if len(shape) == 3:
            return False
        first, last = shape[1] <= _MOST_CHANNELS, shape[3] <= _MOST_CHANNELS
        if self._reading.layout is None and first == last:
            raise UsageError(f"{self.name}: which axis of {shape} are the channels? Say --layout nchw or --layout nhwc")
        return last if self._reading.layout is None else self._reading.layout == "nhwc"

    def _labels(self, names: Mapping[str, Any]) -> list[str]:
        return [name for name in _LABELS if name in names][:1]

    def _columns(self, names: Mapping[str, Any]) -> list[str]:
        return [name for name in names if _ALIASES.get(name, name) in UNKNOWN and name not in _LABELS]

    def _used(self, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
        """Names of the arrays that are read, in the file's order."""
        rows = shapes[self._stamps][0]
        known = {_SHAPE, _META, _ASTEROID, _CONSENSUS}
        beside = {name for name in known if shapes.get(name, ())[:1] == (rows,)}
        wanted = {self._stamps, *self._labels(shapes), *self._columns(shapes), *self._reading.soft, *beside}
        return [name for name in shapes if name in wanted]

    def _survey(self, arrays: Mapping[str, _Array]) -> str:
        """Whose they are, by the name of an identifier: ZTF's `candid` or Rubin's `diaSourceId`."""
        return "lsst" if "diaSourceId" in arrays else "ztf" if {"candid", _META} <= arrays.keys() else ""

    def _part(self, taken: Mapping[str, NDArray[Any]]) -> Part:
        stamps = taken[self._stamps]
        rows = len(stamps)
        if stamps.ndim == 3:
            stamps = stamps[:, None]
        elif self._last:
            stamps = np.moveaxis(stamps, -1, 1)
        shape = np.tile(np.array(stamps.shape[-2:], np.int64), (rows, 1))
        if _SHAPE in taken and taken[_SHAPE].dtype.kind in "iu" and taken[_SHAPE].shape[-1] == 2:
            shape = taken[_SHAPE].astype(np.int64).reshape(rows, -1, 2).max(axis=1).clip(0, self.side)
        said, asteroid = self._said(taken.get(_META), rows)
        columns = {
            _ALIASES.get(name, name): converted(_ALIASES.get(name, name), taken[name].reshape(rows), self.name)
            for name in self._columns(taken)
        }
        if _ASTEROID in taken:
            asteroid = np.where(taken[_ASTEROID].astype(bool), 1.0, np.nan)
        labels = first_known(*self._opinions(taken, asteroid))
        if (named := columns.pop("label_source", None)) is not None:
            own = (labels["label_source"] == self.name) & (named != "")
            labels["label_source"] = np.where(own, named, labels["label_source"])
        return Part(padded(stamps), shape, said | columns | labels)

    def _said(self, meta: NDArray[Any] | None, rows: int) -> tuple[Columns, NDArray[np.float64]]:
        """Columns of what `meta` says, and 1 where it is a known asteroid, else NaN."""
        if meta is None:
            return {}, np.full(rows, np.nan)
        try:
            both = [of_candidate(json.loads(text)) for text in meta.tolist()]
            columns = table([said for said, _ in both])
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            raise DataError(f"{self.name}: 'meta' has to hold a candidate's fields as JSON: {error}") from error
        return columns, np.array([1.0 if known else np.nan for _, known in both])

    def _opinions(self, taken: Mapping[str, NDArray[Any]], asteroid: NDArray[np.float64]) -> Sequence[Opinion]:
        rows = len(asteroid)
        opinions = [(self._numbers(name, taken, rows), self.name) for name in self._labels(taken)]
        opinions.append((asteroid, KNOWN_ASTEROID))
        if self._reading.soft:
            soft = np.stack([self._numbers(name, taken, rows) for name in self._reading.soft])
            opinions.append((soft.mean(axis=0), "+".join(self._reading.soft)))
        if _CONSENSUS in taken:
            consensus = self._numbers(_CONSENSUS, taken, rows)
            opinions.append((np.where(consensus >= 0, consensus, np.nan), _CONSENSUS))
        return opinions

    def _numbers(self, name: str, taken: Mapping[str, NDArray[Any]], rows: int) -> NDArray[np.float64]:
        if taken[name].dtype.kind not in "fiub":
            raise UsageError(f"{self.name}: array {name!r} is {taken[name].dtype}; labels are numbers from 0 to 1")
        return taken[name].reshape(rows).astype(np.float64)


def _row_bytes(array: _Array) -> int:
    return int(np.prod(array.shape[1:], dtype=np.int64)) * array.dtype.itemsize
