"""`rbstream offsets`."""

import argparse
import json
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from rbstream.arguments import add_command, add_setting, add_settings, given_settings
from rbstream.commands.printing import say
from rbstream.errors import ExitStatus

if TYPE_CHECKING:
    from rbstream.worker.positions import Position, Positions, To


def add_offsets(commands: Any) -> None:
    """The command, with its actions and their arguments."""
    command = commands.add_parser("offsets", help="Show or move how far the workers' group is.")
    actions = command.add_subparsers(title="actions", required=True, metavar="ACTION")
    show = add_command(actions, "show", _show, "How far the group is in every partition.")
    take_over = add_command(
        actions, "import", _import,
        "Between two clusters: go on at the sink from where the group at the source got to, in partitions where it is "
        "further. Once, when a deployment changes from at-least-once to exactly-once; no worker may run.",
    )  # fmt: skip
    set_ = add_command(actions, "set", _set, "Go on from another offset; no worker may run.")
    set_.add_argument("places", nargs="+", metavar="TOPIC[/PARTITION]", help="Where")
    set_.add_argument("to", type=_to, metavar="earliest|latest|OFFSET", help="The offset to be read next")
    for each in (take_over, set_):
        each.add_argument("--dry-run", action="store_true", help="Say what would be done, and do nothing")
    for each in (show, take_over, set_):
        each.add_argument("--json", action="store_true", help="Print JSON, and nothing else")
        add_setting(each, "--bootstrap-servers", "source.bootstrap_servers", metavar="HOST:PORT")
        add_setting(each, "--topics", "source.topics", metavar="TOPIC[,TOPIC...]")
        add_setting(each, "--group", "source.group_id", metavar="GROUP")
        add_settings(each)


def _to(text: str) -> "To":
    if text in ("earliest", "latest"):
        return text  # type: ignore[return-value]
    offset = int(text)
    if offset < 0:
        raise ValueError
    return offset


def _positions(options: argparse.Namespace) -> "closing[Positions]":
    from rbstream.worker.positions import Positions

    return closing(Positions(given_settings(options)))


def _show(options: argparse.Namespace) -> int:
    with _positions(options) as positions:
        found = positions.show()
        _print(found, options, "")
    if not found:
        topics = ", ".join(given_settings(options).source.topics)
        say(Console(stderr=True), f"no topic is there that matches source.topics: {topics}")
    return ExitStatus.DONE


def _import(options: argparse.Namespace) -> int:
    with _positions(options) as positions:
        _print(positions.take_over(options.dry_run), options, "taken over")
    return ExitStatus.DONE


def _set(options: argparse.Namespace) -> int:
    with _positions(options) as positions:
        _print(positions.set(options.places, options.to, options.dry_run), options, "set")
    return ExitStatus.DONE


def _print(positions: "list[Position]", options: argparse.Namespace, done: str) -> None:
    if options.json:
        print(json.dumps([{**asdict(each), "partition": each.name, "lag": each.lag} for each in positions], indent=1))
        return
    table = Table("partition", "first", "end", "committed", "lag", "at the source")
    for each in positions:
        at_source, committed = ("" if at is None else str(at) for at in (each.at_source, each.committed))
        table.add_row(each.name, str(each.low), str(each.high), committed, str(each.lag), at_source)
    console = Console()
    console.print(table)
    if done:
        verb = f"would be {done}" if getattr(options, "dry_run", False) else f"were {done}"
        console.print(f"{len(positions):,} offsets {verb}", highlight=False)
