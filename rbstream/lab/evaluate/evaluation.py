"""All numbers of one or several networks on a data set, at thresholds chosen on validation, reported on test."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbstream.lab.evaluate import metrics
from rbstream.lab.evaluate.calibration import Calibration, calibrate
from rbstream.lab.evaluate.compare import Comparison, compare
from rbstream.lab.evaluate.resample import Array, Interval, Scenes, Share
from rbstream.lab.evaluate.scores import Part
from rbstream.lab.evaluate.threshold import FEW, Choice, Rule, choose_threshold, given_threshold, passes

Edges = dict[str, NDArray[np.float64]]
"""Of the bins that recall is shown in, by property, the same for all networks; properties unknown are not here."""

FEW_SCENES = 30
"""With fewer, resampling them says little of what other scenes would give."""


@dataclass(frozen=True)
class Asked:
    """What to evaluate by."""

    rule: Rule
    prevalence: float
    """Share of reals in the stream the numbers are translated to."""
    confident: tuple[float, float]
    seed: int


@dataclass(frozen=True)
class Evaluation:
    """One network on the test part; (2, 2) arrays are truth by verdict, bogus and not passed first."""

    name: str
    choice: Choice
    tpr: Share
    fpr: Share
    auc: Interval
    confusion: NDArray[np.int64]
    measures: list[metrics.Measures]
    """At the data's own prevalence, then at the one asked for."""
    curves: metrics.Curves
    recall_against: dict[str, list[Share]]
    """By magpsf, fwhm and edge, where known."""
    kinds: dict[str, list[Share]]
    """The share that passes, of kinds of `real` and of `bogus`."""
    calibration: Calibration
    histograms: metrics.Histograms
    ambiguous: list[Share]
    confident: metrics.Confident
    warnings: list[str]


def edges_of(part: Part, size: int) -> Edges:
    """From a part's reals. size: of the stamps [px]."""
    reals = {name: values[part.real] for name, values in part.about.items()}
    found = {name: metrics.edges_of(reals[name]) for name in ("magpsf", "fwhm")}
    found["edge"] = metrics.edges_of_distance(size) if len(np.unique(reals["edge"])) > 1 else None
    return {name: edges for name, edges in found.items() if edges is not None}


def evaluate(
    name: str,
    validation: tuple[Part, Array] | None,
    test: tuple[Part, Array],
    edges: Edges,
    asked: Asked,
) -> Evaluation:
    """One network. validation, test: a part and the scores (n,) of its alerts; validation isn't needed where the
    threshold is given. Raises UsageError where no threshold fulfils the rule.
    """
    part, score = test
    scenes, real = Scenes(part.scene, asked.seed), part.real
    choice = _choice(validation, asked)
    passing = passes(score, choice.threshold.value)
    fpr, tpr = scenes.shares(real.astype(np.int64), ["bogus", "real"], passing)
    shares = [float(real.mean()), asked.prevalence]
    reals_alone = {known: np.where(real, part.about[known], np.nan) for known in edges}
    return Evaluation(
        name, choice, tpr, fpr, metrics.auc(score, real, scenes), metrics.confusion(real, passing),
        [metrics.measures(real, passing, share, scenes) for share in shares],
        metrics.curves(score, real, asked.prevalence),
        {known: metrics.against(values, edges[known], passing, scenes) for known, values in reals_alone.items()},
        metrics.by_kind(part.kind, real, passing, scenes),
        calibrate(score, real, scenes),
        metrics.histograms(score, real, passing),
        metrics.ambiguous(score, real, scenes),
        metrics.confident(score, real, *asked.confident, scenes),
        _warnings(choice, fpr, tpr, scenes),
    )  # fmt: skip


def _choice(validation: tuple[Part, Array] | None, asked: Asked) -> Choice:
    if validation is None:
        return given_threshold(asked.rule.value)
    part, score = validation
    return choose_threshold(score, part.real, Scenes(part.scene, asked.seed), asked.rule)


@dataclass(frozen=True)
class Results:
    """Everything that came out; scores and verdicts are those of the test part, (n,) each, a network each."""

    asked: Asked
    validation: Part | None
    test: Part
    edges: Edges
    evaluations: list[Evaluation]
    scores: list[NDArray[np.float32]]
    passing: list[NDArray[np.bool_]]
    """What each network passes at its own threshold."""
    comparisons: list[Comparison]
    """Every pair of networks."""


def evaluate_all(
    scores: Mapping[str, tuple[Array | None, NDArray[np.float32]]],
    validation: Part | None,
    test: Part,
    size: int,
    asked: Asked,
) -> Results:
    """Several networks. scores: by name, of the validation (None without one) and the test part; size: of stamps [px].

    Raises as `evaluate`.
    """
    edges = edges_of(test, size)
    evaluations = [
        evaluate(name, _both(validation, first), (test, second), edges, asked)
        for name, (first, second) in scores.items()
    ]
    of_test = [second for _, second in scores.values()]
    passing = [passes(score, each.choice.threshold.value) for score, each in zip(of_test, evaluations, strict=True)]
    scenes = Scenes(test.scene, asked.seed)
    wrong = [(name, verdict != test.real) for name, verdict in zip(scores, passing, strict=True)]
    pairs = [
        compare((first, second), (wrong_first, wrong_second), test.real, scenes)
        for (first, wrong_first), (second, wrong_second) in combinations(wrong, 2)
    ]
    return Results(asked, validation, test, edges, evaluations, of_test, passing, pairs)


def _both(part: Part | None, score: Array | None) -> tuple[Part, Array] | None:
    return None if part is None or score is None else (part, score)


def _warnings(choice: Choice, fpr: Share, tpr: Share, scenes: Scenes) -> list[str]:
    said = []
    threshold, rule = choice.threshold, choice.rule
    if choice.allowed < FEW:
        wrong, group = ("missed reals", "reals") if rule.kind == "tpr" else ("false positives", "boguses")
        number = round(1 / choice.step)
        ends = "" if math.isnan(threshold.low) else f" (95%: {threshold.low:.4g} to {threshold.high:.4g})"
        said.append(
            f"{rule} allows {choice.allowed:.3g} {wrong} among the {number:,} {group} of validation, fewer than {FEW}: "
            f"the threshold hangs on single alerts{ends}; rates on validation go in steps of {choice.step:.2%}"
        )
    share = {"fpr": fpr, "tpr": tpr}.get(rule.kind)
    if share is not None and (share.low > rule.value if rule.kind == "fpr" else share.high < rule.value):
        said.append(
            f"{rule} held on validation, but test has {share.value:.2%} ({share.low:.2%} to {share.high:.2%}): "
            "the choice was lucky there, or the parts differ"
        )
    if scenes.number < FEW_SCENES:
        said.append(f"test has {scenes.number} scenes: intervals from so few are too narrow")
    return said


def as_json(value: Any) -> Any:
    """Dataclasses, arrays and numbers as JSON has them; what is not finite becomes null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        return as_json(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): as_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
