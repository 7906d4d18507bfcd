"""Two networks on the same alerts: who is wrong where the other is right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from rbstream.lab.evaluate.resample import Interval, Scenes, interval


@dataclass(frozen=True, slots=True)
class Wrong:
    """Alerts misclassified, by their truth."""

    reals: int
    boguses: int


@dataclass(frozen=True)
class Comparison:
    """Each network at its own threshold."""

    first: str
    second: str
    both: Wrong
    first_alone: Wrong
    second_alone: Wrong
    mcnemar_p: float
    """Two-sided: how often so uneven a split of the disagreements comes by chance, were both equally good."""
    difference: Interval
    """Share misclassified by the first less that by the second; the interval is by scene."""


def mcnemar(first_alone: int, second_alone: int) -> float:
    """p of McNemar's test (1947, Psychometrika 12, 153), exact at any count: binomial with 1/2; 1 without any."""
    disagreements = first_alone + second_alone
    return float(binomtest(first_alone, disagreements).pvalue) if disagreements else 1.0


def compare(
    names: tuple[str, str],
    wrong: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    real: NDArray[np.bool_],
    scenes: Scenes,
) -> Comparison:
    """Two networks by what each misclassified (n,)."""
    first, second = wrong
    alone = (first & ~second), (second & ~first)
    drawn = scenes.counts(first.astype(np.int64) - second + 1, 3)
    difference = interval(
        float(first.mean() - second.mean()), (drawn[:, 2] - drawn[:, 0]) / drawn.sum(axis=1)
    )  # fmt: skip
    both, first_alone, second_alone = (
        Wrong(int((each & real).sum()), int((each & ~real).sum())) for each in (first & second, *alone)
    )
    p = mcnemar(int(alone[0].sum()), int(alone[1].sum()))
    return Comparison(*names, both, first_alone, second_alone, p, difference)
