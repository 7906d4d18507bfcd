"""What packet tests are made of: records of ZTF's schema, containers of any codec, readers of both ways."""

import copy
import io
import json
from pathlib import Path
from typing import Any

import fastavro
import zstandard

from rbstream.packet.alert import Alert, Origin, Packet, Rejected
from rbstream.packet.container import encode_block, encode_header
from rbstream.packet.reader import PacketReader
from rbstream.packet.survey import ZTF
from rbstream.packet.varint import encode_long
from rbstream.settings import Limits

CHANNELS = ("science", "template", "difference")
FIELDS = frozenset({"magpsf", "isdiffpos", "rb", "ndethist", "ssnamenr", "programid"})
SYNC = bytes(range(16))
LIMITS = Limits()
RAW_SCHEMA: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "schemas/ztf.alert.avsc").read_text(encoding="utf-8")
)
SCHEMA = fastavro.parse_schema(RAW_SCHEMA)
Item = Alert | Rejected


def reader(hot: bool = True, limits: Limits = LIMITS, fields: frozenset[str] = FIELDS) -> PacketReader:
    return PacketReader(ZTF, CHANNELS, fields, limits, hot=hot)


BOTH = (reader(True), reader(False))


def items(content: bytes, by: PacketReader = BOTH[0]) -> list[Item]:
    return list(by.read(Packet(Origin("made.avro"), content)))


def reasons(content: bytes, by: PacketReader = BOTH[0]) -> list[str]:
    """`alert`, or the reason of the rejection, for each item."""
    return [item.rejection.reason if isinstance(item, Rejected) else "alert" for item in items(content, by)]


def summary(item: Item) -> Any:
    """All that can be seen of an item from outside, so that two ways of reading can be compared."""
    if isinstance(item, Rejected):
        return item.rejection.stage, item.rejection.reason, item.rejection.detail, item.origin, item.packet
    values = {path: repr(item.value(path)) for path in item.layout.decoders}
    return item.origin, item.candid, item.object_id, item.start, item.end, item.spans, values, item.original()


def read_both(content: bytes) -> list[Item]:
    """The items, after a look whether both ways of reading give the same."""
    hot, general = (items(content, by) for by in BOTH)
    assert list(map(summary, hot)) == list(map(summary, general))
    return hot


def least_value(schema: Any) -> Any:
    """A value of a schema, the emptiest there is."""
    schema = schema if isinstance(schema, (str, dict)) else schema[0]
    if isinstance(schema, str):
        empty = {"null": None, "string": "", "bytes": b"", "boolean": False, "float": 0.0, "double": 0.0}
        return empty.get(schema, 0)
    if schema["type"] == "record":
        return {field["name"]: least_value(field["type"]) for field in schema["fields"]}
    return [] if schema["type"] == "array" else least_value(schema["type"])


EMPTY_RECORD: dict[str, Any] = least_value(SCHEMA)


def record(**changes: Any) -> dict[str, Any]:
    """A ZTF record. changes: of its own fields, or (those that it has not) of its candidate's."""
    made = copy.deepcopy(EMPTY_RECORD)
    made.update(objectId="ZTF18abcdefg", candid=1234567890123)
    for name in ("Science", "Template", "Difference"):
        made[f"cutout{name}"] = {"fileName": f"{name}.fits.gz", "stampData": b"stamp of " + name.encode()}
    for name, value in changes.items():
        (made if name in made else made["candidate"])[name] = value
    return made


def container(*records: dict[str, Any], schema: Any = RAW_SCHEMA, codec: str = "null", one: bool = True) -> bytes:
    """A container as fastavro writes it. one: a block for each record, else one for all."""
    if codec == "zstandard":  # fastavro needs another library than ours for it
        groups = [[value] for value in records] if one else [list(records)]
        parsed = fastavro.parse_schema(schema)
        payloads = [(b"".join(encoded(value, parsed) for value in group), len(group)) for group in groups]
        stored = [encode_block([zstandard.compress(payload)], SYNC, count) for payload, count in payloads]
        return recoded(header(schema), codec) + b"".join(stored)
    buffer = io.BytesIO()
    interval = 1 if one else 1 << 40
    fastavro.writer(buffer, schema, records, codec=codec, sync_interval=interval, sync_marker=SYNC)
    return buffer.getvalue()


def encoded(value: dict[str, Any], schema: Any = SCHEMA) -> bytes:
    """The Avro bytes of a record."""
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, schema, value)
    return buffer.getvalue()


def header(schema: Any = RAW_SCHEMA) -> bytes:
    return encode_header(schema if isinstance(schema, bytes) else json.dumps(schema).encode(), SYNC)


def decoded(content: bytes) -> list[dict[str, Any]]:
    """The records as plain fastavro reads them."""
    return list(fastavro.reader(io.BytesIO(content)))  # type: ignore[arg-type]


def recoded(head: bytes, codec: str) -> bytes:
    """A header that names another codec."""
    return head.replace(encode_long(4) + b"null", encode_long(len(codec)) + codec.encode())


def candidate_fields(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The fields of `candidate` in a schema, to be changed in place."""
    (declared,) = (field["type"] for field in schema["fields"] if field["name"] == "candidate")
    return next(branch for branch in ([declared] if isinstance(declared, dict) else declared) if branch != "null")[
        "fields"
    ]


def changed_schema(**types: Any) -> dict[str, Any]:
    """ZTF's schema with other types for candidate fields; None takes one out."""
    schema = copy.deepcopy(RAW_SCHEMA)
    fields = candidate_fields(schema)
    for name, changed in types.items():
        fields[:] = [field for field in fields if field["name"] != name]
        if changed is not None:
            fields.append({"name": name, "type": changed})
    return schema
