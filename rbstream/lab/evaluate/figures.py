"""Each figure from numbers: a function each, the same for one network and for several where they share axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from rbstream.lab.evaluate.evaluation import Edges, Evaluation
from rbstream.lab.evaluate.metrics import HISTOGRAM_BINS
from rbstream.lab.evaluate.resample import Share
from rbstream.lab.plot import BOGUS, REAL, THIRD, new_figure

_NETWORKS = (THIRD, "#d6336c", "#7048a8", "#2b8a3e", "#a33a6f", "#5d6678")
"""Colours of networks side by side; told apart by people who can't tell red from green by their markers."""

_MARKERS = "osD^vP"
_MARK = "#c2710c"  # the threshold's, as in the night's report
_LABELS = {
    "magpsf": "magnitude (magpsf)",
    "fwhm": "FWHM [px]",
    "edge": "nearest masked pixel, from the middle [px]",
}
_WIDE = 13.0  # inches: two figures side by side on the page
_LINEAR = 30  # alerts in the fullest bin up to which single ones can be seen on a linear axis
_MOST_KINDS = 30  # rows that can be read; the worst come first


def roc(evaluations: Sequence[Evaluation]) -> Figure:
    """TPR against FPR on a logarithmic axis, with each network's threshold."""
    figure, axes = new_figure()
    least = 0.5 / max(evaluation.fpr.n for evaluation in evaluations)
    for index, each in enumerate(evaluations):
        colour, marker = _look(index)
        area = f"{each.name}: AUC {each.auc.value:.4f}"
        axes.plot(np.maximum(each.curves.fpr, least), each.curves.tpr, color=colour, label=area, drawstyle="steps-post")
        axes.errorbar(
            max(each.fpr.value, least), each.tpr.value, xerr=_whisker(each.fpr, least), yerr=_whisker(each.tpr),
            color=colour, marker=marker, markersize=7, capsize=3, zorder=5,
        )  # fmt: skip
    rule = evaluations[0].choice.rule
    if rule.kind == "fpr":
        axes.axvline(rule.value, color=_MARK, linestyle="--", linewidth=1, label=f"FPR {rule.value:g}")
    if rule.kind == "tpr":
        axes.axhline(rule.value, color=_MARK, linestyle="--", linewidth=1, label=f"TPR {rule.value:g}")
    floor = _below(min(min(each.tpr.low, each.curves.tpr[each.curves.fpr <= least].max()) for each in evaluations))
    axes.set(xscale="log", xlim=(least, 1), ylim=(floor, 1 + 0.02 * (1 - floor)))
    axes.set(xlabel="FPR: boguses that pass", ylabel="TPR: reals that pass")
    axes.legend(loc="lower right")
    return figure


def precision_recall(evaluations: Sequence[Evaluation]) -> Figure:
    """Precision against recall, as the data are (solid) and at the stream's prevalence (dashed)."""
    figure, axes = new_figure()
    for index, each in enumerate(evaluations):
        (colour, _), curves = _look(index), each.curves
        as_is, there = each.measures
        area, area_there = f"AP {curves.average_precision:.4f}", f"AP {curves.average_precision_there:.4f}"
        axes.plot(
            curves.recall, curves.precision, color=colour, label=f"{each.name}, {as_is.prevalence:.1%} real: {area}"
        )
        axes.plot(
            curves.recall_there, curves.precision_there, color=colour, linestyle="--",
            label=f"{each.name}, {there.prevalence:.1%} real: {area_there}",
        )  # fmt: skip
        for measures, face in ((as_is, colour), (there, "white")):
            axes.plot(
                measures.recall.value, measures.precision.value, color=colour, marker=_look(index)[1],
                markerfacecolor=face, markersize=7, zorder=5,
            )  # fmt: skip
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall: reals that pass", ylabel="precision: of what passes, real")
    axes.legend(loc="lower left")
    return figure


def rates(evaluation: Evaluation) -> Figure:
    """FPR and FNR against the threshold."""
    figure, axes = new_figure()
    curves, least = evaluation.curves, 0.5 / max(evaluation.fpr.n, evaluation.tpr.n)
    known = np.isfinite(curves.threshold)
    for values, colour, label in (
        (curves.fpr, BOGUS, "FPR: boguses that pass"),
        (1 - curves.tpr, REAL, "FNR: reals that don't"),
    ):
        axes.plot(curves.threshold[known], np.maximum(values[known], least), color=colour, label=label)
    threshold = evaluation.choice.threshold
    axes.axvline(threshold.value, color=_MARK, linestyle="--", linewidth=1.4, label=f"threshold {threshold.value:.4g}")
    if np.isfinite([threshold.low, threshold.high]).all():
        axes.axvspan(threshold.low, threshold.high, color=_MARK, alpha=0.13, linewidth=0, label="its 95% interval")
    axes.set(xlim=(-0.01, 1.01), yscale="log", ylim=(least, 1.3), xlabel="threshold", ylabel="share of the class")
    axes.legend(loc="best")
    return figure


