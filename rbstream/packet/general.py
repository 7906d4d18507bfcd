"""The general path: a record read by fastavro, part by part, with the positions of what is wanted.

It handles every layout and is the judge: what it can't read is rejected.
"""

import io
from collections.abc import Callable, Mapping
from typing import Any

import fastavro

from rbstream.errors import Rejection
from rbstream.packet.schema import standalone
from rbstream.packet.varint import decode_long
from rbstream.packet.walk import Schema, Spans, join, kind_of, resolve

# Reads one part from the stream and notes the spans of wanted paths, counted from the stream's start.
Part = Callable[[io.BytesIO, Spans], None]


def compile_general(schema: Schema, names: Mapping[str, Schema], wanted: frozenset[str]) -> Part:
    """A reader of one record of `schema` that finds the spans of the `wanted` paths as `compile_walk` does."""
    return _part(schema, names, wanted, "")


def read_general(part: Part, data: bytes, position: int, end: int, limit: int) -> tuple[Spans, int]:
    """The spans of the record at `position` and the position behind it, which is not behind `end`.

    limit: of a record's size [bytes]. Raises Rejection: record, too_large.
    """
    stream = io.BytesIO(data[position : min(position + limit, end)])
    spans: Spans = {}
    try:
        part(stream, spans)
    except MemoryError:
        raise
    except Exception as error:  # fastavro raises many kinds on bad bytes; each of them means the same
        if end - position > limit and stream.tell() >= limit:
            raise Rejection(
                "record", "too_large", f"a record of more than {limit} bytes at byte {position}"
            ) from error
        detail = f"record at byte {position}: {type(error).__name__}: {error!s:.200}"
        raise Rejection("record", "record", detail) from error
    moved = {path: (start + position, end + position) for path, (start, end) in spans.items()}
    return moved, position + stream.tell()


def _part(schema: Schema, names: Mapping[str, Schema], wanted: frozenset[str], path: str) -> Part:
    kind = kind_of(schema, names)
    if path in wanted and not (kind == "union" and "bytes" in schema):
        return _leaf(schema, names, path, kind)
    if not any(name.startswith(join(path, "")) for name in wanted) and path not in wanted:
        return _skip(schema, names)
    if kind == "record":
        return _record(resolve(schema, names), names, wanted, path)
    if kind == "union":
        return _union(schema, names, wanted, path)
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


def _union(branches: list[Schema], names: Mapping[str, Schema], wanted: frozenset[str], path: str) -> Part:
    parts = [_part(branch, names, wanted, path) for branch in branches]

    def union(stream: io.BytesIO, spans: Spans) -> None:
        index, behind = decode_long(stream.getbuffer(), stream.tell())
        stream.seek(behind)
        if not 0 <= index < len(parts):
            raise IndexError(f"{path}: union index {index}, of {len(parts)} branches")
        parts[index](stream, spans)

    return union


def _leaf(schema: Schema, names: Mapping[str, Schema], path: str, kind: str) -> Part:
    parsed = standalone(schema, names)

    def leaf(stream: io.BytesIO, spans: Spans) -> None:
        start = stream.tell()
        value = fastavro.schemaless_reader(stream, parsed, None)
        end = stream.tell()
        spans[path] = (
            (end - len(value), end) if kind == "bytes" else (start, end)
        )  # a stamp: without its length

    return leaf


def _skip(schema: Schema, names: Mapping[str, Schema]) -> Part:
    parsed = standalone(schema, names)

    def skip(stream: io.BytesIO, spans: Spans) -> None:
        fastavro.schemaless_reader(stream, parsed, None)

    return skip
