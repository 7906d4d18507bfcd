"""Chunks: what is dealt to one process at a time, and what comes back. Cut by the input alone."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rbstream.packet.alert import Alert, Origin, Packet, Rejected
from rbstream.packet.annotate import annotate
from rbstream.pipeline import Outcome
from rbstream.replay.rejects import encode_reject
from rbstream.replay.sources import Piece, Source
from rbstream.report.collect import Label, ReportData

# Four micro-batches of the default size: dealing costs little beside them, and what is in flight stays some 10 MB
# a process.
CHUNK_ALERTS = 128
CHUNK_BYTES = 16 << 20
HISTOGRAM_BINS = 20


class Row(NamedTuple):
    """One line of the scores table. None where a packet could not be read so far."""

    candid: int | None
    objectId: str | None  # noqa: N815 - the column's name, and ZTF's
    drb_upstream: float | None
    drb: float | None
    drbversion: str | None
    verdict: str
    file: str
    record: int


class Segment(NamedTuple):
    """A stretch of the payload: `size` bytes of blocks of one schema (by its sync marker) from one input."""

    origin: Origin
    sync: bytes
    size: int


@dataclass(frozen=True)
class Wanted:
    """What of the outcomes is asked for, so that nothing else is made."""

    output: bool
    scores: bool
    rejects: bool
    report: bool


@dataclass
class ChunkResult:
    """What came of a chunk, beside its payload (the annotated blocks of what passed).

    schemas: output schema by sync marker, of every schema that was scored, in order of first appearance.
    report, device: in a process's last result, which stands for no chunk: what it gathered, and where it scored.
    """

    counts: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    first_rejection: str | None = None
    histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros(HISTOGRAM_BINS, np.int64))
    schemas: dict[bytes, bytes] = field(default_factory=dict)
    segments: list[Segment] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    rejects: list[bytes] = field(default_factory=list)
    report: ReportData | None = None
    device: str = ""


def cut_chunks(sources: Iterable[Source]) -> Iterator[list[Source]]:
    """Sources in groups of about `CHUNK_ALERTS` alerts, at most about `CHUNK_BYTES`."""
    chunk: list[Source] = []
    alerts = size = 0
    for source in sources:
        chunk.append(source)
        alerts += source.records if isinstance(source, Piece) else 1
        size += _size(source)
        if alerts >= CHUNK_ALERTS or size >= CHUNK_BYTES:
            yield chunk
            chunk, alerts, size = [], 0, 0
    if chunk:
        yield chunk


def _size(source: Source) -> int:
    if isinstance(source, Piece):
        return source.length if source.content is None else len(source.content)
    return len(source.content) if isinstance(source, Packet) else len(source.packet)


def collect(
    outcomes: list[Outcome], version: str, wanted: Wanted, report: ReportData | None
) -> tuple[ChunkResult, list[bytes]]:
    """The result of a chunk and its payload in parts. report: what a process gathers over all its chunks."""
    result = ChunkResult()
    payload: list[bytes] = []
    scores = [outcome.drb for outcome in outcomes if outcome.verdict != "rejected"]
    result.histogram += np.histogram(scores, HISTOGRAM_BINS, (0, 1))[0]
    for outcome in outcomes:
        result.counts[outcome.verdict] += 1
        if isinstance(outcome.item, Alert):
            _scored(result, payload, outcome, outcome.item, version, wanted)
            if report is not None:
                _show(report, outcome, outcome.item)
        else:
            _rejected(result, outcome.item, wanted)
            if report is not None:
                report.reject(outcome.item.rejection.reason, outcome.item.origin.label)
    return result, payload


def _rejected(result: ChunkResult, item: Rejected, wanted: Wanted) -> None:
    rejection, origin = item.rejection, item.origin
    result.rejected[rejection.reason] += 1
    result.first_rejection = (
        result.first_rejection or f"{origin.label}: {rejection.reason}: {rejection.detail}"
    )
    if wanted.rejects:
        result.rejects.append(encode_reject(item))
    if wanted.scores:
        result.rows.append(Row(None, None, None, None, None, "rejected", origin.name, origin.record))


def _show(report: ReportData, outcome: Outcome, alert: Alert) -> None:
    label = Label(alert.candid, alert.object_id, alert.value("candidate.magpsf"), alert.origin.label)
    assert outcome.triplet is not None  # every scored alert has one
    report.add(outcome.triplet, outcome.drb, alert.drb_upstream, outcome.verdict, label)


def _scored(
    result: ChunkResult, payload: list[bytes], outcome: Outcome, alert: Alert, version: str, wanted: Wanted
) -> None:
    layout, origin = alert.layout, alert.origin
    if wanted.output:
        result.schemas.setdefault(layout.sync, layout.output_schema)
        if outcome.verdict == "passed":
            block = annotate(alert, outcome.drb, version)
            payload.append(block)
            _extend(result.segments, Segment(origin, layout.sync, len(block)))
    if wanted.scores:
        scores = (alert.drb_upstream, outcome.drb, version)
        result.rows.append(
            Row(alert.candid, alert.object_id, *scores, outcome.verdict, origin.name, origin.record)
        )


def _extend(segments: list[Segment], new: Segment) -> None:
    """Neighbouring blocks of one input and schema are one segment."""
    if segments:
        last = segments[-1]
        if last.sync == new.sync and last.origin[:2] == new.origin[:2]:
            segments[-1] = last._replace(size=last.size + new.size)
            return
    segments.append(new)
