"""The scores table: one row for every alert, as CSV or Parquet."""

import csv
import io
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from rbstream.errors import UsageError
from rbstream.output import PartFile, utf8
from rbstream.replay.chunk import Row

# Nine significant digits tell any two float32 apart.
DIGITS = ".9g"
# Rows of a Parquet row group: large enough to compress, some 4 MB in memory.
ROW_GROUP = 4_096


class Scores(Protocol):
    """A table under its temporary name: as `Output`."""

    def write(self, rows: list[Row]) -> None: ...

    def commit(self) -> str: ...

    def discard(self) -> None: ...


def open_scores(path: str) -> Scores:
    """A table by its ending. Raises UsageError for another than .csv or .parquet."""
    match Path(path).suffix:
        case ".csv":
            return CsvScores(Path(path))
        case ".parquet":
            return ParquetScores(Path(path))
    raise UsageError(f"--scores {path}: the name has to end in .csv or .parquet")


class CsvScores:
    """Comma-separated, with a header line; empty where there is no value."""

    def __init__(self, path: Path) -> None:
        self._file = PartFile(path)
        self._write([Row._fields])

    def write(self, rows: list[Row]) -> None:
        digits = (row._replace(drb_upstream=_digits(row.drb_upstream), drb=_digits(row.drb)) for row in rows)
        self._write([_utf8(row) for row in digits])

    def _write(self, rows: list[Any]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        self._file.write(text.getvalue().encode())

    def commit(self) -> str:
        return self._file.commit()

    def discard(self) -> None:
        self._file.discard()


def _digits(value: float | None) -> Any:
    return None if value is None else format(value, DIGITS)


class ParquetScores:
    """Parquet: candid and record int64, drb float32, drb_upstream float64, the rest strings."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        types = {
            "candid": pa.int64(),
            "drb_upstream": pa.float64(),
            "drb": pa.float32(),
            "record": pa.int64(),
        }
        self._schema = pa.schema([(name, types.get(name, pa.string())) for name in Row._fields])
        self._sink = _Sink(PartFile(path))
        self._rows: list[Row] = []
        self._writer = pq.ParquetWriter(pa.PythonFile(self._sink, mode="w"), self._schema)

    def write(self, rows: list[Row]) -> None:
        self._rows += rows
        if len(self._rows) >= ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        columns = zip(*self._rows, strict=True) if self._rows else ([] for _ in Row._fields)
        arrays = [pa.array(_utf8(column), field.type) for column, field in zip(columns, self._schema, strict=True)]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._rows = []

    def commit(self) -> str:
        self._flush()
        self._writer.close()
        return self._sink.part.commit()

    def discard(self) -> None:
        # A writer closes itself when it is collected, and would complain on standard error that it can't write.
        self._sink.discarded = True
        with suppress(Exception):
            self._writer.close()
        self._sink.part.discard()


def _utf8(values: Any) -> list[Any]:
    return [utf8(value) if isinstance(value, str) else value for value in values]


class _Sink(io.RawIOBase):
    """A part file as pyarrow wants it."""

    def __init__(self, part: PartFile) -> None:
        self.part = part
        self.discarded = False
        self._position = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: Any) -> int:
        if not self.discarded:
            self.part.write(bytes(data))
        self._position += len(data)
        return len(data)
