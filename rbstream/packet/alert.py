"""Packets and the alerts in them: one data class for each thing that moves along the way."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from rbstream.errors import Rejection
from rbstream.packet.container import Header, encode_block, encode_header
from rbstream.packet.layout import DRB, DRB_UPSTREAM, DRBVERSION, DRBVERSION_UPSTREAM, Layout
from rbstream.packet.walk import Spans


class Origin(NamedTuple):
    """Where something came from. record: its number in the file or member; offset: of its block [bytes]."""

    file: str
    member: str | None = None
    record: int = 0
    offset: int = 0

    @property
    def name(self) -> str:
        """File, and member of a tar behind a colon."""
        return self.file if self.member is None else f"{self.file}:{self.member}"

    @property
    def label(self) -> str:
        """The name, which record of it, and where that one's block starts."""
        return f"{self.name}[{self.record}]" + (f" at byte {self.offset}" if self.offset else "")


@dataclass(frozen=True, slots=True)
class Packet:
    """Bytes as they came: a whole container, or (where `header` is given) some blocks of one.

    origin: of its first record.
    """

    origin: Origin
    content: bytes
    header: bytes | None = None


@dataclass(slots=True)
class Rejected:
    """A fault in a packet's bytes. packet: the original bytes, as a container that can be replayed."""

    rejection: Rejection
    origin: Origin
    packet: bytes


@dataclass(slots=True)
class Alert:
    """One record, located but not decoded: `data[start:end]`, with the places of what is wanted."""

    packet: Packet
    header: Header
    layout: Layout
    origin: Origin
    data: bytes
    start: int
    end: int
    spans: Spans
    candid: int
    object_id: str
    alone: bool

    def value(self, path: str) -> Any:
        """A wanted field's value by path; None where it is null or the schema lacks it."""
        span = self.spans.get(path)
        return None if span is None else self.layout.decoders[path](self.data, span[0])

    def published(self, fields: frozenset[str], version: str) -> dict[str, Any]:
        """Candidate fields by name as the annotated packet has them, but for `drb`; None where null."""
        new = {
            "drbversion": version,
            "drb_upstream": self.drb_upstream,
            "drbversion_upstream": self._upstream_version,
        }
        return {field: new[field] if field in new else self.value(f"candidate.{field}") for field in fields}

    @property
    def drb_upstream(self) -> float | None:
        """The score that the packet came with: before rbstream first scored it, if it did already."""
        value: float | None = self.value(DRB if DRB_UPSTREAM in self.layout.appended else DRB_UPSTREAM)
        return value

    @property
    def _upstream_version(self) -> str | None:
        appended = DRBVERSION_UPSTREAM in self.layout.appended
        value: str | None = self.value(DRBVERSION if appended else DRBVERSION_UPSTREAM)
        return value

    def cutout(self, path: str) -> bytes | None:
        """A stamp's bytes; None where there are none."""
        span = self.spans.get(path)
        return None if span is None else self.data[span[0] : span[1]] or None

    def original(self) -> bytes:
        """The bytes as they came, as a container of this one record."""
        if self.alone:
            return self.packet.content
        block = encode_block([self.data[self.start : self.end]], self.header.sync)
        return encode_header(self.header.schema, self.header.sync) + block
