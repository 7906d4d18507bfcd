"""A data set on disk: stamps and what is known of each, for as many as a disk holds.

A folder of three files: `data.json` says what it is, `stamps.npy` holds the stamps (numpy's format, one array), and
`columns.parquet` a row for each. Stamps are read by row from the file, never mapped or loaded whole: a million
triplets need no more memory than a batch. A data set is written once and never changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tokenize import TokenError
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rbstream.errors import RbstreamError, UsageError
from rbstream.output import OutputError, make_folder, temporary

FORMAT = 1
"""Version of the folder's layout."""

ABOUT, STAMPS, COLUMNS = "data.json", "stamps.npy", "columns.parquet"

SPLITS = ("train", "validation", "test", "unused")
"""Parts of a data set; `unused` are alerts that would be in two parts at once."""

_HEADER = 128  # bytes: numpy's header for any array of four axes, with room to write the final count into it
_ROWS_AT_ONCE = 1024  # read or written in one go: 48 MB of triplets of 63 px
_FILL = 1e30  # DN: surveys fill with -3.4e38 what they lack; no detector counts to 1e30

Stamps = NDArray[np.float32]

UNKNOWN: Mapping[str, Any] = {
    "candid": -1, "object": "", "night": -1, "label": np.nan, "label_source": "", "kind": "", "magpsf": np.nan,
    "fwhm": np.nan, "snr": np.nan, "drb": np.nan, "positive": -1,
}  # fmt: skip
"""What a source may say of its stamps, with the value of what it doesn't know."""

_TYPES = {
    "candid": pa.int64(),  # the alert's, or the row's number
    "object": pa.string(),  # one scene: what no split tears apart, and what intervals are drawn by
    "night": pa.int32(),  # whole Julian day; -1: no night (simulated)
    "label": pa.float32(),  # probability of being real: 1, 0 or what another network thinks; NaN: nobody knows
    "label_source": pa.string(),  # who says so
    "kind": pa.string(),  # of event or artefact, where known
    "magpsf": pa.float32(),  # mag
    "fwhm": pa.float32(),  # px
    "snr": pa.float32(),  # sigma of the detection
    "drb": pa.float32(),  # the survey's own score
    "positive": pa.int8(),  # 1: science brighter than template, 0: fainter (ZTF's stored sign-flipped); -1: unknown
    "edge": pa.float32(),  # px from the middle to the nearest pixel without data; half the side where all are there
    "masked": pa.float32(),  # share of the pixels without data
    "truncated": pa.bool_(),  # a whole row or column at the border is without data in every channel
    "split": pa.int8(),  # index into SPLITS
}


class DataError(RbstreamError):
    """A data set that can't be read, or doesn't hold what is asked of it."""


