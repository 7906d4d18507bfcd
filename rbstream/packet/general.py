"""The general path: a record read by fastavro, part by part, with the positions of what is wanted.

It handles every layout and is the judge: what it can't read is rejected.
"""

import io
from collections.abc import Callable, Mapping
from typing import Any

import fastavro

from rbstream.errors import Rejection
from rbstream.packet.schema import standalone
from rbstream.packet.varint import MAX_BYTES, decode_long
from rbstream.packet.walk import Schema, Spans, join, kind_of, resolve

# ZTF's records have about 76 kB; a larger one is read a second time. To cut `limit` bytes out for every small
# record of a large block would take minutes.
WINDOW_BYTES = 1 << 17

# Reads one part from the stream and notes the spans of wanted paths, counted from the stream's start.
Part = Callable[[io.BytesIO, Spans], None]


def compile_general(schema: Schema, names: Mapping[str, Schema], wanted: frozenset[str]) -> Part:
    """A reader of one record of `schema` that finds the spans of `wanted` paths, as `compile_walk` does."""
    return _part(schema, names, wanted, "")


def read_general(part: Part, data: bytes, position: int, end: int, limit: int) -> tuple[Spans, int]:
    """The spans of the record at `position` and the position behind it, which is not behind `end`.

    limit: of a record's size [bytes]. Raises Rejection: record, too_large.
    """
    for size in (min(WINDOW_BYTES, limit), limit):
        stream = io.BytesIO(data[position : min(position + size, end)])
        spans: Spans = {}
        try:
            part(stream, spans)
            break
        except MemoryError:
            raise
        except Exception as error:  # fastavro raises many kinds on bad bytes; each of them means the same
            if end - position <= size or stream.tell() < size:
                detail = f"{type(error).__name__}: {error!s:.200}"
                raise Rejection("record", "record", detail) from error
    else:
        raise Rejection("record", "too_large", f"a record of more than {limit} bytes")
    moved = {path: (start + position, end + position) for path, (start, end) in spans.items()}
    return moved, position + stream.tell()


def _part(schema: Schema, names: Mapping[str, Schema], wanted: frozenset[str], path: str) -> Part:
    kind = kind_of(schema, names)
    if kind == "bytes" and path in wanted:
        return _stamp(path)
    if kind == "union" and not (path in wanted and "bytes" not in schema):
        return _union([_part(branch, names, wanted, path) for branch in schema], path)
    if path in wanted:
        return _leaf(_part(schema, names, frozenset(), path), path)
    if kind == "record" and any(name.startswith(join(path, "")) for name in wanted):
        return _record(resolve(schema, names), names, wanted, path)
    return _skip(schema, names)


def _record(definition: Any, names: Mapping[str, Schema], wanted: frozenset[str], path: str) -> Part:
    parts = [_part(field["type"], names, wanted, join(path, field["name"])) for field in definition["fields"]]
    end = join(path, "$end")

    def record(stream: io.BytesIO, spans: Spans) -> None:
        for part in parts:
            part(stream, spans)
        if end in wanted:
            spans[end] = (stream.tell(), stream.tell())

    return record


def _union(parts: list[Part], path: str) -> Part:
    """Not left to fastavro, which takes an index of -1 for the last branch."""

    def union(stream: io.BytesIO, spans: Spans) -> None:
        start = stream.tell()
        index, length = decode_long(stream.read(MAX_BYTES), 0)
        stream.seek(start + length)
        if not 0 <= index < len(parts):
            raise IndexError(f"{path}: union index {index}, of {len(parts)} branches")
        parts[index](stream, spans)

    return union


def _leaf(part: Part, path: str) -> Part:
    """A value, with its union index if it has one."""

    def leaf(stream: io.BytesIO, spans: Spans) -> None:
        start = stream.tell()
        part(stream, spans)
        spans[path] = (start, stream.tell())

    return leaf


def _stamp(path: str) -> Part:
    """Bytes without their length."""

    def stamp(stream: io.BytesIO, spans: Spans) -> None:
        value = fastavro.schemaless_reader(stream, "bytes", None)
        assert isinstance(value, bytes)
        spans[path] = (stream.tell() - len(value), stream.tell())

    return stamp


def _skip(schema: Schema, names: Mapping[str, Schema]) -> Part:
    parsed = standalone(schema, names)

    def skip(stream: io.BytesIO, spans: Spans) -> None:
        fastavro.schemaless_reader(stream, parsed, None)

    return skip
