"""Writer schemas made safe to read by: names resolved, defaults and logical types left out, bombs refused."""

import json
from collections.abc import Mapping
from typing import Any

import fastavro

from rbstream.errors import Rejection
from rbstream.packet.walk import Schema, kind_of, resolve

STAGE = "schema"
# What a writer schema needs to be read; defaults may be invalid (seen in the wild), logical types would turn
# numbers into dates that can overflow, docs are half of the text.
_STRUCTURE = ("type", "name", "namespace", "fields", "items", "values", "symbols", "size")
# The least bytes of a value; others need a look at what they hold.
_LEAST_BYTES = {"null": 0, "float": 4, "double": 8}


def load_schema(text: bytes) -> tuple[dict[str, Any], Schema, dict[str, Schema]]:
    """A schema's JSON as it is, its parsed form with full names, and the definitions by full name.

    Raises Rejection: schema.
    """
    try:
        raw = json.loads(text)
        parsed = fastavro.parse_schema(_structure(raw))
        names: dict[str, Schema] = {}
        _collect(parsed, names, ())
    except Rejection:
        raise
    except (
        Exception
    ) as error:  # fastavro raises a dozen kinds for bad schemas; all of them mean: not a schema
        raise Rejection(STAGE, "schema", f"the writer schema can't be used: {error!r:.300}") from error
    if not isinstance(raw, dict) or kind_of(parsed, names) != "record":
        raise Rejection("layout", "layout", "the writer schema is not a record")
    return raw, parsed, names


def standalone(schema: Schema, names: Mapping[str, Schema]) -> Schema:
    """The schema of a part, with each definition it refers to put in at its first use."""
    return fastavro.parse_schema(_inlined(schema, names, set()))


def least_bytes(schema: Schema, names: Mapping[str, Schema]) -> int:
    """The least number of bytes that a value can take."""
    kind, definition = kind_of(schema, names), resolve(schema, names)
    if kind == "record":
        return sum(least_bytes(field["type"], names) for field in definition["fields"])
    if kind == "union":
        return 1 + min(least_bytes(branch, names) for branch in definition)
    if kind == "fixed":
        return int(definition["size"])
    return _LEAST_BYTES.get(kind, 1)


def _structure(schema: Schema) -> Schema:
    if isinstance(schema, list):
        return [_structure(branch) for branch in schema]
    if isinstance(schema, dict):
        kept = {key: schema[key] for key in _STRUCTURE if key in schema}
        if isinstance(kept.get("fields"), list):
            kept["fields"] = [_structure(field) for field in kept["fields"]]
        for key in ("type", "items", "values"):
            if key in kept:
                kept[key] = _structure(kept[key])
        return kept
    return schema


def _collect(schema: Schema, names: dict[str, Schema], inside: tuple[str, ...]) -> None:
    """Note every definition. Raises Rejection for a schema whose values could be endless."""
    if isinstance(schema, str):
        if schema in inside:
            raise Rejection(STAGE, "schema", f"{schema} contains itself; an alert's schema does not")
        return
    if isinstance(schema, list):
        for branch in schema:
            _collect(branch, names, inside)
        return
    if "name" in schema:
        names[schema["name"]] = schema
        inside = (*inside, schema["name"])
    for field in schema.get("fields", ()):
        _collect(field["type"], names, inside)
    for key in ("items", "values"):
        if key in schema:
            _collect(schema[key], names, inside)
    # Four bytes can announce a billion items of no bytes each. A map's items have at least their keys.
    if "items" in schema and least_bytes(schema["items"], names) == 0:
        raise Rejection(STAGE, "schema", "an array whose items take no bytes could be of any length")
    if isinstance(schema["type"], (dict, list)):
        _collect(schema["type"], names, inside)


def _inlined(schema: Schema, names: Mapping[str, Schema], seen: set[str]) -> Schema:
    if isinstance(schema, str):
        if schema not in names or schema in seen:
            return schema
        return _inlined(names[schema], names, seen)
    if isinstance(schema, list):
        return [_inlined(branch, names, seen) for branch in schema]
    seen.update([schema["name"]] if "name" in schema else [])
    inlined = {key: value for key, value in schema.items() if key in _STRUCTURE}
    if "fields" in schema:
        inlined["fields"] = [
            {"name": field["name"], "type": _inlined(field["type"], names, seen)}
            for field in schema["fields"]
        ]
    for key in ("items", "values"):
        if key in schema:
            inlined[key] = _inlined(schema[key], names, seen)
    return inlined