class About(BaseModel):
    """What a data set says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = Field(description="Version of the folder's layout")
    rows: int = Field(ge=0, description="Stamps")
    channels: tuple[str, ...] = Field(min_length=1, description="Cutouts, in the order of the stamps' first axis")
    size: int = Field(gt=0, description="Side of the stamps [pixels]")
    survey: str = Field(description="Survey whose stamps these are, or look like")
    split: dict[str, Any] = Field(description="How it was split: seed, fractions, by what")
    source: dict[str, Any] = Field(description="What it was made from")
    stamps_sha256: str = Field(description="SHA-256 of the stamps (the array without numpy's header)")
    columns_sha256: str = Field(description="SHA-256 of columns.parquet")


class DataSet:
    """A data set, open for reading; threads may share it, as reads have no position.

    Raises DataError for a folder that is none, or was cut short.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.about = _about(self.path)
        self._offset = _check_stamps(self.path / STAMPS, self.about)
        self._table = _columns(self.path / COLUMNS, self.about)
        self._file = os.open(self.path / STAMPS, os.O_RDONLY)
        self._cache: dict[str, NDArray[Any]] = {}

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> DataSet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return self.about.rows

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one stamp: (channels, size, size)."""
        return len(self.about.channels), self.about.size, self.about.size

    @property
    def identity(self) -> str:
        """Names this data set: another one, or the same split otherwise, has another."""
        return hashlib.sha256(self.about.model_dump_json().encode()).hexdigest()[:16]

    def scenes(self) -> NDArray[Any]:
        """The objects by names that no other data set has for others: those known by their row alone say whose."""
        mark = self.about.stamps_sha256[:8]
        names = (f"{mark} {name}" if name.startswith("row ") else name for name in self.column("object").tolist())
        return np.array(list(names), object)

    def column(self, name: str) -> NDArray[Any]:
        """A column of all rows (rows,), of the type that `_TYPES` says; texts as objects."""
        if name not in self._cache:
            self._cache[name] = self._table.column(name).to_numpy()
        return self._cache[name]

    def stamps(self, rows: NDArray[np.integer[Any]]) -> Stamps:
        """Stamps by row number, float32 (n, channels, size, size), NaN where there is no data.

        Raises DataError where the file can't be read.
        """
        each = int(np.prod(self.shape)) * 4
        result = np.empty((len(rows), *self.shape), np.float32)
        for i, row in enumerate(np.asarray(rows, np.int64).tolist()):
            if not 0 <= row < len(self):
                raise IndexError(f"row {row} of {len(self)}")
            if os.preadv(self._file, [memoryview(result[i]).cast("B")], self._offset + row * each) != each:
                raise DataError(f"{self.path / STAMPS}: row {row} can't be read; was the file cut short?")
        return result

    def batches(self, rows: NDArray[np.int64], size: int = _ROWS_AT_ONCE) -> Iterator[tuple[NDArray[np.int64], Stamps]]:
        """The row numbers and their stamps, `size` at a time, in order."""
        for begin in range(0, len(rows), size):
            part = rows[begin : begin + size]
            yield part, self.stamps(part)

    def rows(self, split: str | None = None, *, labelled: bool = True) -> NDArray[np.int64]:
        """Numbers of the rows in a part (None: in any but `unused`), those with a label only, or all."""
        where = self.column("split")
        chosen = where < SPLITS.index("unused") if split is None else where == SPLITS.index(split)
        if labelled:
            chosen = chosen & np.isfinite(self.column("label"))
        return np.flatnonzero(chosen)


class DataWriter:
    """Writes a data set, in parts; the folder takes its name when it is whole.

    Raises UsageError where the path is there already (nothing is overwritten), OutputError where it can't be written.
    """

    def __init__(
        self, path: str | Path, channels: Sequence[str], size: int, survey: str, source: Mapping[str, Any]
    ) -> None:
        self.path = Path(path)
        _refuse_existing(self.path)
        self._shape = (len(channels), size, size)
        self._channels, self._survey, self._source = tuple(channels), survey, dict(source)
        self._part = temporary(self.path)
        self._tables: list[pa.Table] = []
        self._rows = 0
        self._digest = hashlib.sha256()
        try:
            make_folder(self._part)
            self._file = (self._part / STAMPS).open("wb")
            self._file.write(_header(0, self._shape))
        except OSError as error:
            shutil.rmtree(self._part, ignore_errors=True)
            raise _failed(self.path, error) from error

    def __enter__(self) -> DataWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # a full disk was said already
            self._file.close()
        shutil.rmtree(self._part, ignore_errors=True)

    def __len__(self) -> int:
        return self._rows

    def add(self, stamps: Stamps, **columns: Any) -> None:
        """Stamps (n, channels, size, size), and columns (n,) or one value for all by the names in `UNKNOWN`.

        Fills (beyond 1e30) and infinities become NaN. What is not given is unknown; an unknown object is an object
        of its own. Raises ValueError for other shapes, names or labels outside of [0, 1].
        """
        stamps = np.asarray(stamps, np.float32)
        if stamps.shape[1:] != self._shape:
            raise ValueError(f"stamps are {stamps.shape}, not (n, {', '.join(map(str, self._shape))})")
        if unknown := columns.keys() - UNKNOWN.keys():
            raise ValueError(f"no such columns: {', '.join(sorted(unknown))}")
        stamps = np.where(np.abs(stamps) < _FILL, stamps, np.float32(np.nan))
        values = {name: _of(columns.get(name, default), len(stamps)) for name, default in UNKNOWN.items()}
        label = values["label"].astype(np.float32)
        if ((label < 0) | (label > 1)).any():
            raise ValueError("labels have to be in [0, 1], or NaN")
        numbers = np.arange(self._rows, self._rows + len(stamps))
        values["candid"] = np.where(values["candid"] == -1, numbers, values["candid"])
        names = values["object"].astype(object)
        alone = names == ""
        names[alone] = [f"row {number}" for number in numbers[alone]]
        values["object"] = names
        values |= _measured(stamps)
        values["split"] = np.zeros(len(stamps), np.int8)
        self._tables.append(pa.table({name: pa.array(values[name], kind) for name, kind in _TYPES.items()}))
        self._write(stamps)

    def _write(self, stamps: Stamps) -> None:
        data = np.ascontiguousarray(stamps).data
        self._digest.update(data)
        try:
            self._file.write(data)
        except OSError as error:
            raise _failed(self.path, error) from error
        self._rows += len(stamps)

    def commit(self, split: Mapping[str, Any] | None = None) -> DataSet:
        """Split it, give it its name and open it. split: as `rbstream.lab.split.SplitRule` has it.

        Raises UsageError where it can't be split so, OutputError where it can't be written.
        """
        try:
            self._file.seek(0)
            self._file.write(_header(self._rows, self._shape))
            self._file.close()
        except OSError as error:
            raise _failed(self.path, error) from error
        empty = pa.table({name: pa.array([], kind) for name, kind in _TYPES.items()})
        table = pa.concat_tables(self._tables) if self._tables else empty
        says = {
            "rows": self._rows, "channels": self._channels, "size": self._shape[1], "survey": self._survey,
            "source": self._source, "stamps_sha256": self._digest.hexdigest(),
        }  # fmt: skip
        return _finish(self._part, self.path, table, says, split or {})


def split_anew(data: DataSet, path: str | Path, split: Mapping[str, Any]) -> DataSet:
    """The same data set, split otherwise, at another path; on one disk both share the stamps' bytes.

    split: as `rbstream.lab.split.SplitRule` has it. Raises UsageError where the path is there already or it can't be
    split so, OutputError where it can't be written.
    """
    path = Path(path)
    _refuse_existing(path)
    part = temporary(path)
    try:
        make_folder(part)
        _share(data.path / STAMPS, part / STAMPS)
        table = pa.table({name: pa.array(data.column(name), kind) for name, kind in _TYPES.items()})
        return _finish(part, path, table, data.about.model_dump(), split)
    except OSError as error:
        raise _failed(path, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _share(source: Path, target: Path) -> None:
    """The same bytes under another name: a link where the disk can, as no data set is ever changed."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _finish(part: Path, path: Path, table: pa.Table, says: Mapping[str, Any], split: Mapping[str, Any]) -> DataSet:
    """Split the rows, write what lies beside the stamps into the folder `part`, and give it its name."""
    from rbstream.lab.split import assign, rule_of

    rule = rule_of(split)
    parts = assign(table.column("object").to_numpy(), table.column("night").to_numpy(), rule)
    table = table.set_column(table.schema.get_field_index("split"), "split", pa.array(parts, pa.int8()))
    try:
        pq.write_table(table, part / COLUMNS, compression="zstd")
        digest = hashlib.sha256((part / COLUMNS).read_bytes()).hexdigest()
        changed = {"format": FORMAT, "split": rule.model_dump(mode="json"), "columns_sha256": digest}
        (part / ABOUT).write_text(About.model_validate({**says, **changed}).model_dump_json(indent=1) + "\n")
        part.rename(path)
    except OSError as error:
        raise _failed(path, error) from error
    return DataSet(path)


