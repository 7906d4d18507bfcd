"""Numbers in words: what a figure shows and what it means for a survey, for the page and the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rbstream.lab.evaluate.compare import Comparison
from rbstream.lab.evaluate.evaluation import Evaluation
from rbstream.lab.evaluate.resample import Interval, Share

NIGHT = 100_000
"""Detections that rates are translated to: a night of a survey such as ZTF, in round numbers."""


def percent(value: float) -> str:
    """With as many digits as tell it from 0 and from 100%."""
    return "–" if math.isnan(value) else f"{value:.{_digits(value)}%}"


def share(value: Share | Interval) -> str:
    """A share, its 95% interval in brackets."""
    if math.isnan(value.low):
        return percent(value.value)
    digits = _digits(value.value)
    return f"{percent(value.value)} ({100 * value.low:.{digits}f} to {value.high:.{digits}%})"


def difference(gap: Interval) -> str:
    """A difference of shares, its 95% interval in brackets."""
    ends = "" if math.isnan(gap.low) else f" ({100 * gap.low:+.2f} to {gap.high:+.2%})"
    return f"{gap.value:+.2%}{ends}"


def _digits(share: float) -> int:
    """Of a per cent: more near 0 and 100, where they tell."""
    away = min(share, 1 - share)
    return 1 if away >= 0.1 or away <= 0 else 2 if away >= 0.001 else 3


def number(value: Interval) -> str:
    """A number that is no share of anything, its 95% interval in brackets."""
    if math.isnan(value.low):
        return f"{value.value:.4g}"
    return f"{value.value:.4g} ({value.low:.4g} to {value.high:.4g})"


def night(each: Evaluation) -> str:
    """What the threshold lets through of a night's detections, at the prevalence asked for."""
    there = each.measures[1]
    reals = NIGHT * there.prevalence
    lost, least, most = (reals * (1 - share) for share in (each.tpr.value, each.tpr.high, each.tpr.low))
    false, fewest, worst = ((NIGHT - reals) * share for share in (each.fpr.value, each.fpr.low, each.fpr.high))
    return (
        f"Of {NIGHT:,} detections of which {percent(there.prevalence)} are real, {each.name} passes "
        f"{reals - lost:,.0f} reals and {false:,.0f} ({fewest:,.0f} to {worst:,.0f}) boguses, and loses "
        f"{lost:,.0f} ({least:,.0f} to {most:,.0f}) reals."
    )


def roc(evaluations: Sequence[Evaluation]) -> str:
    found = ", ".join(f"{each.name} {share(each.tpr)} for {share(each.fpr)}" for each in evaluations)
    return (
        "How many reals pass for how few boguses, the strictest threshold on the left; it doesn't depend on how many "
        "of the stream are real. A decade to the left is ten times fewer boguses to look at. Points: each network at "
        f"its threshold on test: {found} of the boguses."
    )


def precision_recall(evaluations: Sequence[Evaluation]) -> str:
    as_is, there = evaluations[0].measures
    found = ", ".join(
        f"{each.name} {share(each.measures[0].precision)} as the data are and {share(each.measures[1].precision)} there"
        for each in evaluations
    )
    return (
        f"How much of what passes is real. Solid: as the data are ({percent(as_is.prevalence)} real); dashed: the same "
        f"network in a stream with {percent(there.prevalence)} (--prevalence). At the threshold: {found}. Precision is "
        "what the people behind the filter see, and it falls with the share of reals though the network is the same."
    )


def rates(each: Evaluation) -> str:
    choice = each.choice
    if choice.rule.kind == "threshold":
        chosen = "The threshold was given."
    else:
        chosen = (
            f"The threshold is the {'highest' if choice.rule.kind == 'tpr' else 'lowest'} with {choice.rule} on "
            f"validation, where it passes {percent(choice.fpr)} of the boguses and {percent(choice.tpr)} of the reals; "
            "the band holds 95% of the thresholds that other scenes would have given."
        )
    return (
        f"What each threshold costs on test: to the right more reals are lost, to the left more boguses pass. {chosen} "
        f"On test it passes {share(each.fpr)} of the boguses and loses {percent(1 - each.tpr.value)} of the reals."
    )


def confusion(each: Evaluation) -> str:
    (_, false), (missed, _) = each.confusion.tolist()
    return (
        f"Verdicts at the threshold on test: {false:,} of {each.fpr.n:,} boguses pass, {missed:,} of "
        f"{each.tpr.n:,} reals are lost. Counts hang on the mix of this data set; the shares on the right don't."
    )


