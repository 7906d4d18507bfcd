"""Packets in, alerts out: each record located by the walk, or else by the general path, or rejected."""

from collections.abc import Iterator
from functools import lru_cache

from rbstream.errors import Rejection
from rbstream.packet.alert import Alert, Origin, Packet, Rejected
from rbstream.packet.container import (
    SYNC_BYTES,
    Block,
    BrokenOffError,
    Header,
    encode_block,
    encode_header,
    read_blocks,
    read_header,
)
from rbstream.packet.general import read_general
from rbstream.packet.layout import Layout, compile_layout
from rbstream.packet.survey import Survey
from rbstream.packet.walk import NO_MATCH, Spans
from rbstream.settings import Limits

# A night has one schema, an archive a handful; a flood of schemas must not fill the memory.
CACHED_LAYOUTS = 32
# Blocks that unfold, and rejections that each keep a copy of the schema, can make gigabytes of a megabyte. Honest
# packets unfold to twice their size, and those of many records have hundreds of blocks, not of rejections.
MOST_UNFOLDED = 4


class PacketReader:
    """Reads packets of one survey.

    fields: candidate fields that the filter needs; any that is no number, string or boolean reads as None.
    hot: try the walk first.
    """

    def __init__(
        self,
        survey: Survey,
        channels: tuple[str, ...],
        fields: frozenset[str],
        limits: Limits,
        hot: bool = True,
    ) -> None:
        self._limits = limits
        self._hot = hot

        @lru_cache(CACHED_LAYOUTS)
        def layout(schema: bytes) -> Layout | Rejection:
            try:
                return compile_layout(schema, survey, channels, fields)
            except Rejection as rejection:  # kept as well: bad input is cheap
                return rejection

        self._layout = layout
        # What the last header began with: packets of one night differ in their sync marker only, and to
        # compare 25 kB is ten times faster than to parse them.
        self._last: tuple[bytes, Header, Layout] | None = None

    def open(self, data: bytes) -> tuple[Header, Layout]:
        """The header that `data` start with, and its schema's layout. Raises Rejection."""
        if self._last is not None and data.startswith(self._last[0]):
            start, header, layout = self._last
            sync = data[len(start) : len(start) + SYNC_BYTES]
            if len(sync) == SYNC_BYTES:
                return Header(header.schema, header.codec, sync, header.length), layout
        header = read_header(data, self._limits)
        found = self._layout(header.schema)
        if isinstance(found, Rejection):
            raise Rejection(found.stage, found.reason, found.detail)
        self._last = data[: header.length - SYNC_BYTES], header, found
        return header, found

    def read(self, packet: Packet) -> Iterator[Alert | Rejected]:
        """Every record of a packet, as an alert or rejected; and a rejection where the packet breaks off."""
        record = packet.origin.record
        try:
            header, layout = self.open(packet.content if packet.header is None else packet.header)
        except Rejection as rejection:
            yield Rejected(rejection, packet.origin, (packet.header or b"") + packet.content)
            return
        start = header.length if packet.header is None else 0
        # Where `content` begins in what it was cut from: an origin with an offset is that of the first block.
        base = packet.origin.offset - start if packet.origin.offset else 0
        unfolded, most = 0, MOST_UNFOLDED * max(self._limits.packet_bytes, len(packet.content))
        try:
            for block in read_blocks(packet.content, start, header, self._limits):
                origin = packet.origin._replace(record=record, offset=base + block.offset)
                unfolded += 0 if block.data is packet.content else len(block.data)
                for item in self._records(packet, header, layout, block, origin):
                    yield item
                    record = item.origin.record + 1
                    unfolded += len(item.packet) if isinstance(item, Rejected) else 0
                if unfolded > most and block.behind < len(packet.content):
                    too_large = Rejection("container", "too_large", f"the packet unfolds to more than {most} bytes")
                    raise BrokenOffError(too_large, block.behind)
        except BrokenOffError as broken:
            origin = packet.origin._replace(record=record, offset=base + broken.offset)
            yield Rejected(broken.rejection, origin, _rest(packet, header, broken.offset))

    def _records(
        self, packet: Packet, header: Header, layout: Layout, block: Block, first: Origin
    ) -> Iterator[Alert | Rejected]:
        """The records of a block. From one that can't be read on, the block's rest is one rejection."""
        data, position = block.data, block.start
        alone = (
            packet.header is None
            and block.count == 1
            and block.offset == header.length
            and block.behind == len(packet.content)
        )
        for number in range(block.count):
            origin = first if number == 0 else first._replace(record=first.record + number)
            left = block.count - number
            try:
                if position == block.end:
                    detail = f"{block.count} records announced, the block ends in number {number}"
                    raise Rejection("record", "record", detail)
                if number == self._limits.block_records:
                    detail = f"block of {block.count} records; the limit is {number}, and the rest of it is left"
                    raise Rejection("record", "too_large", detail)
                spans, end = self._locate(layout, block, position)
            except Rejection as rejection:
                original = packet.content if alone else _cut(header, data[position : block.end], left)
                yield Rejected(rejection, origin, original)
                return
            try:
                yield _alert(packet, header, layout, origin, data, position, end, spans, alone)
            except Rejection as rejection:
                original = packet.content if alone else _cut(header, data[position:end], 1)
                yield Rejected(rejection, origin, original)
            position = end
        if position < block.end:
            behind = Rejection("record", "record", f"{block.end - position} bytes behind the last record")
            origin = first._replace(record=first.record + block.count)
            yield Rejected(behind, origin, _cut(header, data[position : block.end], 0))

    def _locate(self, layout: Layout, block: Block, position: int) -> tuple[Spans, int]:
        """The places of what is wanted in the record at `position`, and the position behind it."""
        limit = self._limits.record_bytes
        if self._hot and layout.walk is not None:
            spans: Spans = {}
            last = min(block.end, position + limit)
            try:
                end = layout.walk(block.data, position, last, spans)
            except (EOFError, ValueError):
                end = NO_MATCH
            if position <= end <= last:
                return spans, end
        spans, end = read_general(layout.general, block.data, position, block.end, limit)
        _check_values(layout, block.data, spans)
        return spans, end


def _check_values(layout: Layout, data: bytes, spans: Spans) -> None:
    """Raises Rejection where fastavro reads what Avro does not allow: numbers of more than 64 bits."""
    try:
        for path, decode in layout.decoders.items():
            if path in spans:
                decode(data, spans[path][0])
    except ValueError as error:
        raise Rejection("record", "record", f"{path}: {error}") from error


def _alert(
    packet: Packet,
    header: Header,
    layout: Layout,
    origin: Origin,
    data: bytes,
    start: int,
    end: int,
    spans: Spans,
    alone: bool,
) -> Alert:
    alert = Alert(packet, header, layout, origin, data, start, end, spans, 0, "", alone)
    candid, object_id = alert.value("candid"), alert.value("objectId")
    if candid is None or object_id is None or "candidate.$end" not in spans:
        raise Rejection("layout", "layout", "candid, objectId or candidate is null")
    alert.candid, alert.object_id = candid, object_id
    return alert


def _cut(header: Header, records: bytes, count: int) -> bytes:
    """A container of `count` records that were cut out of a block."""
    return encode_header(header.schema, header.sync) + encode_block([records], header.sync, count)


def _rest(packet: Packet, header: Header, offset: int) -> bytes:
    """The original bytes from a break on, with the container's header before them."""
    if packet.header is None:
        return packet.content[: header.length] + packet.content[offset:]
    return packet.header + packet.content[offset:]
