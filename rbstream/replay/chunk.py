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


class Collector:
    """Gathers a process's outcomes into the results of chunks. report: over all of them."""

    def __init__(self, version: str, wanted: Wanted, report: ReportData | None) -> None:
        self._version = version
        self._wanted = wanted
        self._report = report
        self._result = ChunkResult()

    def add(self, outcomes: list[Outcome]) -> list[bytes]:
        """Count a micro-batch, and return its share of the chunk's payload in parts."""
        result, payload = self._result, []
        scores = [outcome.drb for outcome in outcomes if outcome.verdict != "rejected"]
        result.histogram += np.histogram(scores, HISTOGRAM_BINS, (0, 1))[0]
        for outcome in outcomes:
            result.counts[outcome.verdict] += 1
            if isinstance(outcome.item, Rejected):
                _reject(result, outcome.item, self._wanted, self._report)
                continue
            if self._wanted.output:
                payload += _annotated(result, outcome, outcome.item, self._version)
            if self._wanted.scores:
                result.rows.append(_row(outcome, outcome.item, self._version))
            if self._report is not None:
                _show(self._report, outcome, outcome.item)
        return payload

    def finish_chunk(self) -> ChunkResult:
        """The chunk's result; what is added next belongs to another."""
        result, self._result = self._result, ChunkResult()
        return result


def _annotated(result: ChunkResult, outcome: Outcome, alert: Alert, version: str) -> list[bytes]:
    result.schemas.setdefault(alert.layout.sync, alert.layout.output_schema)
    if outcome.verdict != "passed":
        return []
    block = annotate(alert, outcome.drb, version)
    _extend(result.segments, Segment(alert.origin, alert.layout.sync, len(block)))
    return [block]


def _row(outcome: Outcome, alert: Alert, version: str) -> Row:
    scores = alert.drb_upstream, outcome.drb, version
    return Row(alert.candid, alert.object_id, *scores, outcome.verdict, alert.origin.name, alert.origin.record)


def _reject(result: ChunkResult, item: Rejected, wanted: Wanted, report: ReportData | None) -> None:
    rejection, origin = item.rejection, item.origin
    result.rejected[rejection.reason] += 1
    result.first_rejection = result.first_rejection or f"{origin.label}: {rejection.reason}: {rejection.detail}"
    if wanted.rejects:
        result.rejects.append(encode_reject(item))
    if wanted.scores:
        result.rows.append(Row(None, None, None, None, None, "rejected", origin.name, origin.record))
    if report is not None:
        report.reject(rejection.reason, origin.label)


def _show(report: ReportData, outcome: Outcome, alert: Alert) -> None:
    label = Label(alert.candid, alert.object_id, alert.value("candidate.magpsf"), alert.origin.label)
    assert outcome.triplet is not None  # every scored alert has one
    report.add(outcome.triplet, outcome.drb, alert.drb_upstream, outcome.verdict, label)


def _extend(segments: list[Segment], new: Segment) -> None:
    """Neighbouring blocks of one input and schema are one segment."""
    if segments:
        last = segments[-1]
        if last.sync == new.sync and last.origin[:2] == new.origin[:2]:
            segments[-1] = last._replace(size=last.size + new.size)
            return
    segments.append(new)
