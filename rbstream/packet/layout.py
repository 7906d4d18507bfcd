"""Where things are in the packets of one schema: found once, used for every packet that carries it."""

import hashlib
import json
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rbstream.errors import Rejection
from rbstream.packet.container import SYNC_BYTES
from rbstream.packet.general import Part, compile_general
from rbstream.packet.schema import Size, load_schema
from rbstream.packet.survey import Survey
from rbstream.packet.varint import decode_long, encode_long
from rbstream.packet.walk import (
    END_OF_CANDIDATE,
    Schema,
    Step,
    TooComplexError,
    compile_walk,
    join,
    kind_of,
    resolve,
)

# Reads the value whose bytes start at a position.
Decoder = Callable[[bytes, int], Any]

DRB, DRBVERSION = "candidate.drb", "candidate.drbversion"
DRB_UPSTREAM, DRBVERSION_UPSTREAM = "candidate.drb_upstream", "candidate.drbversion_upstream"
MAGPSF = "candidate.magpsf"
# What these must be, beside null, where a schema has them at all: they are read, written and drawn as such.
_NUMBER, _TEXT = frozenset({"float", "double"}), frozenset({"string"})
_SCORE_TYPES = {
    MAGPSF: _NUMBER,
    DRB: _NUMBER,
    DRBVERSION: _TEXT,
    DRB_UPSTREAM: _NUMBER,
    DRBVERSION_UPSTREAM: _TEXT,
}
# A string costs the walk 2 kB of expression and 4 ms to compile, once a schema. ZTF's has 18.
MOST_WALKED_PARTS, MOST_WALKED_STRINGS = 2000, 128
# Beside the cutouts and what the filter asks for.
ALWAYS_WANTED = frozenset(
    {
        "objectId",
        "candid",
        MAGPSF,
        DRB,
        DRBVERSION,
        DRB_UPSTREAM,
        DRBVERSION_UPSTREAM,
        END_OF_CANDIDATE,
    }
)


@dataclass(frozen=True, slots=True)
class Layout:
    """One schema, ready: how to read its records, and how to write them with a new score.

    walk: the hot path, None where the schema is too complex for it. general: the other one.
    decoders: how to read each wanted field's value, by path. cutouts: the stamps' paths, in channel order.
    output_schema, sync: what annotated packets are written with.
    encode_drb, encode_version: a new value as the schema's own type. appended: paths of the fields that the
    output has more. unions: paths whose spans begin with a union index.
    """

    walk: Step | None
    general: Part
    decoders: Mapping[str, Decoder]
    cutouts: tuple[str, ...]
    output_schema: bytes
    sync: bytes
    encode_drb: Callable[[float], bytes]
    encode_version: Callable[[str], bytes]
    appended: tuple[str, ...]
    unions: frozenset[str]


def compile_layout(text: bytes, survey: Survey, channels: tuple[str, ...], fields: frozenset[str]) -> Layout:
    """The layout of a schema. fields: candidate fields that the filter reads.

    Raises Rejection: schema, where it can't be used; layout, where it is not the survey's.
    """
    raw, parsed, names, size = load_schema(text)
    _check_survey(parsed, names, survey, channels)
    cutouts = tuple(survey.cutouts[channel] for channel in channels)
    asked = ALWAYS_WANTED | {join("candidate", field) for field in fields}
    found = {path: _type_at(parsed, names, path) for path in asked}
    types = {path: schema for path, schema in found.items() if _is_scalar(schema, names)}
    for path in types.keys() & _SCORE_TYPES.keys():
        _require(parsed, names, path, _SCORE_TYPES[path])
    output_schema, appended = _output_schema(raw, types)
    wanted = frozenset({*types, *cutouts, END_OF_CANDIDATE})
    return Layout(
        walk=_walk(parsed, names, wanted, size),
        general=compile_general(parsed, names, wanted),
        decoders={path: _decoder(schema, names) for path, schema in types.items()},
        cutouts=cutouts,
        output_schema=output_schema,
        # Derived, so that the same input gives the same bytes.
        sync=hashlib.sha256(output_schema).digest()[:SYNC_BYTES],
        encode_drb=_drb_encoder(types.get(DRB, ["null", "float"])),
        encode_version=_version_encoder(types.get(DRBVERSION, ["null", "string"])),
        appended=appended,
        unions=frozenset(path for path, schema in types.items() if isinstance(schema, list)),
    )


def _walk(parsed: Schema, names: Mapping[str, Schema], wanted: frozenset[str], size: Size) -> Step | None:
    if size.parts > MOST_WALKED_PARTS or size.strings > MOST_WALKED_STRINGS:
        return None
    try:
        return compile_walk(parsed, names, wanted)
    except TooComplexError:
        return None
    finally:
        re.purge()  # re keeps 512 expressions, and these are large: the layout keeps its own


def _is_scalar(schema: Schema | None, names: Mapping[str, Schema]) -> bool:
    """Whether this is a number, a string or the like, or a union of such: what a filter can look at."""
    if isinstance(schema, list):
        return all(_is_scalar(branch, names) for branch in schema)
    return schema == "null" or schema in _DECODERS if isinstance(schema, str) else False


def _layout_rejection(detail: str) -> Rejection:
    return Rejection("layout", "layout", detail)


def _check_survey(parsed: Schema, names: Mapping[str, Schema], survey: Survey, channels: tuple[str, ...]) -> None:
    if parsed["name"] not in survey.schemas:
        known = ", ".join(sorted(survey.schemas))
        raise _layout_rejection(f"the schema is {parsed['name']}; packets of survey {survey.name} have {known}")
    for path, kind in (("candid", "long"), ("objectId", "string"), ("candidate", "record")):
        _require(parsed, names, path, frozenset({kind}))
    for channel in channels:
        _require(parsed, names, survey.cutouts[channel], frozenset({"bytes"}))


