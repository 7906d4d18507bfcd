"""The few alerts that are worth a look: chosen by score alone, one of each scene, always in the same order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rbstream.lab.evaluate.resample import Array
from rbstream.lab.evaluate.scores import Part

MOST = 12
"""Triplets in a gallery: three rows of four on a screen."""


@dataclass(frozen=True)
class Gallery:
    """Places (in the part) of up to `MOST` alerts, the foremost first, of `n` that are such."""

    heading: str
    remark: str
    places: NDArray[np.int64]
    n: int


def galleries(score: Array, passing: NDArray[np.bool_], part: Part) -> list[Gallery]:
    """Of one network: most confident, misclassified, and nearest 0.5."""
    real = part.real
    everyone = np.ones(len(real), bool)
    return [
        _hang("Most confident real", "The highest probabilities, right or wrong", -score, everyone, part),
        _hang("Most confident bogus", "The lowest probabilities, right or wrong", score, everyone, part),
        _hang("Missed reals", "Reals that don't pass, the worst first", score, real & ~passing, part),
        _hang("Passed boguses", "Boguses that pass, the worst first", -score, ~real & passing, part),
        _hang("Nearest 0.5", "Where the network knows least", np.abs(score - np.float32(0.5)), everyone, part),
    ]  # fmt: skip


def galleries_of_two(
    scores: Sequence[Array], wrong: Sequence[NDArray[np.bool_]], names: Sequence[str], part: Part
) -> list[Gallery]:
    """Misclassified by both networks and by each alone; the most certain of their error first."""
    error = [np.abs(score - part.real) for score in scores]
    first, second = wrong
    said = "Misclassified by {}, the worst first"
    return [
        _hang("Both wrong", said.format("both"), -(error[0] + error[1]), first & second, part),
        _hang(f"{names[0]} alone wrong", said.format(f"{names[0]} alone"), -error[0], first & ~second, part),
        _hang(f"{names[1]} alone wrong", said.format(f"{names[1]} alone"), -error[1], second & ~first, part),
    ]


def _hang(heading: str, remark: str, rank: Array, of: NDArray[np.bool_], part: Part) -> Gallery:
    """Those of least rank, of each scene the foremost; equals in the data's order."""
    places = np.flatnonzero(of)
    places = places[np.argsort(rank[places], kind="stable")]
    _, first = np.unique(part.scene[places].astype(str), return_index=True)
    return Gallery(heading, remark, places[np.sort(first)][:MOST], len(places))
