"""What the report keeps of a night while it streams: counts, a sample and three galleries, all bounded.

Everything kept is decided by the alerts' own values (score, candid, origin), never by the order of their
coming. So the parts that several processes collected merge, in any order, into what one would have collected.
"""

import heapq
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BINS = 50
"""Of the score histogram, over [0, 1]: steps of 0.02 are finer than a threshold is ever argued about."""

MAX_POINTS = 4_000
"""Of the scatter: where more would only blacken the paper, and 200 kB of page."""

MAX_EXHIBITS = 12
"""Triplets in a gallery: three rows of four on a screen; all three galleries hold 1.7 MB."""

MAX_REASONS = 100
"""Kinds of rejection with an example: many times what there is, so that no input can make it grow."""

MAX_ORIGIN = 300
"""Characters of an example's origin: a path and the record's number."""

SCORED = ("passed", "filtered")


class Label(NamedTuple):
    """What names an alert to a person; `origin` (file and record) must differ between alerts."""

    candid: int
    object_id: str
    magpsf: float | None
    origin: str


class Exhibit(NamedTuple):
    """A triplet in a gallery: (3, 63, 63) float32, NaN where there is no data."""

    rank: tuple[float, int, str]
    score: float
    verdict: str
    label: Label
    triplet: NDArray[np.float32]


class Point(NamedTuple):
    """A dot of the scatter. Sorts by its draw, from the last to be kept to the first."""

    draw: int
    candid: int
    upstream: float
    score: float
    verdict: str


class Gallery:
    """The `MAX_EXHIBITS` alerts of least distance to what is looked for, each object's candid once."""

    def __init__(self) -> None:
        self._exhibits: dict[tuple[str, int], Exhibit] = {}
        self._last = (math.inf, 0, "")
        self.bar = math.inf
        """Alerts farther off than this can't enter."""

    def offer(self, distance: float, triplet: NDArray[np.float32], score: float, verdict: str, label: Label) -> None:
        """Take the alert in, copying its triplet, if it is nearer than what is there."""
        rank = (distance, label.candid, label.origin)
        if self._wants(rank, label):
            self._hang(Exhibit(rank, score, verdict, label, triplet.copy()))

    def merge(self, other: "Gallery") -> None:
        for exhibit in other.exhibits():
            if self._wants(exhibit.rank, exhibit.label):
                self._hang(exhibit)

    def exhibits(self) -> list[Exhibit]:
        """Nearest first."""
        return sorted(self._exhibits.values(), key=lambda exhibit: exhibit.rank)

    def _wants(self, rank: tuple[float, int, str], label: Label) -> bool:
        present = self._exhibits.get((label.object_id, label.candid))
        if present is not None:
            return rank < present.rank
        return rank < self._last

    def _hang(self, exhibit: Exhibit) -> None:
        self._exhibits[exhibit.label.object_id, exhibit.label.candid] = exhibit
        if len(self._exhibits) > MAX_EXHIBITS:
            last = self.exhibits()[-1].label
            del self._exhibits[last.object_id, last.candid]
        if len(self._exhibits) == MAX_EXHIBITS:
            self._last = self.exhibits()[-1].rank
            self.bar = self._last[0]


class Sample:
    """Up to `MAX_POINTS` alerts drawn by a hash of their candid: as good as at random, and repeatable."""

    def __init__(self) -> None:
        self.offered = 0
        self._heap: list[Point] = []
        self._kept: set[Point] = set()
        self._lowest = -(2**64)

    def offer(self, candid: int, upstream: float, score: float, verdict: str) -> None:
        self.offered += 1
        draw = -(candid * 0x9E3779B97F4A7C15 % 2**64)  # Fibonacci hashing: 2**64 over the golden ratio
        if draw >= self._lowest:
            self._keep(Point(draw, candid, upstream, score, verdict))

    def merge(self, other: "Sample") -> None:
        self.offered += other.offered
        for point in other._heap:
            self._keep(point)

    def points(self) -> list[Point]:
        """In an order that depends on the points alone."""
        return sorted(self._heap)

    def _keep(self, point: Point) -> None:
        if point in self._kept:
            return
        self._kept.add(point)
        if len(self._heap) < MAX_POINTS:
            heapq.heappush(self._heap, point)
        else:
            self._kept.discard(heapq.heappushpop(self._heap, point))
            self._lowest = self._heap[0].draw


class ReportData:
    """Collects a night, or a process's part of it; `nearest` is what lies around the score `threshold`."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.scores = {verdict: [0] * BINS for verdict in SCORED}
        """Alerts per bin of the score, by verdict."""
        self.sample = Sample()
        self.real, self.bogus, self.nearest = Gallery(), Gallery(), Gallery()
        self.examples: dict[str, str] = {}
        """For each reason the first rejected packet by name."""

    def add(
        self,
        triplet: NDArray[np.float32],
        score: float,
        upstream: float | None,
        verdict: str,
        label: Label,
    ) -> None:
        """One alert that was scored.

        triplet: (3, 63, 63) float32, raw (not normalised), NaN where there is no data; copied if it is kept.
        score: in [0, 1]; one that is NaN has no place on the page.
        upstream: the packet's own score, None (or NaN) where it had none.
        verdict: `passed` or `filtered`.
        """
        if score != score:
            return
        self.scores[verdict][min(int(score * BINS), BINS - 1)] += 1
        if upstream is not None and upstream == upstream:
            self.sample.offer(label.candid, upstream, score, verdict)
        if -score <= self.real.bar:
            self.real.offer(-score, triplet, score, verdict, label)
        if score <= self.bogus.bar:
            self.bogus.offer(score, triplet, score, verdict, label)
        distance = abs(score - self.threshold)
        if distance <= self.nearest.bar:
            self.nearest.offer(distance, triplet, score, verdict, label)

    def reject(self, reason: str, origin: str) -> None:
        """One packet that was rejected; `origin` (file, record) serves as an example of its reason."""
        origin = origin[:MAX_ORIGIN]
        if origin < self.examples.get(reason, origin + "\0"):
            self.examples[reason] = origin
            if len(self.examples) > MAX_REASONS:
                del self.examples[max(self.examples)]

    def merge(self, other: "ReportData") -> None:
        """Take in what another process collected. Raises ValueError if that was for another threshold."""
        if other.threshold != self.threshold:
            raise ValueError(f"thresholds differ: {self.threshold} and {other.threshold}")
        for verdict, counts in other.scores.items():
            self.scores[verdict] = [a + b for a, b in zip(self.scores[verdict], counts, strict=True)]
        self.sample.merge(other.sample)
        self.real.merge(other.real)
        self.bogus.merge(other.bogus)
        self.nearest.merge(other.nearest)
        for reason, origin in other.examples.items():
            self.reject(reason, origin)
