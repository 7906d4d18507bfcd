"""The hot path: an Avro schema compiled into regular expressions that walk over a record.

Avro is a prefix code: given the schema, every byte says how far the next value reaches. Flat runs of fields
(numbers, short ASCII strings, unions of them) become one atomic pattern, arrays a loop over one, stamps a
jump. A record that does not match (or a schema with maps or nested arrays) is left to the general path, which
decides; so the walk checks every byte's meaning and never accepts what fastavro would not read the same way.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rbstream.packet.varint import decode_long, encode_long

# A parsed Avro schema as fastavro gives it: a name, a list (union) or a dict.
Schema = Any
# Where a value's bytes are: path -> (start, end) in the data.
Spans = dict[str, tuple[int, int]]
# Takes data, a position, the end and the spans found so far; returns the position behind, or NO_MATCH. Raises
# EOFError, ValueError; a single number may reach behind the end.
Step = Callable[[bytes, int, int, Spans], int]
NO_MATCH = -1

# The path of a mere position: behind the candidate's last field, where others can be appended.
END_OF_CANDIDATE = "candidate.$end"

# Archive paths of the difference image (94 bytes) are the longest strings in ZTF's packets.
LONGEST_STRING = 127
# No survey has a fixed type; larger ones could be more than an expression can count.
LONGEST_FIXED = 1 << 10
# Nine bytes hold 63 bits: more than any number in a packet, and no room for overflow.
_VARINT = rb"[\x80-\xff]{0,8}+[\x00-\x7f]"
_PRIMITIVES = {
    "null": b"",
    "boolean": rb"[\x00\x01]",
    "int": _VARINT,
    "long": _VARINT,
    "float": b".{4}",
    "double": b".{8}",
    # Only ASCII: other UTF-8 has to be decoded to be checked.
    "string": b"(?>"
    + b"|".join(re.escape(encode_long(n)) + rb"[\x00-\x7f]{%d}" % n for n in range(LONGEST_STRING + 1))
    + b")",
}


class TooComplexError(Exception):
    """The walk does not cover this schema."""


def compile_walk(schema: Schema, names: Mapping[str, Schema], wanted: frozenset[str]) -> Step:
    """A step over one record of `schema` that finds the spans of the `wanted` paths.

    Raises TooComplexError.
    """
    return _sequence(list(_pieces(schema, names, wanted, "")), wanted)


class _Pattern:
    """A flat stretch of a record: its expression, and the paths it captures in order."""

    def __init__(self, expression: bytes, paths: tuple[str, ...] = ()) -> None:
        self.expression = expression
        self.paths = paths


_Piece = _Pattern | Step


def _pieces(schema: Schema, names: Mapping[str, Schema], wanted: frozenset[str], path: str) -> Iterable[_Piece]:
    """What a schema is made of, in order."""
    kind = kind_of(schema, names)
    if kind == "record":
        for field in resolve(schema, names)["fields"]:
            yield from _pieces(field["type"], names, wanted, join(path, field["name"]))
        if join(path, "$end") in wanted:
            yield _Pattern(b"()", (join(path, "$end"),))
    elif kind == "union":
        yield _union(schema, names, wanted, path)
    elif kind == "array":
        yield _array(resolve(schema, names)["items"], names)
    elif kind == "bytes":
        yield _bytes(path if path in wanted else None)
    else:
        expression = _flat(schema, names, kind)
        yield _Pattern(b"(" + expression + b")", (path,)) if path in wanted else _Pattern(expression)


def _flat(schema: Schema, names: Mapping[str, Schema], kind: str) -> bytes:
    if kind == "fixed":
        size = resolve(schema, names)["size"]
        if size > LONGEST_FIXED:
            raise TooComplexError(f"fixed of {size} bytes")
        return b".{%d}" % size
    if kind == "enum":
        symbols = range(len(resolve(schema, names)["symbols"]))
        return b"(?>" + b"|".join(re.escape(encode_long(i)) for i in symbols) + b")"
    if kind not in _PRIMITIVES:
        raise TooComplexError(kind)
    return _PRIMITIVES[kind]


def _union(branches: list[Schema], names: Mapping[str, Schema], wanted: frozenset[str], path: str) -> _Piece:
    """A choice by index. A wanted leaf is captured with its index, so that the branch can be told."""
    below = frozenset() if path in wanted else wanted
    choices = [list(_pieces(branch, names, below, path)) for branch in branches]
    if all(isinstance(piece, _Pattern) for pieces in choices for piece in pieces):
        flat = [_joined(pieces) for pieces in choices]  # type: ignore[arg-type]
        chosen = (re.escape(encode_long(i)) + pattern.expression for i, pattern in enumerate(flat))
        expression = b"(?>" + b"|".join(chosen) + b")"
        paths = tuple(path for pattern in flat for path in pattern.paths)
        return _Pattern(b"(" + expression + b")", (path, *paths)) if path in wanted else _Pattern(expression, paths)
    if path in wanted:  # a nullable stamp: the span of its bytes, without the index
        choices = [list(_pieces(branch, names, wanted, path)) for branch in branches]
    steps = [_sequence(pieces, wanted) for pieces in choices]

    def union(data: bytes, position: int, end: int, spans: Spans) -> int:
        index, position = decode_long(data, position)
        return steps[index](data, position, end, spans) if 0 <= index < len(steps) else NO_MATCH

    return union


def _array(items: Schema, names: Mapping[str, Schema]) -> Step:
    pieces = list(_pieces(items, names, frozenset(), ""))
    if not all(isinstance(piece, _Pattern) for piece in pieces):
        raise TooComplexError("array of arrays, maps or bytes")
    match = re.compile(_joined(pieces).expression, re.DOTALL).match  # type: ignore[arg-type]

    def array(data: bytes, position: int, end: int, spans: Spans) -> int:
        while True:
            count, position = decode_long(data, position)
            if count <= 0:  # a negative count comes with a size in bytes: rare, and the general path's
                return position if count == 0 else NO_MATCH
            for _ in range(count):
                found = match(data, position, end)
                if found is None:
                    return NO_MATCH
                position = found.end()

    return array


def _bytes(path: str | None) -> Step:
    def jump(data: bytes, position: int, end: int, spans: Spans) -> int:
        size, position = decode_long(data, position)
        if size < 0 or position + size > end:
            return NO_MATCH
        if path is not None:
            spans[path] = (position, position + size)
        return position + size

    return jump


def _joined(patterns: list[_Pattern]) -> _Pattern:
    expression = b"".join(pattern.expression for pattern in patterns)
    return _Pattern(expression, tuple(path for pattern in patterns for path in pattern.paths))


def _sequence(pieces: list[_Piece], wanted: frozenset[str]) -> Step:
    """One step for pieces in order, neighbouring patterns merged."""
    steps: list[Step] = []
    flat: list[_Pattern] = []
    for piece in [*pieces, None]:
        if isinstance(piece, _Pattern):
            flat.append(piece)
            continue
        if flat:
            steps.append(_match(_joined(flat)))
            flat = []
        if piece is not None:
            steps.append(piece)
    if len(steps) == 1:
        return steps[0]

    def sequence(data: bytes, position: int, end: int, spans: Spans) -> int:
        for step in steps:
            position = step(data, position, end, spans)
            if position < 0:
                return NO_MATCH
        return position

    return sequence


def _match(pattern: _Pattern) -> Step:
    match = re.compile(pattern.expression, re.DOTALL).match
    captured = tuple(enumerate(pattern.paths, start=1))

    def flat(data: bytes, position: int, end: int, spans: Spans) -> int:
        found = match(data, position, end)
        if found is None:
            return NO_MATCH
        for group, path in captured:
            span = found.span(group)
            if span[0] >= 0:  # a group in a branch not taken
                spans[path] = span
        return found.end()

    return flat


def join(path: str, name: str) -> str:
    """The path of a field below `path`."""
    return f"{path}.{name}" if path else name


def resolve(schema: Schema, names: Mapping[str, Schema]) -> Schema:
    """The definition behind a name; other schemas as they are."""
    return names.get(schema, schema) if isinstance(schema, str) else schema


def kind_of(schema: Schema, names: Mapping[str, Schema]) -> str:
    """The Avro type of a schema: a primitive's name, or record, enum, array, map, union, fixed."""
    schema = resolve(schema, names)
    if isinstance(schema, list):
        return "union"
    return str(schema["type"] if isinstance(schema, dict) else schema)
