"""`rbstream publish`."""

import argparse
import math
from typing import Any

from rich.console import Console

from rbstream.arguments import add_command, add_settings, given_settings
from rbstream.errors import ExitStatus, RbstreamError


def add_publish(commands: Any) -> None:
    """The command, with its arguments."""
    command = add_command(commands, "publish", _publish, "Put the packets of files on a topic, a message an alert.")
    command.add_argument(
        "paths", nargs="+", metavar="PATH",
        help="Avro files, nights as .tar, .tar.gz or .tgz, rejects files, folders, globs; - is standard input",
    )  # fmt: skip
    command.add_argument("--topic", required=True, metavar="T", help="Topic to publish to, on the source's Kafka")
    command.add_argument(
        "--bootstrap-servers", dest="source.bootstrap_servers", metavar="HOST:PORT",
        help="Kafka to publish to (default: source.bootstrap_servers, which the worker reads from)",
    )  # fmt: skip
    pace = command.add_mutually_exclusive_group()
    pace.add_argument("--rate", type=_rate, metavar="N", help="Alerts a second (default: as fast as Kafka takes them)")
    pace.add_argument("--realtime", action="store_true", help="As far apart as the alerts' candidate.jd are")
    command.add_argument("--loop", action="store_true", help="Begin again at the end, until Ctrl-C")
    command.add_argument(
        "--create", type=_partitions, metavar="PARTITIONS", help="Make the topic, with so many, where it is not there"
    )
    add_settings(command)


def _rate(text: str) -> float:
    rate = float(text)
    if not 0 < rate < math.inf:
        raise ValueError
    return rate


def _partitions(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _publish(options: argparse.Namespace) -> int:
    from rbstream.kafka.publish import Request, publish

    request = Request(
        options.paths, options.topic, options.rate, options.realtime, options.loop, partitions=options.create
    )
    done = publish(request, given_settings(options))
    lost = done.messages - done.delivered
    rate = f" in {done.seconds:.1f} s, {done.delivered / done.seconds:,.1f}/s" if done.seconds else ""
    told = [f"{done.delivered:,} of {done.messages:,} messages delivered to {options.topic}{rate}"]
    told += [f"{done.unreadable:,} inputs could not be read, and were left out"] if done.unreadable else []
    Console().print(*told, sep="\n", markup=False, highlight=False, soft_wrap=True)
    if isinstance(done.stopped, KeyboardInterrupt):
        return ExitStatus.INTERRUPTED
    if done.stopped is not None:
        raise done.stopped
    if lost:
        raise RbstreamError(f"{lost:,} messages were not delivered; the first: {done.error}")
    return ExitStatus.DONE
