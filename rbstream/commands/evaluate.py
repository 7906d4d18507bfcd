"""`rbstream model evaluate`: how good a network is, and from which score an alert should pass."""

import argparse
import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from rbstream.arguments import add_command
from rbstream.commands.printing import printable, say
from rbstream.errors import ExitStatus, UsageError

if TYPE_CHECKING:
    from rbstream.lab.dataset import DataSet
    from rbstream.lab.evaluate.evaluation import Results
    from rbstream.lab.evaluate.threshold import Rule
    from rbstream.model.manifest import Bundle

_FPR = 0.01  # what the field quotes its thresholds at (Duev et al. 2019)
_PREVALENCE = 0.1  # mostly artefacts, as the raw detections of difference imaging are; how mostly, a survey knows
_CONFIDENT = (0.01, 0.99)


def add_evaluate(actions: Any) -> None:
    """The command, with its arguments."""
    command = add_command(
        actions, "evaluate", _evaluate,
        "Choose a threshold on a data set's validation part and report on its test part how good networks are there.",
    )  # fmt: skip
    command.add_argument("bundles", nargs="+", metavar="BUNDLE", help="One, or several to be compared")
    command.add_argument("data", metavar="DATA", help="Data set with labels (`rbstream data import` makes one)")
    command.add_argument("--report", metavar="FILE", help="All of it on a page with figures and galleries, .html")
    command.add_argument("--json", action="store_true", help="Print all numbers as JSON, and nothing else")
    rule = command.add_mutually_exclusive_group()
    rule.add_argument(
        "--fpr", type=_share, metavar="SHARE",
        help=f"Lowest threshold at which at most this share of validation's boguses pass (default: {_FPR:g})",
    )  # fmt: skip
    rule.add_argument(
        "--tpr", type=_share, metavar="SHARE",
        help="Highest threshold at which at least this share of validation's reals pass",
    )  # fmt: skip
    rule.add_argument("--threshold", type=_share, metavar="SCORE", help="This one; validation isn't needed")
    command.add_argument(
        "--prevalence", type=_inner_share, default=_PREVALENCE, metavar="SHARE",
        help=f"Share of reals in the stream that precision, accuracy and F1 are told for (default: {_PREVALENCE:g})",
    )  # fmt: skip
    command.add_argument(
        "--confident", type=_pair, default=_CONFIDENT, metavar="LOW,HIGH",
        help="Probabilities up to LOW or from HIGH are the confident ones (default: 0.01,0.99)",
    )  # fmt: skip
    command.add_argument(
        "-o", "--output", metavar="BUNDLE.pt", help="Copy of the bundle with the chosen threshold; for one bundle"
    )
    command.add_argument("--seed", type=int, default=0, metavar="S", help="Of the intervals' draws (default: 0)")
    command.add_argument("--device", default="auto", metavar="DEVICE", help="auto, cpu or cuda[:N] (default: auto)")


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text}: has to be between 0 and 1")
    return value


def _inner_share(text: str) -> float:
    value = _share(text)
    if value in (0, 1):
        raise argparse.ArgumentTypeError(f"{text}: has to be between 0 and 1, and neither of them")
    return value


