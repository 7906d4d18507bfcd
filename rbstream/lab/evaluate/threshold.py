"""The threshold: chosen on validation by a rule, never looked for on test."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rbstream.errors import UsageError
from rbstream.lab.evaluate.resample import Array, Interval, Scenes

FEW = 10
"""Alerts that a rule may get wrong; with fewer, chance alone moves their number by more than a third."""


@dataclass(frozen=True)
class Rule:
    """What a threshold is chosen by: FPR at most, TPR at least, or a threshold as given."""

    kind: Literal["fpr", "tpr", "threshold"]
    value: float

    def __str__(self) -> str:
        named = {"fpr": "FPR <= {:g}", "tpr": "TPR >= {:g}", "threshold": "threshold {:g} (given)"}
        return named[self.kind].format(self.value)


@dataclass(frozen=True)
class Choice:
    """A threshold and how sure it is."""

    rule: Rule
    threshold: Interval
    """Score from which an alert passes; its interval is that of the same choice on other scenes."""
    fpr: float
    tpr: float
    """On validation; NaN where the threshold was given and validation wasn't needed."""
    allowed: float
    """Alerts of validation that the rule allows to be wrong; infinite where it doesn't speak of any."""
    step: float
    """One alert of validation more or less, as a share of its class; NaN as above."""


def passes(score: Array, threshold: float) -> NDArray[np.bool_]:
    """Who passes: a score at or above the threshold, both in float32, as `rbstream.filter.Filter` has it."""
    return score.astype(np.float32) >= np.float32(threshold)


class Rates:
    """FPR and TPR at each distinct score, strictest first, for any weights.

    What scikit-learn's roc_curve gives with all points, sorted once for all of a bootstrap's draws.
    """

    def __init__(self, score: Array, real: NDArray[np.bool_]) -> None:
        distinct, place = np.unique(score.astype(np.float64), return_inverse=True)
        self.threshold: NDArray[np.float64] = distinct[::-1]
        self._cell = 2 * (len(distinct) - 1 - place) + real

    def at(self, weight: Array | None = None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """FPR and TPR (distinct scores,) of alerts with weights (n,), NaN where a class has none."""
        alerts = np.bincount(self._cell, weight, 2 * len(self.threshold)).reshape(-1, 2).cumsum(axis=0)
        with np.errstate(invalid="ignore"):
            fpr, tpr = (alerts / alerts[-1]).T
        return fpr, tpr


def find_threshold(rates: Rates, rule: Rule, weight: Array | None = None) -> float:
    """The lowest score with an FPR of at most, or the highest with a TPR of at least what the rule says.

    NaN where no threshold does that and passes a real, or a class is missing.
    """
    fpr, tpr = rates.at(weight)
    good = (fpr <= rule.value) & (tpr > 0) if rule.kind == "fpr" else (tpr >= rule.value) & (fpr >= 0)
    there = np.diff(fpr + tpr, prepend=0) > 0  # a score that only weightless alerts have is none
    found = rates.threshold[good & there]
    if not len(found):
        return math.nan
    return float(found[-1] if rule.kind == "fpr" else found[0])


def choose_threshold(score: Array, real: NDArray[np.bool_], scenes: Scenes, rule: Rule) -> Choice:
    """The threshold by a rule, from the validation part's scores (n,) and truth (n,).

    Raises UsageError where no threshold fulfils the rule and passes any real.
    """
    rates = Rates(score, real)
    chosen = find_threshold(rates, rule)
    if math.isnan(chosen):
        raise UsageError(
            f"no threshold with {rule} passes any real: on validation {_at_the_top(score, real)}; give a larger --fpr "
            f"(steps are {1 / (~real).sum():.2g}), or a --threshold"
        )
    passing = passes(score, chosen)
    threshold = scenes.interval(chosen, lambda weight: find_threshold(rates, rule, weight))
    wrong_class = real if rule.kind == "tpr" else ~real
    may_be_wrong = 1 - rule.value if rule.kind == "tpr" else rule.value
    number = int(wrong_class.sum())
    fpr, tpr = float(passing[~real].mean()), float(passing[real].mean())
    return Choice(rule, threshold, fpr, tpr, may_be_wrong * number, 1 / number)


def given_threshold(value: float) -> Choice:
    """A threshold that somebody chose elsewhere."""
    return Choice(Rule("threshold", value), Interval(value, math.nan, math.nan), math.nan, math.nan, math.inf, math.nan)


def _at_the_top(score: Array, real: NDArray[np.bool_]) -> str:
    best = score[real].max()
    return f"{int((score[~real] >= best).sum())} of {int((~real).sum())} boguses score as high as the best real"
