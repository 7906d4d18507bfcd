"""`rbstream data`: data sets for the lab, in and out."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from rbstream.arguments import add_command, add_settings, given_settings
from rbstream.commands.printing import say
from rbstream.errors import ExitStatus, UsageError

if TYPE_CHECKING:
    from rbstream.lab.dataset import DataSet
    from rbstream.lab.sources.find import Input
    from rbstream.lab.sources.source import Reading
    from rbstream.lab.sources.write import Wanted

_SOURCE = "Packets, nights, folders of them; .npy, .npz; FITS cutouts, folders of them; data sets"


def add_data(commands: Any) -> None:
    """The command, with its actions."""
    command = commands.add_parser("data", help="Make, split and describe data sets for the lab.")
    actions = command.add_subparsers(title="actions", required=True, metavar="ACTION")
    _add_import(actions)
    _add_simulate(actions)
    _add_inject(actions)
    split = add_command(actions, "split", _split, "The same data set, split otherwise.")
    split.add_argument("data", type=Path, metavar="DATA")
    _add_output(split)
    describe = add_command(actions, "describe", _describe, "Say what is in a data set, and write a picture of it.")
    describe.add_argument("data", type=Path, metavar="DATA")
    describe.add_argument("--json", action="store_true", help="Print JSON, and nothing else")
    describe.add_argument(
        "--picture", type=Path, metavar="FILE.png", help="Samples of each class and kind (default: DATA.png beside it)"
    )


def _add_import(actions: Any) -> None:
    command = add_command(actions, "import", _import, "Make a data set of packets, stacks, FITS cutouts, data sets.")
    _add_sources(command, nargs="*")
    for name in ("real", "bogus"):
        command.add_argument(
            f"--{name}", action="append", default=[], metavar="SOURCE", help=f"A source in which all are {name}"
        )
    command.add_argument(
        "--labels",
        type=Path,
        metavar="TABLE.csv",
        help="candid,label[,source,kind], or a night's truth table; wins over all",
    )
    command.add_argument("--channels", type=_names, metavar="NAME[,NAME...]", help="Channels to take, and their names")
    command.add_argument("--survey", metavar="NAME", help="Whose stamps they are (default: the sources' own)")
    command.add_argument("--crop", type=int, metavar="PX", help="Keep the middle of each stamp")
    command.add_argument("--repeat", type=int, default=1, metavar="N", help="Take everything N times")
    command.add_argument("--drop-empty", action="store_true", help="Leave out stamps without data in any pixel")
    _add_output(command)
    add_settings(command)


def _add_simulate(actions: Any) -> None:
    command = add_command(actions, "simulate", _simulate, "Make a data set of simulated triplets.")
    command.add_argument("--triplets", type=int, default=1000, metavar="N", help="How many (default: 1000)")
    _add_events(command)
    _add_output(command)


def _add_inject(actions: Any) -> None:
    command = add_command(actions, "inject", _inject, "Make a data set of simulated events in other sources' triplets.")
    _add_sources(command, nargs="+")
    command.add_argument("--events", type=int, default=1000, metavar="N", help="How many (default: 1000)")
    command.add_argument("--receivers", type=int, metavar="N", help="Triplets to put them into (default: 2000)")
    _add_events(command)
    _add_output(command)
    add_settings(command)


def _add_sources(command: argparse.ArgumentParser, nargs: str) -> None:
    command.add_argument("sources", nargs=nargs, metavar="SOURCE", help=_SOURCE)
    command.add_argument(
        "--soft-labels", type=_names, default=(), metavar="NAME[,NAME...]",
        help="Scores whose mean is the label of what has no truth: drb; of a .npz, any of its arrays",
    )  # fmt: skip
    command.add_argument("--layout", choices=("nchw", "nhwc"), help="Axes of stacks, where they don't tell themselves")


def _add_events(command: argparse.ArgumentParser) -> None:
    command.add_argument("--seed", type=int, default=0, metavar="S", help="The same seed, the same bytes (default: 0)")
    command.add_argument("--kinds", type=_names, default=(), metavar="A[,B...]", help="Kinds to draw (default: all)")
    command.add_argument("--without", type=_names, default=(), metavar="A[,B...]", help="Kinds not to draw")


def _add_output(command: argparse.ArgumentParser) -> None:
    command.add_argument("-o", "--output", type=Path, required=True, metavar="DATA", help="Folder to write")
    command.add_argument(
        "--split", type=_shares, default=(0.15, 0.15), metavar="V,T",
        help="Shares of validation and test (default: 0.15,0.15)",
    )  # fmt: skip
    command.add_argument("--split-seed", type=int, default=0, metavar="S", help="The same seed, the same parts")
    command.add_argument(
        "--split-by", choices=("auto", "night", "object"), default="auto",
        help="Whole nights and objects, or whole objects (default: auto, nights where there are at least 10)",
    )  # fmt: skip


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r}: expected names between commas")
    return names


def _shares(text: str) -> tuple[float, float]:
    try:
        validation, test = map(float, text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: expected two shares, such as 0.15,0.15") from error
    return validation, test


def _rule(options: argparse.Namespace) -> dict[str, Any]:
    validation, test = options.split
    return {"validation": validation, "test": test, "seed": options.split_seed, "by": options.split_by}


def _import(options: argparse.Namespace) -> int:
    from rbstream.lab.sources.find import open_inputs
    from rbstream.lab.sources.write import Wanted

    if not (options.sources or options.real or options.bogus):
        raise UsageError("data import: which sources? Name some, or --real and --bogus")
    reading = _reading(options, options.channels)
    inputs = open_inputs(options.sources, reading, options.real, options.bogus)
    wanted = Wanted(
        options.channels, options.survey, options.crop, options.labels, _rule(options), options.repeat,
        options.drop_empty,
    )  # fmt: skip
    return _write(inputs, options, wanted, "importing")


def _simulate(options: argparse.Namespace) -> int:
    from rbstream.lab.sources.find import Input
    from rbstream.lab.sources.simulated import Simulated, chosen_kinds
    from rbstream.lab.sources.write import Wanted

    kinds = chosen_kinds(options.kinds, options.without)
    source = Simulated(options.triplets, options.seed, kinds)
    return _write([Input(source)], options, Wanted(split=_rule(options)), "simulating")


def _inject(options: argparse.Namespace) -> int:
    from rbstream.lab.sources.find import Input, open_inputs
    from rbstream.lab.sources.simulated import MOST_RECEIVERS, Injected, chosen_kinds
    from rbstream.lab.sources.write import Wanted

    kinds = chosen_kinds(options.kinds, options.without)
    sources = [each.source for each in open_inputs(options.sources, _reading(options, None))]
    most = MOST_RECEIVERS if options.receivers is None else options.receivers
    source = Injected(sources, options.events, options.seed, kinds, most)
    return _write([Input(source)], options, Wanted(split=_rule(options)), "injecting")


def _reading(options: argparse.Namespace, channels: tuple[str, ...] | None) -> "Reading":
    from rbstream.lab.sources.source import Reading

    settings = given_settings(options)
    return Reading(channels, options.soft_labels, options.layout, settings.limits, settings.rejects.max_ratio)


def _write(inputs: "list[Input]", options: argparse.Namespace, wanted: "Wanted", doing: str) -> int:
    from rbstream.lab.sources.write import write

    data, notes = write(inputs, options.output, wanted, doing)
    console = Console()
    say(console, *(f"note: {note}" for note in notes), _counts(data, options.output))
    return ExitStatus.DONE


def _split(options: argparse.Namespace) -> int:
    from rbstream.lab.dataset import DataSet, split_anew

    data = split_anew(DataSet(options.data), options.output, _rule(options))
    say(Console(), _counts(data, options.output))
    return ExitStatus.DONE


def _counts(data: "DataSet", path: Path) -> str:
    """A line of what is in a data set."""
    import numpy as np

    from rbstream.lab.dataset import SPLITS
    from rbstream.lab.describe import CLASSES, class_of

    classes = np.bincount(class_of(data.column("label")), minlength=len(CLASSES))
    splits = np.bincount(data.column("split"), minlength=len(SPLITS))
    said = [
        ", ".join(f"{count:,} {name}" for name, count in zip(names, counts.tolist(), strict=True) if count)
        for names, counts in ((CLASSES, classes), (SPLITS, splits))
    ]
    channels, size, _ = data.shape
    return f"{path}: {len(data):,} alerts of {channels} x {size} x {size}: {said[0]}; {said[1]}"


def _describe(options: argparse.Namespace) -> int:
    from rbstream.lab.dataset import DataSet
    from rbstream.lab.describe import describe, picture

    data = DataSet(options.data)
    said = describe(data)
    file = options.picture or options.data.resolve().with_name(options.data.resolve().name + ".png")
    picture(data, file)
    if options.json:
        print(json.dumps(said, indent=1))
        return ExitStatus.DONE
    console = Console()
    _show(said, console)
    say(console, f"picture: {file}")
    return ExitStatus.DONE


def _show(said: dict[str, Any], console: Console) -> None:
    """The description as tables."""
    size, channels = said["size"], ", ".join(said["channels"])
    say(
        console,
        f"{said['data']}: {said['rows']:,} alerts of {len(said['channels'])} x {size} x {size} pixels ({channels}), "
        f"survey {said['survey']}",
        f"{said['objects']:,} objects, {said['nights']:,} nights"
        + (f"; {said['real_share']:.1%} of those with a label are real" if said["real_share"] is not None else ""),
        "",
    )
    counts = {"all": said["classes"], **{f"  {name}": split for name, split in said["splits"].items()}}
    _table(console, "", counts)
    _table(console, "label source", said["label_sources"])
    _table(console, "kind", said["kinds"])
    shares = {"with NaN": said["nan_share"], "truncated": said["truncated_share"]}
    _table(
        console, "share", {n: {c: "-" if v is None else f"{v:.1%}" for c, v in s.items()} for n, s in shares.items()}
    )
    for name, values in said["ranges"].items():
        if values:
            say(console, f"{name}: {values['min']:g} to {values['max']:g}, median {values['median']:g}")
    for warning in said["warnings"]:
        say(console, f"warning: {warning}")


def _table(console: Console, title: str, rows: dict[str, dict[str, Any]]) -> None:
    from rbstream.lab.describe import CLASSES

    if not rows:
        return
    table = Table(box=None, pad_edge=False)
    table.add_column(title)
    for name in CLASSES:
        table.add_column(name, justify="right")
    for name, counts in rows.items():
        cells = (counts.get(c, 0) for c in CLASSES)
        table.add_row(name, *(cell if isinstance(cell, str) else f"{cell:,}" for cell in cells))
    console.print(table, highlight=False, markup=False)
    console.print()