def confusion(matrix: NDArray[np.int64]) -> Figure:
    """Counts, and beside them shares of each true class. matrix: (2, 2), truth by verdict, bogus first."""
    figure, axes = new_figure(6.4, 3.1, columns=2)
    with np.errstate(invalid="ignore"):
        normalised = matrix / matrix.sum(axis=1, keepdims=True)
    for axis, title, text in (
        (axes[0], "alerts", [[f"{n:,}" for n in row] for row in matrix.tolist()]),
        (axes[1], "share of the true class", [["–" if s != s else f"{s:.2%}" for s in r] for r in normalised.tolist()]),
    ):
        axis.imshow(np.nan_to_num(normalised), cmap="Blues", vmin=0, vmax=1.25)
        for i in range(2):
            for j in range(2):
                dark = normalised[i, j] > 0.6
                axis.text(j, i, text[i][j], ha="center", va="center", color="white" if dark else "#171b26", fontsize=12)
        axis.set_title(title)
        axis.set_xticks([0, 1], ["called bogus", "called real"])
        axis.set_yticks([0, 1], ["bogus", "real"])
        axis.grid(False)
    return figure


def recall_against(evaluations: Sequence[Evaluation], edges: Edges) -> Figure:
    """The share of reals that passes against magnitude, FWHM and distance to masked pixels, with counts."""
    figure, axes = new_figure(_WIDE * len(edges) / 3, 4.2, columns=len(edges))
    for axis, (name, limits) in zip(np.atleast_1d(axes), edges.items(), strict=True):
        bins = [each.recall_against[name] for each in evaluations]
        at = np.arange(len(limits) - 1)
        _dodged(axis, bins, [each.name for each in evaluations])
        axis.set_xticks(at, [_bin_label(name, low, high) for low, high in pairwise(limits)])
        axis.tick_params(axis="x", labelsize=8, rotation=45)
        for i, share in enumerate(bins[0]):
            axis.annotate(f"{share.n:,}", (i, 0.01), xycoords=("data", "axes fraction"), ha="center", fontsize=7.5)
        axis.set(xlabel=_LABELS[name], ylabel="recall", ylim=_from_floor(bins), xlim=(-0.6, len(at) - 0.4))
    if len(evaluations) > 1:
        np.atleast_1d(axes)[0].legend(loc="best")
    return figure


def kinds(evaluations: Sequence[Evaluation]) -> Figure:
    """The share that passes by kind: of reals (to be high) and of artefacts (to be low)."""
    columns = [word for word in ("real", "bogus") if evaluations[0].kinds[word]]
    most = max(min(len(evaluations[0].kinds[word]), _MOST_KINDS) for word in columns)
    figure, axes = new_figure(_WIDE * len(columns) / 2, 1.6 + 0.32 * most, columns=len(columns))
    for axis, word in zip(np.atleast_1d(axes), columns, strict=True):
        rows = evaluations[0].kinds[word][:_MOST_KINDS]
        named = [{share.name: share for share in each.kinds[word]} for each in evaluations]
        shares = [[found[row.name] for row in rows] for found in named]
        _dodged(axis, shares, [each.name for each in evaluations], upright=True)
        axis.set_yticks(range(len(rows)), [f"{row.name}  ({row.n:,})" for row in rows])
        axis.set_ylim(most - 0.4, -0.6)
        axis.set(xlabel="share that passes", title=f"kinds of {word}")
        ends = [end for found in shares for share in found for end in (share.low, share.high, share.value)]
        ends = [end for end in ends if math.isfinite(end)]
        # Each side as far as it reaches: artefacts pass by the per cent, and reals fail by the per cent.
        low, high = (min(ends), 1.0) if word == "real" else (0.0, max(ends))
        margin = 0.03 * max(high - low, 0.02)
        axis.set_xlim(low - margin, high + margin)
        axis.xaxis.set_major_formatter(PercentFormatter(1))
    if len(evaluations) > 1:
        np.atleast_1d(axes)[-1].legend(loc="best")
    return figure


