"""Numbers of one network on one part: arrays in, small dataclasses out."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from rbstream.lab.evaluate.calibration import mix_weights
from rbstream.lab.evaluate.resample import Array, Interval, Scenes, Share, interval
from rbstream.lab.evaluate.scores import UNDECIDED
from rbstream.lab.evaluate.threshold import Rates

HISTOGRAM_BINS = 50
"""Of probability: steps of 0.02 are finer than a threshold is ever argued about."""

_STEPS = 8  # bins of a property, about: enough to see a trend, few enough that each holds alerts
_POINTS_A_DECADE, _POINTS = 200, 400  # of curves: finer than a figure's pixels
_EDGES = (0.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # px from the middle: a PSF's core, its wings, then doubling


@dataclass(frozen=True)
class Curves:
    """Thinned to what a figure shows; arrays of a curve are of one length."""

    fpr: NDArray[np.float64]
    tpr: NDArray[np.float64]
    threshold: NDArray[np.float64]
    """Score from which `fpr` and `tpr` pass; the first is infinite: nothing passes."""
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    average_precision: float
    prevalence: float
    """Share of reals at which the next two hold."""
    precision_there: NDArray[np.float64]
    recall_there: NDArray[np.float64]
    average_precision_there: float


@dataclass(frozen=True)
class Measures:
    """At the threshold, in a stream with a share `prevalence` of reals."""

    prevalence: float
    accuracy: Interval
    precision: Interval
    recall: Interval
    f1: Interval


@dataclass(frozen=True)
class Confident:
    """Alerts with a probability of at most `low` or at least `high`."""

    low: float
    high: float
    purity: list[Share]
    """Of those predicted bogus the share that is, and of those predicted real."""
    confusion: NDArray[np.int64]
    """(2, 2), truth by prediction, bogus first."""
    n: int
    share: float
    """Of all alerts."""


@dataclass(frozen=True)
class Histograms:
    """Alerts in `HISTOGRAM_BINS` equal bins of probability over [0, 1], by truth."""

    real: NDArray[np.int64]
    bogus: NDArray[np.int64]
    missed: NDArray[np.int64]
    """Reals that don't pass."""
    passed: NDArray[np.int64]
    """Boguses that do."""


def auc(score: Array, real: NDArray[np.bool_], scenes: Scenes) -> Interval:
    """Area under the ROC curve: how often a real scores above a bogus."""

    rates = Rates(score, real)

    def area(weight: NDArray[np.int64]) -> float:
        fpr, tpr = rates.at(weight)
        return float(np.trapezoid(np.r_[0, tpr], np.r_[0, fpr]))

    return scenes.interval(float(roc_auc_score(real, score)), area)


def curves(score: Array, real: NDArray[np.bool_], prevalence: float) -> Curves:
    """ROC, and precision against recall as the data are and in a stream with a share `prevalence` of reals."""
    score = score.astype(np.float64)
    fpr, tpr, threshold = roc_curve(real, score, drop_intermediate=False)
    log_fpr = np.log10(np.maximum(fpr, 1 / len(real)))
    kept = _thinned(log_fpr * _POINTS_A_DECADE, tpr * _POINTS, np.minimum(threshold, 2) * _POINTS)
    weight = mix_weights(real, prevalence)
    as_is, there = _precision(score, real, None), _precision(score, real, weight)
    return Curves(
        fpr[kept], tpr[kept], threshold[kept],
        *as_is, float(average_precision_score(real, score)),
        prevalence, *there, float(average_precision_score(real, score, sample_weight=weight)),
    )  # fmt: skip


