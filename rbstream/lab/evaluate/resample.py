"""Intervals by bootstrap over scenes: alerts of one object are no independent witnesses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

Array = NDArray[Any]

DRAWS = 500
"""Bootstrap samples: the ends of a 95% interval are then good to a tenth of its width."""

LEVEL = 0.95
"""Of every interval: what the field expects when none is named."""

_ROUNDING = 1e-12  # sums in another order differ by less
_ENDS = (100 * (1 - LEVEL) / 2, 100 * (1 + LEVEL) / 2)


@dataclass(frozen=True, slots=True)
class Interval:
    """A number, and the ends of its 95% interval; NaN where there is none."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Share:
    """How many of a group do something: hits of n alerts in some scenes, the share and its 95% interval."""

    name: str
    hits: int
    n: int
    scenes: int
    value: float
    low: float
    high: float


class Scenes:
    """Draws whole scenes with replacement, always the same draws for the same seed.

    scene: (n,) names or numbers of what each alert shows: alerts of one scene come and go together.
    """

    def __init__(self, scene: Array, seed: int) -> None:
        names, codes = np.unique(scene.astype(str), return_inverse=True)
        self.codes: NDArray[np.int64] = codes
        self.number = len(names)
        self._seed = seed

    def _draws(self) -> Iterator[NDArray[np.int64]]:
        """How often each scene was drawn (number,), `DRAWS` times."""
        rng = np.random.default_rng([self._seed, self.number])
        for _ in range(DRAWS):
            yield np.bincount(rng.integers(self.number, size=self.number), minlength=self.number)

    def counts(self, cell: NDArray[np.int64], cells: int) -> NDArray[np.float64]:
        """Alerts in each cell in each draw, (DRAWS, cells). cell: (n,) in 0..cells-1, or negative for none."""
        inside = cell >= 0
        pair, times = np.unique(self.codes[inside] * cells + cell[inside], return_counts=True)
        scene, place = np.divmod(pair, cells)
        return np.stack([np.bincount(place, weights=drawn[scene] * times, minlength=cells) for drawn in self._draws()])

    def shares(self, group: NDArray[np.int64], names: Sequence[str], hit: NDArray[np.bool_]) -> list[Share]:
        """The share of hits in each group. group: (n,) indices into names, or negative; hit: (n,)."""
        drawn = self.counts(np.where(group >= 0, 2 * group + hit, -1), 2 * len(names)).reshape(DRAWS, -1, 2)
        with np.errstate(invalid="ignore"):
            ratio = drawn[:, :, 1] / drawn.sum(axis=2)
        return self._shares(group, names, hit, ratio)

    def shares_of(
        self, group: NDArray[np.int64], names: Sequence[str], hit: Callable[[NDArray[np.int64]], NDArray[np.bool_]]
    ) -> list[Share]:
        """As `shares`, where what is a hit depends on the draw: what passes a threshold that is a quantile of it.

        hit: weights (n,), 1 for the alerts as they are -> (n,).
        """
        inside, drawn = group >= 0, []
        for times in (each[self.codes] for each in self._draws()):
            hits = inside & hit(times)
            counts = (np.bincount(group[of], times[of], len(names)) for of in (hits, inside))
            with np.errstate(invalid="ignore"):
                drawn.append(np.divide(*counts))
        return self._shares(group, names, hit(np.ones(len(group), np.int64)), np.array(drawn))

    def _shares(
        self, group: NDArray[np.int64], names: Sequence[str], hit: NDArray[np.bool_], ratio: NDArray[np.float64]
    ) -> list[Share]:
        """What `shares` returns, of what was found in each draw: ratio (DRAWS, names)."""
        inside = group >= 0
        n = np.bincount(group[inside], minlength=len(names))
        hits = np.bincount(group[inside & hit], minlength=len(names))
        scenes = [len(np.unique(self.codes[group == index])) for index in range(len(names))]
        return [_share(name, int(hits[i]), int(n[i]), scenes[i], ratio[:, i]) for i, name in enumerate(names)]

    def interval(self, value: float, statistic: Callable[[NDArray[np.int64]], float]) -> Interval:
        """Of a statistic of weights (n,), 0 for alerts whose scene wasn't drawn; draws where it is NaN don't count."""
        return interval(value, np.array([statistic(drawn[self.codes]) for drawn in self._draws()]))


def interval(value: float, drawn: NDArray[np.float64]) -> Interval:
    """The middle 95% of what was drawn (DRAWS,), NaN left out; none where all draws agree, which tells nothing."""
    known = drawn[~np.isnan(drawn)]
    if not len(known) or np.ptp(known) < _ROUNDING:
        return Interval(value, math.nan, math.nan)
    low, high = np.percentile(known, _ENDS)
    return Interval(value, float(low), float(high))


def _share(name: str, hits: int, n: int, scenes: int, drawn: NDArray[np.float64]) -> Share:
    if n == 0:
        return Share(name, 0, 0, 0, math.nan, math.nan, math.nan)
    if hits in (0, n):
        # A bootstrap of none (or all) is none (or all) in every draw, which says nothing of how few were looked at.
        exact = binomtest(scenes if hits else 0, scenes).proportion_ci(LEVEL, "exact")
        return Share(name, hits, n, scenes, hits / n, float(exact.low), float(exact.high))
    found = interval(hits / n, drawn)
    return Share(name, hits, n, scenes, found.value, found.low, found.high)