def reliability(evaluation: Evaluation) -> Figure:
    """Reals found among alerts of a probability, as the data are (with intervals) and in other mixes."""
    figure, axes = new_figure()
    as_is, *others = evaluation.calibration.mixes
    axes.plot([0, 1], [0, 1], color="#5d6678", linewidth=1, linestyle=":", label="calibrated")
    for mix, line in zip(others, ("-", "--", "-."), strict=True):
        known = ~np.isnan(mix.observed)
        axes.plot(
            mix.predicted[known], mix.observed[known], color="#8e9ab3", linestyle=line, linewidth=1.1,
            label=f"{mix.name}: ECE {mix.ece:.3f}",
        )  # fmt: skip
    filled = [i for i, share in enumerate(evaluation.calibration.bins) if share.n]
    bins = [evaluation.calibration.bins[i] for i in filled]
    axes.errorbar(
        as_is.predicted[filled], [share.value for share in bins], yerr=np.hstack([_whisker(share) for share in bins]),
        color=THIRD, marker="o", markersize=5, capsize=2, label=f"as the data are: ECE {as_is.ece:.3f}", zorder=5,
    )  # fmt: skip
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="mean probability in the bin", ylabel="share that is real")
    axes.legend(loc="best", fontsize=9, frameon=True, framealpha=0.85, edgecolor="none")
    return figure


def probabilities(evaluation: Evaluation) -> Figure:
    """Histograms of the probability by class."""
    found = evaluation.histograms
    return _histogram(evaluation, found.real, found.bogus, ("reals", "boguses"))


def probabilities_of_misclassified(evaluation: Evaluation) -> Figure:
    """The same, of the misclassified alone."""
    found = evaluation.histograms
    return _histogram(evaluation, found.missed, found.passed, ("reals that are missed", "boguses that pass"))


def _histogram(
    evaluation: Evaluation, real: NDArray[np.int64], bogus: NDArray[np.int64], labels: tuple[str, str]
) -> Figure:
    figure, axes = new_figure()
    edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)
    for counts, colour, label in zip((bogus, real), (BOGUS, REAL), labels[::-1], strict=True):
        axes.stairs(counts, edges, fill=True, color=colour, alpha=0.35)
        axes.stairs(counts, edges, color=colour, linewidth=1.3, label=f"{counts.sum():,} {label}")
    threshold = evaluation.choice.threshold.value
    axes.axvline(threshold, color=_MARK, linestyle="--", linewidth=1.4, label=f"threshold {threshold:.4g}")
    top = max(real.max(), bogus.max(), 1)
    scale, room = ("symlog", 4.0) if top > _LINEAR else ("linear", 1.45)
    axes.set(yscale=scale, ylim=(0, top * room), xlim=(-0.01, 1.01), xlabel="probability", ylabel="alerts")
    axes.legend(loc="upper center")
    return figure


def _look(index: int) -> tuple[str, str]:
    return _NETWORKS[index % len(_NETWORKS)], _MARKERS[index % len(_MARKERS)]


def _whisker(share: Share, least: float = 0.0) -> NDArray[np.float64]:
    """Lengths below and above the value, (2, 1); no lower than `least`, where a logarithmic axis ends."""
    value, low = max(share.value, least), max(share.low, least)
    return np.array([[max(value - low, 0.0)], [max(share.high - value, 0.0)]])


def _dodged(axis: Any, shares: Sequence[Sequence[Share]], names: Sequence[str], *, upright: bool = False) -> None:
    """Shares with intervals at 0, 1, ..., each network's a little beside the other's."""
    for index, each in enumerate(shares):
        colour, marker = _look(index)
        filled = [i for i, share in enumerate(each) if share.n]
        if not filled:
            continue
        at = np.array(filled) + (index - (len(shares) - 1) / 2) * 0.6 / max(len(shares), 2)
        values = [each[i].value for i in filled]
        error = np.hstack([_whisker(each[i]) for i in filled])
        style = {
            "color": colour,
            "marker": marker,
            "markersize": 5,
            "capsize": 2,
            "linestyle": "",
            "label": names[index],
        }
        if upright:
            axis.errorbar(values, at, xerr=error, **style)
        else:
            axis.errorbar(at, values, yerr=error, **style)


def _from_floor(bins: Sequence[Sequence[Share]]) -> tuple[float, float]:
    """Ends of an axis of shares: from zero, or nearer to one where all is well."""
    floor = _below(min((share.low for each in bins for share in each if share.n), default=0.0))
    return floor, 1 + 0.03 * (1 - floor)


def _below(share: float) -> float:
    """A tenth that leaves room below a share, no less than 0."""
    return max(0.0, float(np.floor(share * 10 - 0.5)) / 10)


def _bin_label(name: str, low: float, high: float) -> str:
    if name == "edge" and np.isinf(high):
        return "none"
    return f"{low:.4g}–{high:.4g}"
