"""Where things are in the packets of one schema: found once, used for every packet that carries it."""

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rbstream.errors import Rejection
from rbstream.packet.container import SYNC_BYTES
from rbstream.packet.general import Part, compile_general
from rbstream.packet.schema import least_bytes, load_schema
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
# Beside the cutouts and what the filter asks for.
ALWAYS_WANTED = frozenset(
    {
        "objectId",
        "candid",
        "candidate.magpsf",
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
    least_bytes: of a record. output_schema, sync: what annotated packets are written with.
    encode_drb, encode_version: a new value as the schema's own type. appended: paths of the fields that the output
    has more. index_bytes: how many bytes of a score field's span are its union index.
    """

    walk: Step | None
    general: Part
    decoders: Mapping[str, Decoder]
    cutouts: tuple[str, ...]
    least_bytes: int
    output_schema: bytes
    sync: bytes
    encode_drb: Callable[[float], bytes]
    encode_version: Callable[[str], bytes]
    appended: tuple[str, ...]
    index_bytes: Mapping[str, int]


def compile_layout(text: bytes, survey: Survey, channels: tuple[str, ...], fields: frozenset[str]) -> Layout:
    """The layout of a schema. fields: candidate fields that the filter reads.

    Raises Rejection: schema, where it can't be used; layout, where it is not the survey's.
    """
    raw, parsed, names = load_schema(text)
    _check_survey(parsed, names, survey, channels)
    cutouts = tuple(survey.cutouts[channel] for channel in channels)
    wanted = ALWAYS_WANTED | {join("candidate", field) for field in fields} | set(cutouts)
    types = {path: found for path in wanted if (found := _type_at(parsed, names, path)) is not None}
    output_schema, appended = _output_schema(raw)
    try:
        walk = compile_walk(parsed, names, wanted)
    except TooComplexError:
        walk = None
    return Layout(
        walk=walk,
        general=compile_general(parsed, names, wanted),
        decoders={path: _decoder(schema, names) for path, schema in types.items() if path not in cutouts},
        cutouts=cutouts,
        least_bytes=max(1, least_bytes(parsed, names)),
        output_schema=output_schema,
        # Derived, so that the same input gives the same bytes.
        sync=hashlib.sha256(output_schema).digest()[:SYNC_BYTES],
        encode_drb=_drb_encoder(types.get(DRB, ["null", "float"])),
        encode_version=_version_encoder(types.get(DRBVERSION, ["null", "string"])),
        appended=appended,
        index_bytes={path: int(isinstance(types.get(path), list)) for path in (DRB, DRBVERSION)},
    )


def _layout_rejection(detail: str) -> Rejection:
    return Rejection("layout", "layout", detail)


def _check_survey(
    parsed: Schema, names: Mapping[str, Schema], survey: Survey, channels: tuple[str, ...]
) -> None:
    if parsed["name"] not in survey.schemas:
        known = ", ".join(sorted(survey.schemas))
        raise _layout_rejection(
            f"the schema is {parsed['name']}; packets of survey {survey.name} have {known}"
        )
    for path, kinds in (("candid", {"long"}), ("objectId", {"string"}), ("candidate", {"record"})):
        _require(parsed, names, path, kinds)
    for channel in channels:
        _require(parsed, names, survey.cutouts[channel], {"bytes"})


def _require(parsed: Schema, names: Mapping[str, Schema], path: str, kinds: set[str]) -> None:
    found = _type_at(parsed, names, path)
    if found is None:
        raise _layout_rejection(f"the schema has no {path}")
    branches = found if isinstance(found, list) else [found]
    if not {kind_of(branch, names) for branch in branches} - {"null"} == kinds:
        raise _layout_rejection(f"{path} is {json.dumps(found)[:100]}, not {' or '.join(kinds)}")


def _type_at(schema: Schema, names: Mapping[str, Schema], path: str) -> Schema | None:
    """The schema of the field at a path, through nullable records; None where there is none."""
    for name in path.split("."):
        branches = [resolve(branch, names) for branch in (schema if isinstance(schema, list) else [schema])]
        records = [b for b in branches if isinstance(b, dict) and b["type"] == "record"]
        types = [field["type"] for record in records for field in record["fields"] if field["name"] == name]
        if len(types) != 1:
            return None
        schema = types[0]
    return schema


def _output_schema(raw: dict[str, Any]) -> tuple[bytes, tuple[str, ...]]:
    """The schema with the missing score fields appended to `candidate`, and their paths."""
    candidate = _candidate(raw)
    present = {field["name"]: field["type"] for field in candidate["fields"]}
    appended = []
    for path, schema in (
        (DRB, "float"),
        (DRBVERSION, "string"),
        (DRB_UPSTREAM, "double" if "double" in present.get("drb", ()) else "float"),
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
            _uses(part, short)
            for part in [*below, schema.get("type"), schema.get("items"), schema.get("values")]
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
    prefix, kind = _branch(schema, ("float", "double"), DRB)
    pack = (_float if kind == "float" else _double).pack
    return lambda drb: prefix + pack(drb)


def _version_encoder(schema: Schema) -> Callable[[str], bytes]:
    prefix, _ = _branch(schema, ("string",), DRBVERSION)

    def encode(version: str) -> bytes:
        text = version.encode()
        return prefix + encode_long(len(text)) + text

    return encode


def _branch(schema: Schema, kinds: tuple[str, ...], path: str) -> tuple[bytes, str]:
    """The union index to write before a value, and the type that takes it."""
    branches = schema if isinstance(schema, list) else [schema]
    for index, branch in enumerate(branches):
        if branch in kinds:
            return (encode_long(index) if isinstance(schema, list) else b""), branch
    raise _layout_rejection(f"{path} is {json.dumps(schema)[:100]}, which can't hold a {kinds[0]}")
