"""Packets in, outcomes out, in order, in micro-batches; one batch is decoded while another is scored."""

from collections import deque
from collections.abc import Iterable, Iterator
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

    triplet: float32 (channels, size, size), NaN where masked or outside the chip.
    """

    verdict: Verdict
    item: Alert | Rejected
    drb: float = np.nan
    triplet: NDArray[np.float32] | None = None


class Outcomes(NamedTuple):
    """What became of a micro-batch, in order; and whether its chunk ends with it."""

    outcomes: list[Outcome]
    ends_chunk: bool


@dataclass(slots=True)
class _Batch:
    """Alerts and rejections in order; the alerts' triplets, in the same order; their scores to come."""

    items: list[Alert | Rejected]
    triplets: NDArray[np.float32]
    ends_chunk: bool
    scores: "Future[NDArray[np.float32]] | None" = None


class Pipeline:
    """The way of a packet. The reader's survey and channels must be those of the scorer's manifest."""

    def __init__(self, reader: PacketReader, scorer: Scorer, passes: Filter, limits: Limits, max_alerts: int) -> None:
        self._reader = reader
        self._scorer = scorer
        self._filter = passes
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
                    batch.scores = scoring.submit(self._scorer.score, batch.triplets)
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
            items: list[Alert | Rejected] = []
            triplets, filled = next(memory), 0
            for item in self._items(chunk):
                if filled == self._max_alerts:
                    yield _Batch(items, triplets, ends_chunk=False)
                    items, triplets, filled = [], next(memory), 0
                if isinstance(item, Alert):
                    try:
                        self._decode(item, triplets[filled])
                        filled += 1
                    except Rejection as rejection:
                        item = Rejected(rejection, item.origin, item.original())
                items.append(item)
            yield _Batch(items, triplets[:filled], ends_chunk=True)

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

    def _outcomes(self, batch: _Batch) -> Outcomes:
        scores = iter(batch.scores.result().tolist() if batch.scores is not None else ())
        triplets = iter(batch.triplets)
        outcomes = []
        for item in batch.items:
            if isinstance(item, Rejected):
                outcomes.append(Outcome("rejected", item))
            else:
                drb = next(scores)
                outcomes.append(Outcome(self._verdict(item, drb), item, drb, next(triplets)))
        return Outcomes(outcomes, batch.ends_chunk)

    def _verdict(self, alert: Alert, drb: float) -> Verdict:
        published = alert.published(self._filter.fields, self._scorer.manifest.version)
        return "passed" if self._filter.passes(drb, published) else "filtered"