def _precision(
    score: Array, real: NDArray[np.bool_], weight: Array | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    precision, recall, _ = precision_recall_curve(real, score, sample_weight=weight)
    kept = _thinned(precision * _POINTS, recall * _POINTS)
    return precision[kept], recall[kept]


def _thinned(*axes: NDArray[np.float64]) -> NDArray[np.int64]:
    """Indices of the first and last point (n,) and of each that rounds to another place than the one before it."""
    cell = np.stack(axes).round()
    moved = (cell[:, 1:] != cell[:, :-1]).any(axis=0)
    return np.flatnonzero(np.r_[True, moved[:-1], True]) if len(moved) else np.arange(cell.shape[1])


def confusion(real: NDArray[np.bool_], passing: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(2, 2): truth by verdict, bogus and not passed first."""
    if not len(real):  # of which scikit-learn makes an error
        return np.zeros((2, 2), np.int64)
    matrix: NDArray[np.int64] = confusion_matrix(real, passing, labels=[False, True])
    return matrix


def measures(real: NDArray[np.bool_], passing: NDArray[np.bool_], prevalence: float, scenes: Scenes) -> Measures:
    """Accuracy, precision, recall and F1 from TPR and FPR, which don't depend on the prevalence as these do.

    At the data's own prevalence they are what the counts give.
    """
    bogus, true = scenes.shares(real.astype(np.int64), ["bogus", "real"], passing)
    drawn = scenes.counts(2 * real.astype(np.int64) + passing, 4)
    with np.errstate(invalid="ignore"):
        fpr, tpr = (drawn[:, i + 1] / (drawn[:, i] + drawn[:, i + 1]) for i in (0, 2))
    values = _at(np.array(true.value), np.array(bogus.value), prevalence)
    draws = _at(tpr, fpr, prevalence)
    # No false positive is none in every draw: then the ends are those of the exact intervals, worst with worst.
    worst = _at(np.array(true.low), np.array(bogus.high), prevalence)
    best = _at(np.array(true.high), np.array(bogus.low), prevalence)
    certain = true.hits in (0, true.n) or bogus.hits in (0, bogus.n)
    found = [
        Interval(float(v), float(w), float(b)) if certain else interval(float(v), d)
        for v, d, w, b in zip(values, draws, worst, best, strict=True)
    ]
    return Measures(prevalence, *found)


def _at(tpr: Array, fpr: Array, prevalence: float) -> tuple[Array, Array, Array, Array]:
    """Accuracy, precision, recall and F1; precision and F1 are NaN where nothing passes."""
    true, false, missed = prevalence * tpr, (1 - prevalence) * fpr, prevalence * (1 - tpr)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = true / (true + false)
    return true + (1 - prevalence) - false, precision, tpr, 2 * true / (2 * true + false + missed)


def by_kind(kind: Array, real: NDArray[np.bool_], passing: NDArray[np.bool_], scenes: Scenes) -> dict[str, list[Share]]:
    """The share that passes of each kind of real and of bogus, the most frequently wrong first."""
    result = {}
    for truth, word in ((True, "real"), (False, "bogus")):
        known = (kind != "") & (real == truth)
        names, codes = np.unique(kind[known], return_inverse=True)
        group = np.full(len(kind), -1)
        group[known] = codes
        shares = scenes.shares(group, names.tolist(), passing) if len(names) else []
        result[word] = sorted(shares, key=lambda share: (share.value if truth else -share.value, share.name))
    return result


def against(
    values: NDArray[np.float32], edges: NDArray[np.float64], passing: NDArray[np.bool_], scenes: Scenes
) -> list[Share]:
    """The share that passes in each bin [edge, next edge); give reals for recall. NaN is in none."""
    group = np.searchsorted(edges, values.astype(np.float64), side="right") - 1
    group[np.isnan(values) | (group == len(edges) - 1)] = -1
    names = [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
    return scenes.shares(group, names, passing)


def edges_of(values: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """Round bin edges around all known values; None where there are none, or all are one."""
    known = values[np.isfinite(values)].astype(np.float64)
    if not len(known) or known.min() == known.max():
        return None
    low, high = np.percentile(known, (1, 99))
    inner = np.array(MaxNLocator(_STEPS, steps=[1, 2, 5, 10]).tick_values(low, high))
    # The last bin includes its upper edge.
    inner[0], inner[-1] = min(inner[0], known.min()), max(inner[-1], np.nextafter(known.max(), np.inf))
    return inner


def edges_of_distance(size: int) -> NDArray[np.float64]:
    """Bin edges of the distance to the nearest masked pixel, the last bin for alerts without any (size / 2) [px]."""
    return np.array([*(edge for edge in _EDGES if edge < size / 2), size / 2, np.inf])


def histograms(score: Array, real: NDArray[np.bool_], passing: NDArray[np.bool_]) -> Histograms:
    """How the probabilities are spread, by truth, and of the misclassified alone."""
    groups = (real, ~real, real & ~passing, ~real & passing)
    return Histograms(*(np.histogram(score[each], HISTOGRAM_BINS, (0, 1))[0] for each in groups))


def ambiguous(score: Array, real: NDArray[np.bool_], scenes: Scenes) -> list[Share]:
    """The share of boguses and of reals with a probability between 0.1 and 0.9: where the network doesn't know."""
    between = (score > UNDECIDED[0]) & (score < UNDECIDED[1])
    return scenes.shares(real.astype(np.int64), ["bogus", "real"], between)


def confident(score: Array, real: NDArray[np.bool_], low: float, high: float, scenes: Scenes) -> Confident:
    """The alerts of which the network is sure: how many, and how many of them it is right on."""
    sure = (score <= np.float32(low)) | (score >= np.float32(high))
    says = score >= np.float32(high)
    purity = scenes.shares(np.where(sure, says.astype(np.int64), -1), ["bogus", "real"], says == real)
    return Confident(low, high, purity, confusion(real[sure], says[sure]), int(sure.sum()), float(sure.mean()))
