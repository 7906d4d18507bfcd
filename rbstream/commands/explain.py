"""`rbstream model explain`: what a network looks at."""

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from rbstream.arguments import add_command, add_setting, given_settings
from rbstream.commands.printing import printable, say
from rbstream.errors import ExitStatus, UsageError

if TYPE_CHECKING:
    from rbstream.lab.explain.run import Summary

# Each is a picture and some seconds; a slip of the finger must not ask for a billion.
_MOST_NUMBERS = 10_000
_NUMBERS = re.compile("([0-9]{1,12})(?:-([0-9]{1,12}))?")


def add_explain(actions: Any) -> None:
    """The command, with its arguments."""
    command = add_command(
        actions, "explain", _explain,
        "Show what a network looks at: occlusion maps and gradient saliency of single alerts beside their stamps, and "
        "mean maps by class, as a folder of pictures with explain.json.",
    )  # fmt: skip
    command.add_argument("bundle", metavar="BUNDLE")
    command.add_argument(
        "paths", nargs="+", metavar="PACKETS|DATA",
        help="A data set; or files, folders and nights of packets, as replay takes them",
    )  # fmt: skip
    command.add_argument("-o", "--output", required=True, metavar="DIR", type=Path, help="Folder to make")
    command.add_argument(
        "--select", type=_selected, default="sample", metavar="WHICH",
        help="misclassified, confident-wrong (score below 0.01 or above 0.99, and wrong): the most wrong first; or "
        "numbers such as 3,17,100-110: rows of the data set (of any part), places in the packets, from 0. Default: "
        "spread evenly over the part, or the first packets",
    )  # fmt: skip
    command.add_argument(
        "--part", choices=("train", "validation", "test"), help="Part of the data set to look at (default: test)"
    )
    command.add_argument(
        "--limit", type=int, metavar="N", help="Most alerts to explain (default: 12, or all that --select numbers)"
    )
    command.add_argument(
        "--threshold",
        type=float,
        metavar="DRB",
        help="Score from which an alert is called real (default: the bundle's)",
    )
    command.add_argument(
        "--kernel", type=int, default=5, metavar="PX", help="Side of the patch that is hidden (default: 5)"
    )
    command.add_argument(
        "--stride", type=int, default=1, metavar="PX",
        help="Step of the patch, up to the kernel: quicker by its square, coarser (default: 1)",
    )  # fmt: skip
    command.add_argument(
        "--fill", choices=("zero", "median"), default="zero",
        help="What is hidden becomes 0 DN (the default), or the median of its stamp: less of a hole where there is sky",
    )  # fmt: skip
    add_setting(command, "--device", "model.device", metavar="DEVICE")


def _selected(text: str) -> tuple[str, tuple[int, ...]]:
    if text in ("sample", "misclassified", "confident-wrong"):
        return text, ()
    numbers: dict[int, None] = {}
    for part in text.split(","):
        match = _NUMBERS.fullmatch(part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise argparse.ArgumentTypeError(
                f"{text!r}: misclassified, confident-wrong, or numbers such as 3,17,100-110"
            )
        if len(numbers) + last - first >= _MOST_NUMBERS:
            raise argparse.ArgumentTypeError(f"{text!r}: more than {_MOST_NUMBERS:,} alerts, each of them a picture")
        numbers |= dict.fromkeys(range(first, last + 1))
    return "numbers", tuple(numbers)


def _explain(options: argparse.Namespace) -> int:
    from rbstream.lab.dataset import ABOUT
    from rbstream.lab.explain.examples import Selection
    from rbstream.lab.explain.run import Request, explain

    if options.limit is not None and options.limit < 1:
        raise UsageError(f"--limit {options.limit}: at least 1")
    if options.threshold is not None and not 0 <= options.threshold <= 1:
        raise UsageError(f"--threshold {options.threshold}: scores are from 0 to 1")
    if options.part is not None and not (Path(options.paths[0]) / ABOUT).exists():
        raise UsageError(f"--part {options.part}: packets have no parts; leave it out, or import them into a data set")
    settings = given_settings(options)
    by, numbers = options.select
    request = Request(
        Selection(by, numbers), options.part or "test", options.limit, options.threshold,
        options.kernel, options.stride, options.fill,
    )  # fmt: skip
    summary = explain(options.bundle, options.paths, options.output, request, settings.model.device, settings.limits)
    _show(summary, by, options.output, Console())
    return ExitStatus.DONE


def _show(summary: "Summary", by: str, output: Path, console: Console) -> None:
    if summary.rejected:
        count = sum(summary.rejected.values())
        said = ", ".join(f"{count:,} {reason}" for reason, count in sorted(summary.rejected.items()))
        say(console, f"{count:,} rejected, which have no stamps to look at: {said}")
    shown, found = len(summary.chosen.examples), summary.chosen.found
    if not shown:
        what = f"none is {by} of {summary.chosen.labelled:,} labelled alerts" if by != "sample" else "no alert in there"
        say(console, f"{what}: nothing to explain, nothing written")
        return
    table = Table(box=None, pad_edge=False)
    for name in ("number", "object", "label", "score", "picture"):
        table.add_column(name, justify="right" if name in ("number", "label", "score") else "left")
    for alert in summary.numbers["alerts"]:
        label = "" if alert["label"] is None else f"{alert['label']:.3g}"
        table.add_row(
            str(alert["number"]), printable(alert["object"]), label, f"{alert['score']:.4f}", alert["picture"]
        )
    console.print(table, markup=False)
    of = f" of {found:,}" if shown < found else ""
    labelled = "" if summary.chosen.labelled is None else f" ({by}, of {summary.chosen.labelled:,} labelled)"
    say(
        console, f"{output}: {shown:,}{of} alerts explained{labelled}, their means in mean.png, numbers in explain.json"
    )
