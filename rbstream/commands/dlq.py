"""`rbstream dlq`: list, explain and inject again what the worker could not score."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from heapq import nlargest
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rbstream.arguments import add_command, add_settings, given_settings
from rbstream.commands.printing import printable, say
from rbstream.errors import ExitStatus, RbstreamError, UsageError
from rbstream.output import atomic_write
from rbstream.progress import Progress
from rbstream.rejections import explain
from rbstream.settings import Settings
from rbstream.units import parse_duration

if TYPE_CHECKING:
    from rbstream.kafka.dlq import DeadLetter, DeadLetters, Place
    from rbstream.pipeline import Outcome

LISTED = 50
LONGEST_LINE = 10_000
SHOWN_BYTES, BYTES_A_LINE = 128, 16
MEANINGS = {
    "source.topic": "topic it came from",
    "source.partition": "partition",
    "source.offset": "offset of the message",
    "source.record": "number of the record in that message",
    "source.timestamp": "the message's time [ms since 1970]",
    "source.key": "the message's key",
    "stage": "step that refused it",
    "reason": "why, in one word",
    "error": "class of the error",
    "detail": "what was wrong and where",
    "version": "version of rbstream that refused it",
    "processed": "when",
    "body": "all that is left of a message too large for this topic",
}


def add_dlq(commands: Any) -> None:
    """The command, with its actions and their arguments."""
    command = commands.add_parser("dlq", help="List, explain and re-inject dead letters.")
    actions = command.add_subparsers(title="actions", required=True, metavar="ACTION")
    ls = add_command(actions, "ls", _ls, "List the dead letters, and count them by reason.")
    show = add_command(actions, "show", _show, "Explain a dead letter, and read it once more.")
    replay = add_command(
        actions, "replay", _replay,
        "Put dead letters back to where they came from. Without a choice of yours: those that were not taken up yet, "
        "each once, also if this is interrupted and called again. Those that you choose are written as often as you "
        "ask for it, and count as not taken up.",
    )  # fmt: skip
    ls.add_argument("--reason", metavar="R", help="Only those of this reason")
    ls.add_argument("--stage", metavar="S", help="Only those of this stage")
    ls.add_argument("--since", type=_since, metavar="AGE", help="Only those rejected in this time, e.g. 2h")
    ls.add_argument("--limit", type=int, default=LISTED, metavar="N", help=f"The last N (default: {LISTED}); 0: all")
    show.add_argument("place", type=_place, metavar="PARTITION/OFFSET", help="Which one, as dlq ls prints it")
    show.add_argument("--save", metavar="FILE", help="Write the message's bytes to a file")
    replay.add_argument("places", nargs="*", type=_place, metavar="PARTITION/OFFSET", help="Only these")
    replay.add_argument("--reason", metavar="R", help="Only those of this reason")
    replay.add_argument("--all", action="store_true", help="Also those that were taken up already")
    replay.add_argument("--to", metavar="TOPIC", help="Another topic than the one each came from")
    replay.add_argument("--dry-run", action="store_true", help="Say what would be done, and do nothing")
    for each in (ls, show):
        each.add_argument("--json", action="store_true", help="Print JSON, and nothing else")
    for each in (ls, show, replay):
        each.add_argument("--topic", metavar="T", help="Topic of the dead letters (default: sink.dead_letters)")
        each.add_argument(
            "--bootstrap-servers", dest="source.bootstrap_servers", metavar="HOST:PORT",
            help="Kafka of the source, and of the dead letters unless sink.bootstrap_servers is set",
        )  # fmt: skip
        add_settings(each)


def _place(text: str) -> "Place":
    from rbstream.kafka.dlq import Place

    try:
        return Place.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _since(text: str) -> datetime:
    try:
        return datetime.now(UTC) - timedelta(seconds=parse_duration(text))
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error


def _letters(options: argparse.Namespace, settings: Settings) -> "closing[DeadLetters]":
    from rbstream.kafka.dlq import DeadLetters

    return closing(DeadLetters(settings, options.topic))


def _ls(options: argparse.Namespace) -> int:
    if options.limit < 0:
        raise UsageError(f"--limit {options.limit}: a number of dead letters; 0 is all")
    counts: Counter[str] = Counter()
    with _letters(options, given_settings(options)) as letters:
        found = _found(letters, options, counts)
        # The whole topic never has to fit into memory.
        rows = nlargest(options.limit, found, key=_time_of) if options.limit else list(found)
    rows.sort(key=_time_of)
    if options.json:
        told = {"topic": letters.topic, "counts": dict(counts.most_common()), "dead_letters": rows}
        print(json.dumps(told, indent=1))
        return ExitStatus.DONE
    # Folded to a terminal; elsewhere a line each.
    console = Console(width=None if sys.stdout.isatty() else LONGEST_LINE)
    if rows:
        console.print(_table(rows))
    said = f"{counts.total():,} dead letters in {letters.topic}"
    said += f", the last {len(rows):,} listed" if len(rows) < counts.total() else ""
    said += ": " + ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common()) if counts else ""
    say(console, said)
    return ExitStatus.DONE


def _found(letters: "DeadLetters", options: argparse.Namespace, counts: Counter[str]) -> Iterator[dict[str, Any]]:
    """A row for each dead letter that is asked for, counted by reason."""
    with Progress("reading dead letters", None) as progress:
        for letter in letters.scan(seen=lambda done, total: progress.show(done, done)):
            row = _row(letter)
            wanted = options.reason in (None, row["reason"]) and options.stage in (None, row["stage"])
            if wanted and (options.since is None or letter.rejected_at >= options.since):
                counts[row["reason"]] += 1
                yield row


def _time_of(row: dict[str, Any]) -> Any:
    return row["rejected"]


def _row(letter: "DeadLetter") -> dict[str, Any]:
    return {
        "place": str(letter.place),
        "rejected": letter.rejected_at.astimezone(UTC).isoformat(timespec="seconds"),
        "stage": letter.said("stage") or "?",
        "reason": letter.said("reason") or "?",
        "key": letter.name,
        "source": letter.source,
        "bytes": len(letter.value) if letter.whole else None,
        "detail": letter.said("detail") or "",
    }


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    columns = ("place", "rejected", "stage", "reason", "key", "source", "bytes")
    for column in columns:
        table.add_column(column, justify="right" if column == "bytes" else "left", overflow="fold")
    for row in rows:
        cells = {**row, "source": row["source"] or "", "bytes": "hash only" if row["bytes"] is None else row["bytes"]}
        table.add_row(*(Text(printable(str(cells[name]))) for name in columns))
    return table


def _show(options: argparse.Namespace) -> int:
    settings = given_settings(options)
    with _letters(options, settings) as letters:
        letter = letters.at(options.place)
    if options.save:
        with atomic_write(options.save) as file:
            file.write(letter.value)
    stage, reason = letter.said("stage") or "", letter.said("reason") or ""
    explanation = explain(stage, reason)
    shown = {
        "topic": letters.topic,
        "place": str(letter.place),
        "key": letter.name,
        "bytes": len(letter.value),
        "headers": {name: (value or b"").decode("utf-8", "backslashreplace") for name, value in letter.headers},
        "meaning": explanation.meaning if explanation else None,
        "remedy": explanation.remedy if explanation else None,
        "first_bytes": letter.value[:SHOWN_BYTES].hex(),
        "read_again": _read_again(letter, settings) if letter.whole else [],
    }
    if options.json:
        print(json.dumps(shown, indent=1))
    else:
        _explain(shown, letter, Console())
    return ExitStatus.DONE


def _read_again(letter: "DeadLetter", settings: Settings) -> list[str]:
    """What today's rbstream makes of the message: a line for each record."""
    from rbstream.assembly import make_filter, make_pipeline, make_scorer, open_bundle
    from rbstream.kafka.registry import open_schemas
    from rbstream.packet.alert import Origin
    from rbstream.packet.framing import unframe

    origin, limits = Origin("dead letter"), settings.limits
    try:
        bundle = open_bundle(settings.model)
        filters = {"main": make_filter(settings, bundle)}
        pipeline = make_pipeline(make_scorer(bundle, settings.model, warn=False), filters, limits, 1)
        packet = unframe(origin, letter.value, open_schemas(settings.source, limits), limits)
        return [_outcome(outcome) for outcomes in pipeline.run([[packet]]) for outcome in outcomes.outcomes]
    except RbstreamError as error:  # the rest is worth seeing all the same
        return [f"can't be read here: {error}"]


