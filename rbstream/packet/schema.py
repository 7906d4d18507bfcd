"""Writer schemas made safe to read by: names resolved, defaults and logical types left out, bombs refused."""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import fastavro

from rbstream.errors import Rejection
from rbstream.packet.walk import Schema

STAGE = "schema"
# With every name written out. ZTF's schema has some hundreds of parts; a dozen definitions that refer to each
# other ten times can have a billion, and need no bytes at all.
MAX_PARTS = 10_000
MAX_DEPTH = 64
# What a type needs to be read; defaults may be invalid (seen in the wild), logical types would turn numbers
# into dates that can overflow, docs are half of the text.
_KEPT = {
    "record": ("type", "name", "namespace", "fields"),
    "enum": ("type", "name", "namespace", "symbols"),
    "fixed": ("type", "name", "namespace", "size"),
    "array": ("type", "items"),
    "map": ("type", "values"),
}
# The least bytes of a value; other primitives take one.
_LEAST_BYTES = {"null": 0, "float": 4, "double": 8}
# Avro 1.11, "Names". Anything else could be mistaken for a path.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Size(NamedTuple):
    """How large a schema is, with every name written out.

    parts: types in it; strings: those that are strings. depth: types within types. least_bytes: that a value
    takes.
    """

    parts: int
    strings: int
    depth: int
    least_bytes: int


def load_schema(text: bytes) -> tuple[dict[str, Any], Schema, dict[str, Schema], Size]:
    """A schema's JSON as it is, its parsed form with full names, the definitions by full name, and its size.

    Raises Rejection: schema; layout where it is not a record.
    """
    try:
        raw = json.loads(text.decode())
        parsed = fastavro.parse_schema(_structure(raw))
        names: dict[str, Schema] = {}
        size = _measure(parsed, names, {})
    except (Rejection, MemoryError):
        raise
    # fastavro raises a dozen kinds for bad schemas, and a missing key is one; all of them mean: not a schema
    except Exception as error:
        raise Rejection(STAGE, "schema", f"the writer schema can't be used: {error!r:.300}") from error
    if not isinstance(raw, dict) or raw["type"] != "record":
        raise Rejection("layout", "layout", "the writer schema is not a record")
    return raw, parsed, names, size


def standalone(schema: Schema, names: Mapping[str, Schema]) -> Schema:
    """The schema of a part, with each definition it refers to put in at its first use."""
    return fastavro.parse_schema(_inlined(schema, names, set()))


def _structure(schema: Schema) -> Schema:
    if isinstance(schema, list):
        return [_structure(branch) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    kind = schema["type"]
    if not isinstance(kind, str) or kind not in _KEPT:  # {"type": "int", "logicalType": "date"}
        return _structure(kind)
    kept = {key: schema[key] for key in _KEPT[kind] if key in schema}
    if kind == "record":
        kept["fields"] = [
            {"name": _checked_name(field["name"]), "type": _structure(field["type"])} for field in schema["fields"]
        ]
    for key in ("items", "values"):
        if key in kept:
            kept[key] = _structure(kept[key])
    for part in kept["name"].split(".") if "name" in kept else ():
        _checked_name(part)
    return kept


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise _refused(f"{name!r:.50} is not a name")
    return name


def _refused(detail: str) -> Rejection:
    return Rejection(STAGE, "schema", detail)


def _measure(schema: Schema, names: dict[str, Schema], sizes: dict[str, Size]) -> Size:
    """Note every definition, and say how large the schema is.

    Raises Rejection: schema, where its values could be endless.
    """
    if isinstance(schema, str):
        if schema in names and schema not in sizes:
            raise _refused(f"{schema} contains itself; an alert's schema does not")
        return sizes.get(schema) or Size(1, int(schema == "string"), 1, _LEAST_BYTES.get(schema, 1))
    if isinstance(schema, list):
        branches = [_measure(branch, names, sizes) for branch in schema]
        return _around(branches, 1 + min(branch.least_bytes for branch in branches))
    if "name" in schema:
        names[schema["name"]] = schema
    size = _definition_size(schema, names, sizes)
    if "name" in schema:
        sizes[schema["name"]] = size
    return size


def _definition_size(schema: Schema, names: dict[str, Schema], sizes: dict[str, Size]) -> Size:
    kind = schema["type"]
    if kind == "record":
        fields = [_measure(field["type"], names, sizes) for field in schema["fields"]]
        return _around(fields, sum(field.least_bytes for field in fields))
    if kind == "fixed":
        return Size(1, 0, 1, _checked_size(schema["size"]))
    if kind == "enum":
        return Size(1 + len(_checked_symbols(schema["symbols"])), 0, 1, 1)
    below = _measure(schema["items" if kind == "array" else "values"], names, sizes)
    # Four bytes can announce a billion items of no bytes each. A map's items have at least their keys.
    if kind == "array" and below.least_bytes == 0:
        raise _refused("an array whose items take no bytes could be of any length")
    return _around([below], 1)


def _around(parts: list[Size], least_bytes: int) -> Size:
    """The size of a type that is made of others. Raises Rejection where it is too large."""
    size = Size(
        1 + sum(part.parts for part in parts),
        sum(part.strings for part in parts),
        1 + max((part.depth for part in parts), default=0),
        least_bytes,
    )
    if size.parts > MAX_PARTS or size.depth > MAX_DEPTH:
        raise _refused(f"more than {MAX_PARTS} types, or {MAX_DEPTH} within each other")
    return size


def _checked_size(size: object) -> int:
    if type(size) is not int or size < 0:
        raise _refused(f"a fixed type of {size!r:.50} bytes")
    return size


def _checked_symbols(symbols: object) -> list[str]:
    if not isinstance(symbols, list) or not symbols or not all(isinstance(symbol, str) for symbol in symbols):
        raise _refused("an enum without symbols")
    return symbols


def _inlined(schema: Schema, names: Mapping[str, Schema], seen: set[str]) -> Schema:
    if isinstance(schema, str):
        if schema not in names or schema in seen:
            return schema
        return _inlined(names[schema], names, seen)
    if isinstance(schema, list):
        return [_inlined(branch, names, seen) for branch in schema]
    seen.update([schema["name"]] if "name" in schema else [])
    inlined = {key: value for key, value in schema.items() if key in _KEPT[schema["type"]]}
    if "fields" in schema:
        inlined["fields"] = [
            {"name": field["name"], "type": _inlined(field["type"], names, seen)} for field in schema["fields"]
        ]
    for key in ("items", "values"):
        if key in schema:
            inlined[key] = _inlined(schema[key], names, seen)
    return inlined