def _pair(text: str) -> tuple[float, float]:
    try:
        low, high = map(float, text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no LOW,HIGH, such as 0.01,0.99") from error
    if not 0 <= low < high <= 1:
        raise argparse.ArgumentTypeError(f"{text}: has to be two probabilities, the lower one first")
    return low, high


def _evaluate(options: argparse.Namespace) -> int:
    from rbstream.lab.dataset import DataSet
    from rbstream.lab.evaluate.evaluation import Asked
    from rbstream.lab.evaluate.page import write_page
    from rbstream.model.bundle import write_with_threshold
    from rbstream.model.manifest import read_bundle

    if options.output and len(options.bundles) > 1:
        raise UsageError(f"-o {options.output}: holds one network's threshold, and {len(options.bundles)} were given")
    if options.seed < 0:
        raise UsageError(f"--seed {options.seed}: at least 0")
    bundles = [read_bundle(path) for path in options.bundles]
    asked = Asked(_rule(options), options.prevalence, options.confident, options.seed)
    with closing(DataSet(options.data)) as data:
        results = _results(bundles, data, asked, options.device)
        if options.report:
            write_page(options.report, data, results)
        chosen = results.evaluations[0].choice
        if options.output:
            by = {"rule": str(chosen.rule), "data": data.identity, "fpr": chosen.fpr, "tpr": chosen.tpr}
            known = {name: value for name, value in by.items() if value == value}
            write_with_threshold(options.output, bundles[0], chosen.threshold.value, known)
        if options.json:
            print(json.dumps(_as_json(data, bundles, results), indent=1, allow_nan=False))
        else:
            _show(results, data, Console())
            for path in filter(None, (options.report, options.output)):
                say(Console(), f"written: {path}")
    return ExitStatus.DONE


def _rule(options: argparse.Namespace) -> "Rule":
    from rbstream.lab.evaluate.threshold import Rule

    if options.threshold is not None:
        return Rule("threshold", options.threshold)
    if options.tpr is not None:
        return Rule("tpr", options.tpr)
    return Rule("fpr", _FPR if options.fpr is None else options.fpr)


def _results(bundles: "Sequence[Bundle]", data: "DataSet", asked: Any, device: str) -> "Results":
    """Everything is checked before anything is scored."""
    from rbstream.lab.evaluate.evaluation import evaluate_all
    from rbstream.lab.evaluate.scores import check_fits, read_part, score_rows, seen_in_training
    from rbstream.model.bundle import choose_device, load_scorer
    from rbstream.progress import Progress

    for bundle in bundles:
        check_fits(bundle.manifest, data)
    test = read_part(data, "test")
    validation = read_part(data, "validation") if asked.rule.kind != "threshold" else None
    parts = [part for part in (validation, test) if part is not None]
    scores = {}
    with Progress("scoring", sum(map(len, parts)) * len(bundles)) as progress:
        done = 0

        def show(more: int) -> None:
            nonlocal done
            done += more
            progress.show(done, done)

        for name, bundle in zip(_names(bundles), bundles, strict=True):
            scorer = load_scorer(bundle, choose_device(device))
            found = [score_rows(scorer, data, part.rows, show) for part in parts]
            scores[name] = (found[0] if validation is not None else None, found[-1])
    results = evaluate_all(scores, validation, test, data.about.size, asked)
    warned = [
        replace(each, warnings=[*each.warnings, *seen_in_training(bundle.manifest, data, test)])
        for each, bundle in zip(results.evaluations, bundles, strict=True)
    ]
    return replace(results, evaluations=warned)


def _names(bundles: "Sequence[Bundle]") -> list[str]:
    """Versions; where two are of one version, with their files' names, and numbers if need be."""
    for named in (
        [bundle.manifest.version for bundle in bundles],
        [f"{bundle.manifest.version} ({bundle.path.name})" for bundle in bundles],
    ):
        if len(set(named)) == len(named):
            return named
    return [f"{name} {number}" for number, name in enumerate(named, 1)]


def _as_json(data: "DataSet", bundles: "Sequence[Bundle]", results: "Results") -> dict[str, Any]:
    from rbstream.lab.evaluate.evaluation import as_json

    parts = {part.name: part for part in (results.validation, results.test) if part is not None}
    found: dict[str, Any] = as_json(
        {
            "data": {"name": data.path.name, "identity": data.identity},
            "parts": {
                name: {
                    "reals": part.reals, "boguses": part.boguses, "undecided": part.undecided,
                    "without_data": part.unseen, "label_sources": part.sources,
                }
                for name, part in parts.items()
            },
            "asked": results.asked,
            "edges": results.edges,
            "models": [
                {"sha256": bundle.sha256, **as_json(each)}
                for bundle, each in zip(bundles, results.evaluations, strict=True)
            ],
            "comparisons": results.comparisons,
        }
    )  # fmt: skip
    return found


def _show(results: "Results", data: "DataSet", console: Console) -> None:
    from rbstream.lab.evaluate import words

    test, found = results.test, results.evaluations
    say(
        console,
        f"{data.path.name}: test part, {test.reals:,} reals and {test.boguses:,} boguses"
        + (f" ({test.undecided:,} with undecided labels left out)" if test.undecided else ""),
    )
    table = Table(box=None, pad_edge=False)
    table.add_column(str(results.asked.rule))
    for each in found:
        table.add_column(printable(each.name), justify="right")
    rows = {
        "threshold": [words.number(each.choice.threshold) for each in found],
        "reals that pass (TPR)": [words.share(each.tpr) for each in found],
        "boguses that pass (FPR)": [words.share(each.fpr) for each in found],
        "AUC": [words.number(each.auc) for each in found],
        **{
            f"{name} at {words.percent(found[0].measures[i].prevalence)} real": [
                words.share(getattr(each.measures[i], name)) for each in found
            ]
            for i in range(2)
            for name in ("precision", "f1")
        },
        "ECE": [f"{each.calibration.mixes[0].ece:.4f}" for each in found],
        "Brier": [f"{each.calibration.mixes[0].brier:.4f}" for each in found],
        "confident": [words.percent(each.confident.share) for each in found],
    }
    for name, values in rows.items():
        table.add_row(name, *values)
    console.print(table)
    for each in found:
        for warning in each.warnings:
            say(console, f"warning: {each.name}: {warning}")
    for pair in results.comparisons:
        say(console, words.comparison(pair))
