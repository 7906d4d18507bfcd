"""What is true of a simulated night's alerts: the table that `rbstream simulate` wrote beside it."""

import csv
from pathlib import Path

from rbstream.lab.dataset import DataError
from rbstream.replay.sources import STDIN
from rbstream.simulate.night import truth_path

Truth = dict[int, tuple[int, str, float]]
"""By candid: real (1 or 0), kind, snr."""


def truth_beside(file: str) -> Truth | None:
    """The truth of a file's alerts, None where none is beside it. Raises DataError for another table, or a cut one."""
    path = truth_path(Path(file))
    if file == STDIN or not path.is_file():
        return None
    try:
        with path.open(newline="") as text:
            return {int(r["candid"]): (int(r["real"]), r["kind"], float(r["snr"])) for r in csv.DictReader(text)}
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(f"{path}: is no truth table of `rbstream simulate`, or was cut short: {error!r}") from error
