"""The commands, nothing else."""

import argparse
import io
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from rbstream import __revision__, __version__, log
from rbstream.arguments import add_command, add_model_settings, add_setting, add_settings, given_settings
from rbstream.commands.audit import add_audit
from rbstream.commands.bench import BENCH_KAFKA, add_bench
from rbstream.commands.config import add_config
from rbstream.commands.data import add_data
from rbstream.commands.dlq import add_dlq
from rbstream.commands.model import add_model
from rbstream.commands.offsets import add_offsets
from rbstream.commands.publish import add_publish
from rbstream.commands.run import add_run
from rbstream.commands.study import add_study
from rbstream.errors import ExitStatus, RbstreamError, UsageError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 done, 1 failed, 2 wrong usage, 3 stopped by a limit, 130 Ctrl-C."""
    # Closed ones would be taken by the next file that is opened, and written to.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    log.set_up()
    for number in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: what is half-written is removed on the way out
        signal.signal(number, _stop)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may hold bytes that are no UTF-8
    try:
        options = _parser().parse_args(_joined(sys.argv[1:] if arguments is None else arguments))
        status = options.run(options)
        sys.stdout.flush()
    except RbstreamError as error:
        status = error.status
        _complain(str(error))
    except MemoryError:
        status = ExitStatus.FAILED
        _complain("out of memory; nothing half-written was kept")
    except OSError as error:
        if error.filename is not None:
            raise
        status = ExitStatus.FAILED
        _complain(f"standard output can't be written: {error.strerror}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more at the end
    except KeyboardInterrupt:
        status = ExitStatus.INTERRUPTED
        _complain("interrupted; nothing half-written was kept")
    sys.exit(int(status))


def _joined(arguments: Sequence[str]) -> list[str]:
    """The arguments, with the one command of two words, beside one of its first word, as one argument."""
    words = BENCH_KAFKA.split()
    return [BENCH_KAFKA, *arguments[2:]] if list(arguments[:2]) == words else list(arguments)


def _stop(number: int, frame: object) -> None:
    sys.exit(128 + number)


def _complain(message: str) -> None:
    Console(stderr=True).print(f"rbstream: {message}", style="red", markup=False, highlight=False, soft_wrap=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rbstream",
        description="Scores astronomical alert packets real or bogus.",
        epilog="Exit status: 0 done, 1 failed, 2 wrong usage, 3 stopped by a safety limit, 130 Ctrl-C.",
    )
    parser.add_argument("--version", action="version", version=f"rbstream {__version__} {__revision__}".rstrip())
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add_run(commands)
    _add_replay(commands)
    _add_simulate(commands)
    add_data(commands)
    add_model(commands)
    add_study(commands)
    add_bench(commands)
    add_publish(commands)
    add_dlq(commands)
    add_offsets(commands)
    add_audit(commands)
    add_config(commands)
    return parser


def _add_replay(commands: Any) -> None:
    command = add_command(commands, "replay", _replay, "Score packets in files; write the annotated ones that pass.")
    command.add_argument(
        "paths", nargs="+", metavar="PATH",
        help="Avro files, nights as .tar, .tar.gz or .tgz, rejects files, folders, globs; - is standard input",
    )  # fmt: skip
    command.add_argument(
        "-o", "--output", metavar="PATH",
        help="Annotated packets: a container (each further schema in .2.avro, ...); DIR/ or .tar: a file an input",
    )  # fmt: skip
    command.add_argument("--scores", metavar="FILE", help="Table of all scores, .csv or .parquet")
    command.add_argument("--rejects", metavar="FILE", help="Packets that can't be scored, to be replayed when mended")
    command.add_argument("--report", metavar="FILE", help="The night on a page, .html")
    command.add_argument("--json", action="store_true", help="Print the summary as JSON, and nothing else")
    add_model_settings(command)
    add_setting(command, "--threshold", "filter.threshold", metavar="DRB")
    add_setting(command, "--where", "filter.where", metavar="EXPRESSION")
    add_setting(command, "--max-reject-ratio", "rejects.max_ratio", metavar="SHARE")
    add_setting(command, "--batch", "batch.max_alerts", metavar="N")
    add_setting(command, "--jobs", "replay.jobs", metavar="N")
    add_settings(command)


def _replay(options: argparse.Namespace) -> int:
    from rbstream.replay.run import Request, replay

    request = Request(options.paths, options.output, options.scores, options.rejects, options.report)
    summary, limit = replay(request, given_settings(options))
    if options.json:
        print(json.dumps(summary.as_json(), indent=1))
    else:
        summary.show(Console())
    if limit is not None:
        raise limit
    return ExitStatus.DONE


def _add_simulate(commands: Any) -> None:
    command = add_command(
        commands, "simulate", _simulate, "Write a night of simulated ZTF alerts, with the truth beside it."
    )
    command.add_argument("path", metavar="NIGHT.avro", type=Path)
    command.add_argument("--alerts", type=int, default=1000, metavar="N", help="How many (default: 1000)")
    command.add_argument("--seed", type=int, default=0, metavar="S", help="The same seed, the same bytes (default: 0)")


def _simulate(options: argparse.Namespace) -> int:
    from rbstream.progress import Progress
    from rbstream.simulate import simulate_night, truth_path

    if options.alerts < 1 or options.seed < 0:
        raise UsageError(f"--alerts {options.alerts} --seed {options.seed}: at least 1 alert and a seed of at least 0")
    with Progress("simulating", options.alerts) as progress:
        kinds = simulate_night(options.path, options.alerts, options.seed, lambda n: progress.show(n, n))
    console = Console()
    listed = ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))
    shown = f"{options.path}: {sum(kinds.values()):,} alerts: {listed}", f"truth: {truth_path(options.path)}"
    console.print(*shown, sep="\n", highlight=False, markup=False, soft_wrap=True)
    return ExitStatus.DONE
