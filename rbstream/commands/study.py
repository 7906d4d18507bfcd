"""`rbstream study`: from nothing to a page with figures that teaches something."""

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from rbstream.arguments import add_command
from rbstream.commands.printing import say
from rbstream.errors import ExitStatus, UsageError


def add_study(commands: Any) -> None:
    """The command, with a sub-command a study."""
    command = commands.add_parser("study", help="Walk through a study: data, networks, figures and what they teach.")
    studies = command.add_subparsers(title="studies", required=True, metavar="STUDY")
    braai = add_command(
        studies, "braai", _braai,
        "BRAAI's exercise: a small CNN on 800 + 800 triplets, and the harder questions after it.",
    )  # fmt: skip
    moving = add_command(
        studies, "moving-objects", _moving,
        "Moving-object stamps: a dense, a per-pixel and a convolutional network on coadded stamps of faint sources.",
    )  # fmt: skip
    for study in (braai, moving):
        study.add_argument("folder", metavar="DIR", type=Path, help="Folder to make; index.html in it is the page")
        study.add_argument(
            "--seed", type=int, default=0, metavar="S", help="The same seed, the same numbers (default: 0)"
        )
    moving.add_argument(
        "--data", type=Path, metavar="DATA", help="Your own labelled data set, instead of simulated stamps"
    )
    moving.add_argument("--stamps", type=int, metavar="N", help="Simulated stamps of each class (default: 4,000)")
    moving.add_argument("--epochs", type=int, metavar="N", help="Passes over the training part (default: 40)")


def _braai(options: argparse.Namespace) -> int:
    from rbstream.lab.studies.braai import braai_exercise

    _check_seed(options.seed)
    braai_exercise(options.folder, options.seed)
    return _done(options.folder)


def _moving(options: argparse.Namespace) -> int:
    from rbstream.lab.studies.moving import EACH, EPOCHS, moving_objects

    _check_seed(options.seed)
    if options.data is not None and options.stamps is not None:
        raise UsageError("--data and --stamps: stamps are either yours or simulated, not both")
    for name in ("stamps", "epochs"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name} {value}: at least 1")
    moving_objects(options.folder, options.seed, options.data, options.stamps or EACH, options.epochs or EPOCHS)
    return _done(options.folder)


def _check_seed(seed: int) -> None:
    from rbstream.lab.recipe import MOST_SEED

    if not 0 <= seed <= MOST_SEED:
        raise UsageError(f"--seed {seed}: at least 0, at most {MOST_SEED}")


def _done(folder: Path) -> int:
    say(Console(), f"{folder / 'index.html'}: the study; its numbers are in {folder / 'study.json'}")
    return ExitStatus.DONE
