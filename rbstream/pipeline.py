"""Packets in, outcomes out, in order, in micro-batches; one batch is decoded while another is scored."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rbstream.cutout import decode_cutout
from rbstream.errors import Rejection
from rbstream.filter import Filter
from rbstream.model.manifest import Manifest
from rbstream.packet.alert import Alert, Packet, Rejected
from rbstream.packet.reader import PacketReader
from rbstream.settings import Limits

Verdict = Literal["passed", "filtered", "rejected"]

# While one batch is scored the next is decoded. More in flight would only wait, and take memory.
BATCHES_IN_FLIGHT = 1


class Scorer(Protocol):
    """What the pipeline needs of a model; `rbstream.model.Scorer` is one."""

    @property
    def manifest(self) -> Manifest: ...

    @property
    def device(self) -> object: ...

    def new_batch(self, alerts: int) -> NDArray[np.float32]: ...

    def score(self, triplets: NDArray[np.float32]) -> NDArray[np.float32]: ...


@dataclass(slots=True)
class Outcome:
    """What became of one alert: the scored alert, its score and triplet; or what was rejected.

    reason: why it did not pass: the rejection's, `threshold` or `where`. routes: names of the filters that it passed.
    triplet: float32 (channels, size, size), NaN where masked or outside the chip.
    """

    verdict: Verdict
    item: Alert | Rejected
    reason: str = ""
    drb: float = np.nan
    triplet: NDArray[np.float32] | None = None
    routes: tuple[str, ...] = ()


class Outcomes(NamedTuple):
    """What became of a micro-batch, in order; whether its chunk ends with it; and what it took [s]."""

    outcomes: list[Outcome]
    ends_chunk: bool
    decode_seconds: float = 0.0
    score_seconds: float = 0.0


Scores = tuple[NDArray[np.float32], float]


@dataclass(slots=True)
class _Batch:
    """Alerts and rejections in order; the alerts' triplets, in the same order; their scores, and what they took."""

    items: list[Alert | Rejected]
    triplets: NDArray[np.float32]
    ends_chunk: bool
    seconds: float
    scores: "Future[Scores] | None" = None


class Pipeline:
    """The way of a packet. The reader's survey and channels must be those of the scorer's manifest.

    filters: by the names of the routes that they open; an alert passes if any of them lets it.
    """

    def __init__(
        self, reader: PacketReader, scorer: Scorer, filters: Mapping[str, Filter], limits: Limits, max_alerts: int
    ) -> None:
        self._reader = reader
        self._scorer = scorer
        self._filters = filters
        self._fields = frozenset[str]().union(*(each.fields for each in filters.values()))
        self._limits = limits
        self._max_alerts = max_alerts
        self._size = scorer.manifest.size

    def run(self, chunks: Iterable[Iterable[Packet | Rejected]]) -> Iterator[Outcomes]:
        """The outcomes of all chunks in order, one for every alert, a micro-batch at a time.

        Micro-batches end where chunks end, so that they depend on the input alone; a chunk has at least one, if an
        empty one. The next is decoded before the last one's outcomes are given out; their triplets are good until
        then. Raises ModelError where the model or its device fails.
        """
        pending: deque[_Batch] = deque()
        with ThreadPoolExecutor(1, thread_name_prefix="score") as scoring:
            for batch in self._batches(chunks):
                if len(batch.triplets):
                    batch.scores = scoring.submit(self._score, batch.triplets)
                pending.append(batch)
                if len(pending) > BATCHES_IN_FLIGHT:
                    yield self._outcomes(pending.popleft())
            while pending:
                yield self._outcomes(pending.popleft())

    def _batches(self, chunks: Iterable[Iterable[Packet | Rejected]]) -> Iterator[_Batch]:
        # Memory is used again, as fresh memory costs more than decoding into it: one batch is decoded, some are
        # scored, one is given out.
        memory = cycle([self._scorer.new_batch(self._max_alerts) for _ in range(BATCHES_IN_FLIGHT + 2)])
        for chunk in chunks:
            started = time.perf_counter()
            items: list[Alert | Rejected] = []
            triplets, filled = next(memory), 0
            for item in self._items(chunk):
                if filled == self._max_alerts:
                    yield _Batch(items, triplets, False, time.perf_counter() - started)
                    items, triplets, filled, started = [], next(memory), 0, time.perf_counter()
                if isinstance(item, Alert):
                    try:
                        self._decode(item, triplets[filled])
                        filled += 1
                    except Rejection as rejection:
                        item = Rejected(rejection, item.origin, item.original())
                items.append(item)
            yield _Batch(items, triplets[:filled], True, time.perf_counter() - started)

    def _items(self, chunk: Iterable[Packet | Rejected]) -> Iterator[Alert | Rejected]:
        for item in chunk:
            if isinstance(item, Rejected):
                yield item
            else:
                yield from self._reader.read(item)

    def _decode(self, alert: Alert, triplet: NDArray[np.float32]) -> None:
        """Fill a triplet with the alert's cutouts. A short stamp lies top left; the rest is NaN, as off the chip."""
        for channel, path in zip(triplet, alert.layout.cutouts, strict=True):
            data = alert.cutout(path)
            if data is None:
                raise Rejection("cutout", "cutout_missing", f"{path} is null or empty")
            try:
                image = decode_cutout(data, self._limits)
            except Rejection as rejection:
                raise Rejection(rejection.stage, rejection.reason, f"{path}: {rejection.detail}") from rejection
            if image.shape == channel.shape:
                channel[:] = image
            elif max(image.shape) <= self._size:
                channel[:] = np.nan
                channel[: image.shape[0], : image.shape[1]] = image
            else:
                shape = " x ".join(map(str, image.shape))
                detail = f"{path} is {shape} pixels; the model takes up to {self._size}"
                raise Rejection("cutout", "cutout_shape", detail)

    def _score(self, triplets: NDArray[np.float32]) -> Scores:
        started = time.perf_counter()
        return self._scorer.score(triplets), time.perf_counter() - started

    def _outcomes(self, batch: _Batch) -> Outcomes:
        values, seconds = batch.scores.result() if batch.scores is not None else (np.empty(0), 0.0)
        scores, triplets = iter(values.tolist()), iter(batch.triplets)
        outcomes = []
        for item in batch.items:
            if isinstance(item, Rejected):
                outcomes.append(Outcome("rejected", item, item.rejection.reason))
            else:
                outcomes.append(self._judged(item, next(scores), next(triplets)))
        return Outcomes(outcomes, batch.ends_chunk, batch.seconds, seconds)

    def _judged(self, alert: Alert, drb: float, triplet: NDArray[np.float32]) -> Outcome:
        published = alert.published(self._fields, self._scorer.manifest.version)
        routes = tuple(name for name, each in self._filters.items() if each.passes(drb, published))
        if routes:
            return Outcome("passed", alert, "", drb, triplet, routes)
        reached = any(each.reached(drb) for each in self._filters.values())
        return Outcome("filtered", alert, "where" if reached else "threshold", drb, triplet)