def _refuse_existing(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise UsageError(f"{path}: is there already; data sets are never changed, name another one")


def _failed(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path}: can't be written: {error.strerror or error}")


def _of(value: Any, rows: int) -> NDArray[Any]:
    """A column: the values given, or one for all."""
    array = np.asarray(value)
    if array.ndim == 0:
        return np.full(rows, array, object if array.dtype.kind in "UO" else array.dtype)
    if array.shape != (rows,):
        raise ValueError(f"a column has shape {array.shape}, for {rows} stamps")
    return array.astype(object) if array.dtype.kind == "U" else array


def _measured(stamps: Stamps) -> dict[str, NDArray[Any]]:
    """What the stamps themselves say of where data are missing."""
    size = stamps.shape[-1]
    missing = np.isnan(stamps)
    offset = np.arange(size) - (size - 1) / 2
    distance = np.maximum(np.abs(offset[:, None]), np.abs(offset))
    anywhere = missing.any(axis=1)
    edge = np.where(anywhere, distance, size / 2).min(axis=(1, 2), initial=size / 2)
    everywhere = np.asarray(missing.all(axis=1))
    rows, columns = np.asarray(everywhere.all(axis=2)), np.asarray(everywhere.all(axis=1))
    truncated = rows[:, 0] | rows[:, -1] | columns[:, 0] | columns[:, -1]
    return {"edge": edge.astype(np.float32), "masked": missing.mean(axis=(1, 2, 3)), "truncated": truncated}


def _header(rows: int, shape: tuple[int, ...]) -> bytes:
    """numpy's header of a float32 array, of a length that doesn't depend on the count."""
    text = str({"descr": "<f4", "fortran_order": False, "shape": (rows, *shape)})
    magic = b"\x93NUMPY\x01\x00"
    length = _HEADER - len(magic) - 2
    return magic + length.to_bytes(2, "little") + text.ljust(length - 1).encode() + b"\n"


def _about(path: Path) -> About:
    try:
        content = json.loads((path / ABOUT).read_text())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{path}: no data set ({ABOUT} is missing); `rbstream data import` makes one") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path / ABOUT}: can't be read: {error}") from error
    if isinstance(content, dict) and content.get("format", FORMAT) != FORMAT:
        raise DataError(
            f"{path}: has format {content['format']}, and this rbstream reads format {FORMAT}; make it anew"
        )
    try:
        return About.model_validate(content)
    except ValidationError as error:
        raise DataError(f"{path / ABOUT}: damaged: {error.errors()[0]['msg']}; make the data set anew") from error


