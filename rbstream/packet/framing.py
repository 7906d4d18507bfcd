"""Confluent's framing: a zero byte, the schema's id in four bytes (big-endian), one Avro record.

The schema is elsewhere, so that a framed packet can't be read alone: it becomes a packet as any other here, and what
goes out is an object container.
"""

import hashlib
import struct
from functools import lru_cache
from typing import Protocol

from rbstream.errors import RbstreamError, Rejection
from rbstream.packet.alert import Origin, Packet, Rejected
from rbstream.packet.container import SYNC_BYTES, encode_block, encode_header
from rbstream.settings import Limits

FRAME = struct.Struct(">xI")
FRAME_MAGIC = b"\x00"
# A night has one schema, a topic a handful over the years.
CACHED_SCHEMAS = 32


class RegistryError(RbstreamError):
    """The schemas can't be asked for: a fault of ours or of the registry, never of the packet."""


class SchemaSource(Protocol):
    """Where schemas are by id: a folder, or a registry."""

    def schema(self, id_: int) -> bytes:
        """The Avro schema of an id, as JSON.

        Raises Rejection: schema_id, where there is none; RegistryError where that can't be told.
        """
        ...


def unframe(origin: Origin, content: bytes, schemas: SchemaSource | None, limits: Limits) -> Packet | Rejected:
    """A message's bytes as a packet: containers as they are, framed records as a block of one under their schema.

    Anything else stays as it is, and so does what is framed where no schemas are given: the reader says what it is.
    Raises RegistryError where the schema can't be had.
    """
    if schemas is None or not content.startswith(FRAME_MAGIC) or len(content) < FRAME.size:
        return Packet(origin, content)
    try:
        if len(content) > limits.packet_bytes:
            detail = f"framed record of {len(content)} bytes; the limit is {limits.packet_bytes}"
            raise Rejection("container", "too_large", detail)
        (id_,) = FRAME.unpack_from(content)
        header, sync = _header(schemas.schema(id_))
    except Rejection as rejection:
        return Rejected(rejection, origin, content)
    return Packet(origin, encode_block([memoryview(content)[FRAME.size :]], sync), header)


# Sources hand out the same object for the same id, whose hash Python keeps: to find it here costs nothing.
@lru_cache(CACHED_SCHEMAS)
def _header(schema: bytes) -> tuple[bytes, bytes]:
    """The header of a container with this schema, and its sync marker (derived: same input, same bytes)."""
    sync = hashlib.sha256(schema).digest()[:SYNC_BYTES]
    return encode_header(schema, sync), sync
