"""`rbstream audit`: the receipt in the morning."""

import argparse
import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from rbstream.arguments import add_command, add_setting, add_settings, given_settings
from rbstream.commands.printing import say
from rbstream.errors import ExitStatus, UsageError
from rbstream.units import parse_duration

if TYPE_CHECKING:
    from rbstream.audit.gather import Audit, Place, When


_PLACE = re.compile("(?P<topic>[^/]+)/(?P<partition>[0-9]{1,9})/(?P<first>[0-9]{1,18})-(?P<last>[0-9]{1,18})")


def add_audit(commands: Any) -> None:
    """The command, with its arguments."""
    command = add_command(
        commands, "audit", _audit,
        "Compare what came in with what went out: every alert of a stretch of time has one score, one output where it "
        "passed, one dead letter where it was rejected. Exits with 1 where there is any difference. Needs sink.scores.",
    )  # fmt: skip
    command.add_argument(
        "places", nargs="*", type=_place, metavar="TOPIC/PARTITION/FROM-TO",
        help="Offsets to look at, the last one included; all partitions and the times below by default",
    )  # fmt: skip
    whens = "an ISO 8601 time (UTC where it says no zone), a duration ago such as 12h"
    command.add_argument(
        "--from", dest="begin", type=_when, default="earliest", metavar="WHEN",
        help=f"{whens}, or earliest (the default)",
    )  # fmt: skip
    command.add_argument(
        "--to", dest="end", type=_when, default="latest", metavar="WHEN",
        help="The same, or latest (the default): what the group is done with",
    )  # fmt: skip
    command.add_argument("--json", action="store_true", help="Print JSON, and nothing else")
    add_setting(command, "--bootstrap-servers", "source.bootstrap_servers", metavar="HOST:PORT")
    add_setting(command, "--topics", "source.topics", metavar="TOPIC[,TOPIC...]")
    add_setting(command, "--group", "source.group_id", metavar="GROUP")
    add_settings(command)


def _when(text: str) -> "When":
    if text in ("earliest", "latest"):
        return text  # type: ignore[return-value]
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        try:
            return datetime.now(UTC) - timedelta(seconds=parse_duration(text))
        except (ValueError, OverflowError) as error:
            raise argparse.ArgumentTypeError(
                f"{text!r}: no time such as 2026-11-25T18:00, and no duration: {error}"
            ) from error
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _place(text: str) -> "Place":
    match = _PLACE.fullmatch(text)
    if match is None or int(match["first"]) > int(match["last"]):
        raise argparse.ArgumentTypeError(f"{text!r} is no TOPIC/PARTITION/FROM-TO, such as ztf_programid1/3/1000-1999")
    return match["topic"], int(match["partition"]), int(match["first"]), int(match["last"]) + 1


def _audit(options: argparse.Namespace) -> int:
    from rbstream.audit.gather import audit

    if options.places and (options.begin, options.end) != ("earliest", "latest"):
        raise UsageError("audit: offsets, or --from and --to; not both")
    found = audit(given_settings(options), options.begin, options.end, options.places)
    if options.json:
        print(json.dumps(_as_json(found), indent=1))
    else:
        _show(found, Console())
    return ExitStatus.FAILED if found.differences else ExitStatus.DONE


def _as_json(found: "Audit") -> dict[str, Any]:
    return {
        "counts": found.counts,
        "waiting": found.waiting,
        "differences": [each._asdict() for each in found.differences],
        "warnings": found.warnings,
    }


def _show(found: "Audit", console: Console) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, count in {**found.counts, "not yet taken": found.waiting}.items():
        table.add_row(name, f"{count:,}")
    console.print(table)
    for each in found.differences:
        say(console, f"{each.where}: {each.what}" + (f" ({each.detail})" if each.detail else ""))
    for warning in found.warnings:
        say(console, f"warning: {warning}")
    kinds = Counter(each.what for each in found.differences)
    said = ", ".join(f"{count:,} {what}" for what, count in kinds.most_common())
    say(console, f"{kinds.total():,} differences: {said}" if said else "no difference: nothing lost, nothing twice")