def recall_against(evaluations: Sequence[Evaluation]) -> str:
    parts = [
        f"{each.name} finds least at {label}"
        for each in evaluations
        if (label := _weakest(each)) is not None
    ]  # fmt: skip
    return (
        "The share of reals that passes, with 95% intervals; the numbers at the foot are reals in the bin. A survey's "
        f"selection function falls where this falls. {'; '.join(parts)}{'.' if parts else ''}"
    )


def _weakest(each: Evaluation) -> str | None:
    """The bin whose interval lies lowest under the whole's value."""
    bins = [(name, one) for name, found in each.recall_against.items() for one in found if one.n]
    below = [(one.high, name, one) for name, one in bins if one.high < each.tpr.value]
    if not below:
        return None
    _, name, one = min(below, key=lambda item: item[:2])
    return f"{name} {one.name}: {share(one)}"


def kinds(evaluations: Sequence[Evaluation]) -> str:
    def worst(each: Evaluation) -> str:
        found = [f"{one.name} {share(one)}" for one in each.kinds["bogus"][:3] if one.hits]
        return f"{each.name} passes most of: {', '.join(found)}" if found else f"{each.name} passes no kind of bogus"

    said = ". ".join(worst(each) for each in evaluations)
    return (
        "The share of each kind that passes, with 95% intervals and numbers of alerts: reals should be on the right, "
        f"artefacts on the left. {said}. An average hides the one kind that fills a night on a bad detector."
    )


def reliability(each: Evaluation) -> str:
    as_is, *others = each.calibration.mixes
    listed = "; ".join(f"{mix.name} (reals:boguses) ECE {mix.ece:.3f}, Brier {mix.brier:.4f}" for mix in others)
    return (
        f"Whether of alerts with probability p a share p is real: on the diagonal it is. As the data are "
        f"({percent(as_is.prevalence)} real): ECE {as_is.ece:.4f} in 15 equal bins, Brier {as_is.brier:.4f}. Grey: the "
        f"same probabilities, were the mix another (each class weighted until it is): {listed}. A probability is right "
        "for one mix only; where a night's mix differs from the data's, treat it as a rank and not as odds."
    )


def probabilities(each: Evaluation) -> str:
    bogus, real = each.ambiguous
    return (
        f"How sure the network is. Between 0.1 and 0.9 are {share(real)} of the reals and {share(bogus)} of the "
        "boguses: the ambiguous share, for which a person or another network is worth asking."
    )


def misclassified(each: Evaluation) -> str:
    found = each.histograms
    wrong = int(found.missed.sum() + found.passed.sum())
    last = int(found.missed[:5].sum() + found.passed[-5:].sum())
    sure = (
        f"{last:,} of these {wrong:,} errors are made with more than 90% certainty" if wrong else "There are no errors"
    )
    return f"The errors alone. {sure}: those no threshold mends, only other training data do." if wrong else f"{sure}."


def confident(each: Evaluation) -> str:
    found = each.confident
    bogus, real = found.purity
    return (
        f"Probabilities up to {found.low:g} or from {found.high:g}: {found.n:,} alerts, {percent(found.share)} of all. "
        f"Of the {real.n:,} called real {share(real)} are; of the {bogus.n:,} called bogus {share(bogus)} are. These "
        "could be decided without a look, if such an error is affordable."
    )


def comparison(pair: Comparison) -> str:
    first, second = (found.reals + found.boguses for found in (pair.first_alone, pair.second_alone))
    both = pair.both.reals + pair.both.boguses
    gap = pair.difference
    if not first + second:
        said = "they never disagree"
    elif math.isnan(gap.low):
        said = "too few scenes to say how it would be with others"
    elif gap.low > 0 or gap.high < 0:
        worse = pair.first if gap.value > 0 else pair.second
        said = f"{worse} misclassifies more, beyond what other scenes would change"
    else:
        said = "with other scenes it could be the other way round"
    return (
        f"At their own thresholds both misclassify {both:,}, {pair.first} alone {first:,}, {pair.second} alone "
        f"{second:,}. McNemar's test: p = {pair.mcnemar_p:.2g} that chance splits the disagreements so unevenly (it "
        f"takes alerts as independent). The difference of the misclassified shares is {difference(gap)}, by scene: "
        f"{said}."
    )