def _check_stamps(path: Path, about: About) -> int:
    """Where the first stamp begins in the file [bytes]."""
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
            offset, length = file.tell(), os.fstat(file.fileno()).st_size
    except (OSError, ValueError, TokenError) as error:  # the last from numpy, of a damaged header
        raise DataError(f"{path}: can't be read: {error}") from error
    expected = (about.rows, len(about.channels), about.size, about.size)
    if version != (1, 0) or fortran or dtype != np.dtype("<f4") or shape != expected:
        raise DataError(f"{path}: is {dtype} {shape}, and {ABOUT} says float32 {expected}; make the data set anew")
    needed = offset + 4 * int(np.prod(expected, dtype=np.int64))
    if length != needed:
        raise DataError(f"{path}: has {length:,} bytes of {needed:,}: cut short or damaged; make the data set anew")
    return offset


def _columns(path: Path, about: About) -> pa.Table:
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != about.columns_sha256:
            raise DataError(f"{path}: cut short or changed (its SHA-256 is another); make the data set anew")
        # In this thread. `pq.read_table` begins one of Arrow's own, whatever it is told, which gives the buffer back to
        # Python when it likes: that has ended processes (2 in 180 that ended at once aborted; one of CI's crashed).
        table = pq.ParquetFile(pa.BufferReader(content), pre_buffer=False).read(use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: can't be read: {error}") from error
    if table.num_rows != about.rows or {f.name: f.type for f in table.schema} != _TYPES:
        raise DataError(f"{path}: doesn't have the columns and rows of this format; make the data set anew")
    return table