def _require(parsed: Schema, names: Mapping[str, Schema], path: str, kinds: frozenset[str]) -> None:
    """Raises Rejection: layout, unless the field at a path is of one of these types, or null."""
    found = _type_at(parsed, names, path)
    if found is None:
        raise _layout_rejection(f"the schema has no {path}")
    branches = found if isinstance(found, list) else [found]
    others = [kind for branch in branches if (kind := kind_of(branch, names)) != "null"]
    if len(others) != 1 or others[0] not in kinds:
        raise _layout_rejection(f"{path} is {json.dumps(found)[:100]}, not {' or '.join(sorted(kinds))}")


def _type_at(schema: Schema, names: Mapping[str, Schema], path: str) -> Schema | None:
    """The schema of the field at a path, through nullable records; None where there is none.

    Raises Rejection: layout, where there are several.
    """
    for name in path.split("."):
        branches = [resolve(branch, names) for branch in (schema if isinstance(schema, list) else [schema])]
        records = [b for b in branches if isinstance(b, dict) and b["type"] == "record"]
        types = [field["type"] for record in records for field in record["fields"] if field["name"] == name]
        if not types:
            return None
        if len(types) > 1:
            raise _layout_rejection(f"the schema has {path} {len(types)} times")
        schema = types[0]
    return schema


def _output_schema(raw: dict[str, Any], types: Mapping[str, Schema]) -> tuple[bytes, tuple[str, ...]]:
    """The schema with the missing score fields appended to `candidate`, and their paths."""
    candidate = _candidate(raw)
    present = {field["name"] for field in candidate["fields"]}
    appended = []
    for path, schema in (
        (DRB, "float"),
        (DRBVERSION, "string"),
        (DRB_UPSTREAM, "double" if "double" in types.get(DRB, ()) else "float"),
        (DRBVERSION_UPSTREAM, "string"),
    ):
        name = path.removeprefix("candidate.")
        if name not in present:
            field = {"name": name, "type": ["null", schema], "default": None, "doc": _DOCS[path]}
            candidate["fields"].append(field)
            appended.append(path)
    return json.dumps(raw, separators=(",", ":")).encode(), tuple(appended)


_DOCS = {
    DRB: "Real/bogus score from rbstream; range is 0 to 1 where closer to 1 is more reliable",
    DRBVERSION: "Version of the network that gave drb",
    DRB_UPSTREAM: "The drb that the packet had when rbstream got it",
    DRBVERSION_UPSTREAM: "The drbversion that the packet had when rbstream got it",
}


def _candidate(raw: dict[str, Any]) -> dict[str, Any]:
    """The definition of `candidate` in the schema's own JSON, if nothing else has the same type."""
    (declared,) = (field["type"] for field in raw["fields"] if field["name"] == "candidate")
    branches = declared if isinstance(declared, list) else [declared]
    records = [branch for branch in branches if isinstance(branch, dict)]
    if len(records) != 1:
        raise _layout_rejection("candidate's type is not defined where it is used")
    record: dict[str, Any] = records[0]
    if record["type"] != "record":
        raise _layout_rejection("candidate's type is not plainly a record")
    short = record["name"].rsplit(".", 1)[-1]
    if _uses(raw, short):
        raise _layout_rejection(f"type {short} is used beside candidate, so fields can't be appended to it")
    return record


def _uses(schema: Any, short: str) -> bool:
    """Whether a type is referred to by name anywhere: strings in the places where types stand."""
    if isinstance(schema, str):
        return schema.rsplit(".", 1)[-1] == short
    if isinstance(schema, list):
        return any(_uses(branch, short) for branch in schema)
    if isinstance(schema, dict):
        below = [field.get("type") for field in schema.get("fields", ())]
        return any(
            _uses(part, short) for part in [*below, schema.get("type"), schema.get("items"), schema.get("values")]
        )
    return False


def _decoder(schema: Schema, names: Mapping[str, Schema]) -> Decoder:
    """How to read one value. Types that no filter can ask for read as None."""
    kind = kind_of(schema, names)
    if kind == "union":
        branches = [_decoder(branch, names) for branch in schema]

        def union(data: bytes, position: int) -> Any:
            index, position = decode_long(data, position)
            return branches[index](data, position)

        return union
    return _DECODERS.get(kind, lambda data, position: None)


def _string(data: bytes, position: int) -> str:
    size, position = decode_long(data, position)
    return data[position : position + size].decode()


_float, _double = struct.Struct("<f"), struct.Struct("<d")
_DECODERS: dict[str, Decoder] = {
    "boolean": lambda data, position: data[position] == 1,
    "int": lambda data, position: decode_long(data, position)[0],
    "long": lambda data, position: decode_long(data, position)[0],
    "float": lambda data, position: _float.unpack_from(data, position)[0],
    "double": lambda data, position: _double.unpack_from(data, position)[0],
    "string": _string,
}


def _drb_encoder(schema: Schema) -> Callable[[float], bytes]:
    prefix, kind = _branch(schema, _NUMBER)
    pack = (_float if kind == "float" else _double).pack
    return lambda drb: prefix + pack(drb)


def _version_encoder(schema: Schema) -> Callable[[str], bytes]:
    prefix, _ = _branch(schema, _TEXT)

    def encode(version: str) -> bytes:
        text = version.encode()
        return prefix + encode_long(len(text)) + text

    return encode


def _branch(schema: Schema, kinds: frozenset[str]) -> tuple[bytes, str]:
    """The union index to write before a value, and the type that takes it."""
    if not isinstance(schema, list):
        return b"", schema
    ((index, kind),) = [(index, branch) for index, branch in enumerate(schema) if branch in kinds]
    return encode_long(index), kind
