"""Calibration: whether of the alerts with probability p a share p is real."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import brier_score_loss

from rbstream.lab.evaluate.resample import Array, Scenes, Share

BINS = 15
"""Equal-width bins of probability: what ECE is usually quoted with (Guo et al. 2017, ICML)."""

MIXES = {"1:1": 1 / 2, "1:10": 1 / 11, "10:1": 10 / 11}
"""Reals to boguses, and the share of reals that means."""


@dataclass(frozen=True)
class Mix:
    """Calibration where a share `prevalence` is real. Arrays are (BINS,), NaN in a bin with no alerts."""

    name: str
    prevalence: float
    ece: float
    brier: float
    predicted: NDArray[np.float64]
    """Mean probability in the bin."""
    observed: NDArray[np.float64]
    """Share of reals in the bin."""
    weight: NDArray[np.float64]
    """Share of all alerts that are in the bin."""


@dataclass(frozen=True)
class Calibration:
    """As the data are, and reweighted to other mixes of reals and boguses."""

    mixes: list[Mix]
    bins: list[Share]
    """Share of reals in each bin as the data are, with intervals."""


def bin_of(score: Array) -> NDArray[np.int64]:
    """The bin of each probability (n,), an edge belonging to the bin below, as scikit-learn's calibration_curve."""
    return np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], score.astype(np.float64))


def mix_weights(real: NDArray[np.bool_], prevalence: float) -> NDArray[np.float64]:
    """Weights (n,) that make a share `prevalence` of the alerts real, of mean 1."""
    share = real.mean()
    weights: NDArray[np.float64] = np.where(real, prevalence / share, (1 - prevalence) / (1 - share))
    return weights


def calibration_at(score: Array, real: NDArray[np.bool_], prevalence: float, name: str) -> Mix:
    """ECE = sum over bins of weight |observed - predicted|; Brier = mean of (score - real)^2, both weighted."""
    score = score.astype(np.float64)
    weight, index = mix_weights(real, prevalence), bin_of(score)
    sums = [np.bincount(index, each, BINS).astype(float) for each in (weight, weight * score, weight * real)]
    total = sums[0]
    with np.errstate(invalid="ignore"):
        predicted, observed = sums[1] / total, sums[2] / total
    share = total / total.sum()
    filled = total > 0
    ece = float((share * np.abs(observed - predicted))[filled].sum())
    brier = float(brier_score_loss(real, score, sample_weight=weight))
    return Mix(name, prevalence, ece, brier, predicted, observed, share)


def calibrate(score: Array, real: NDArray[np.bool_], scenes: Scenes) -> Calibration:
    """Calibration of probabilities (n,) against truth (n,)."""
    as_is = float(real.mean())
    mixes = [calibration_at(score, real, share, name) for name, share in {"as the data are": as_is, **MIXES}.items()]
    names = [f"{low / BINS:.3f} to {(low + 1) / BINS:.3f}" for low in range(BINS)]
    return Calibration(mixes, scenes.shares(bin_of(score), names, real))