def _outcome(outcome: "Outcome") -> str:
    from rbstream.packet.alert import Alert

    item = outcome.item
    if isinstance(item, Alert):
        return f"{outcome.verdict}: {item.object_id}, candid {item.candid}, drb {outcome.drb:.4f}"
    return f"rejected: {item.rejection.stage} {item.rejection.reason}: {item.rejection.detail}"


def _explain(shown: dict[str, Any], letter: "DeadLetter", console: Console) -> None:
    state = f"{shown['bytes']:,} bytes" if letter.whole else "hash only"
    say(console, f"{shown['topic']} {shown['place']}: {state}, key {shown['key'] or 'none'}")
    width = max(map(len, shown["headers"]), default=0)
    for name, value in shown["headers"].items():
        ours = name.startswith("rbstream.")
        meaning = MEANINGS.get(name.removeprefix("rbstream.")) if ours else "the message's own header"
        say(console, f"  {name:<{width}}  {value}" + (f"  ({meaning})" if meaning else ""))
    if shown["meaning"]:
        say(console, f"what it means: {shown['meaning']}")
        say(console, f"what to do:    {shown['remedy']}")
    head = letter.value[:SHOWN_BYTES]
    for at in range(0, len(head), BYTES_A_LINE):
        line = head[at : at + BYTES_A_LINE]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in line)
        say(console, f"  {at:04x}  {line.hex(' '):<{3 * BYTES_A_LINE}} {text}")
    if letter.whole:
        say(console, "read again by this version:", *(f"  {line}" for line in shown["read_again"] or ["no records"]))


def _replay(options: argparse.Namespace) -> int:
    from rbstream.kafka.reinject import Request, reinject

    if sum(map(bool, (options.places, options.reason, options.all))) > 1:
        raise UsageError("dlq replay: PARTITION/OFFSET, --reason and --all each say which; give one of them")
    request = Request(options.topic, tuple(options.places), options.reason, options.all, options.to, options.dry_run)
    with Progress("injecting dead letters", None) as progress:
        done = reinject(request, given_settings(options), progress.show)
    console = Console()
    for place, why in done.left.items():
        say(console, f"{place} left: {why}")
    verb = "would be injected" if options.dry_run else "injected"
    targets = ", ".join(f"{count:,} into {topic}" for topic, count in done.injected.most_common())
    say(console, f"{done.injected.total():,} dead letters {verb}" + (f": {targets}" if targets else ""))
    if request.chosen and not options.dry_run and done.injected:
        say(console, "chosen ones count as not taken up: dlq replay without a choice writes them once more")
    if isinstance(done.stopped, KeyboardInterrupt):
        return ExitStatus.INTERRUPTED
    if done.stopped is not None:
        raise done.stopped
    if options.places and done.left:
        raise RbstreamError(f"{len(done.left):,} of the dead letters asked for could not be injected")
    return ExitStatus.DONE
