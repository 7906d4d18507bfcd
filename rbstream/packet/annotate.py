"""Writing the score into a packet: a splice. Every byte of the record that is not the score stays."""

from rbstream.packet.alert import Alert
from rbstream.packet.container import encode_block
from rbstream.packet.layout import DRB, DRB_UPSTREAM, DRBVERSION, DRBVERSION_UPSTREAM
from rbstream.packet.varint import decode_long
from rbstream.packet.walk import END_OF_CANDIDATE

_NULL = b"\x00"
_SECOND_BRANCH = b"\x02"


def annotate(alert: Alert, drb: float, version: str, head: bytes = b"") -> bytes:
    """The alert as a container block under `layout.output_schema`, with the new `drb` and `drbversion`.

    What the packet had goes to `drb_upstream` and `drbversion_upstream`, if they are not there yet. head: what to put
    before the block, such as the container's header: joined here, it costs no further copy of the packet.
    """
    layout = alert.layout
    new = {DRB: layout.encode_drb(drb), DRBVERSION: layout.encode_version(version)}
    at_end = alert.spans[END_OF_CANDIDATE][0]
    edits = sorted((*alert.spans[path], value) for path, value in new.items() if path not in layout.appended)
    upstream = {DRB_UPSTREAM: DRB, DRBVERSION_UPSTREAM: DRBVERSION}
    appended = [new[path] if path in new else _nullable(alert, upstream[path]) for path in layout.appended]
    edits.append((at_end, at_end, b"".join(appended)))
    view = memoryview(alert.data)
    parts: list[bytes | memoryview] = []
    position = alert.start
    for start, end, value in edits:
        parts += (view[position:start], value)
        position = end
    parts.append(view[position : alert.end])
    return encode_block(parts, layout.sync, head=head)


def _nullable(alert: Alert, path: str) -> bytes:
    """A field's bytes as they stand, for a field of type null or the same."""
    if alert.value(path) is None:
        return _NULL
    start, end = alert.spans[path]
    if path in alert.layout.unions:
        _, start = decode_long(alert.data, start)  # an index may be written longer than it need be
    return _SECOND_BRANCH + alert.data[start:end]
