"""What a replay adds up to: counts that always agree, and the limit on rejections."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from rbstream.errors import LimitError
from rbstream.replay.chunk import HISTOGRAM_BINS, ChunkResult

# Below these, a few bad packets would look like a bad night: while it runs, and when all is read.
JUDGED_WHILE_RUNNING = 1_000
JUDGED_AT_THE_END = 20
_BAR_WIDTH = 40
# Output files shown by name: an archive has some schemas, a folder of outputs a night's members.
MOST_LISTED = 10


@dataclass
class Summary:
    """The counts of a replay: `received` is the sum of the three verdicts."""

    passed: int = 0
    filtered: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    first_rejection: str | None = None
    histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros(HISTOGRAM_BINS, np.int64))
    seconds: float = 0.0
    device: str = ""
    files: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def received(self) -> int:
        """Alerts that came in, each with one verdict."""
        return self.passed + self.filtered + self.rejected.total()

    def verdicts(self) -> dict[str, int]:
        """How many alerts got each verdict."""
        return {"passed": self.passed, "filtered": self.filtered, "rejected": self.rejected.total()}

    def add(self, result: ChunkResult) -> None:
        """Count a chunk."""
        self.passed += result.counts["passed"]
        self.filtered += result.counts["filtered"]
        self.rejected += result.rejected
        self.first_rejection = self.first_rejection or result.first_rejection
        self.histogram += result.histogram

    def judge(self, max_ratio: float, at_least: int) -> None:
        """Raises LimitError where more than `max_ratio` of at least so many alerts were rejected."""
        rejected = self.rejected.total()
        if self.received >= at_least and rejected > max_ratio * self.received:
            raise LimitError(
                f"{rejected} of {self.received} alerts were rejected, more than the limit of {max_ratio:.0%}: "
                f"{', '.join(f'{n} {reason}' for reason, n in self.rejected.most_common())}. "
                f"First: {self.first_rejection}. Mend the cause, or raise --max-reject-ratio"
            )

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        rate = self.received / self.seconds if self.seconds else 0.0
        return {
            "in": self.received,
            "passed": self.passed,
            "filtered": self.filtered,
            "rejected": dict(self.rejected.most_common()),
            **self.files,
            "seconds": round(self.seconds, 3),
            "alerts_per_second": round(rate, 1),
            "device": self.device,
            **self.about,
            "histogram": {"from": 0, "to": 1, "alerts": self.histogram.tolist()},
        }

    def show(self, console: Console) -> None:
        """The same for a person."""
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="bold")
        table.add_column(justify="right")
        table.add_column()
        table.add_row("in", f"{self.received:,}", f"{self.received / max(self.seconds, 1e-9):,.0f} alerts/s")
        table.add_row("passed", f"{self.passed:,}", f"drb >= {self.about['threshold']:g}{_and(self.about['where'])}")
        table.add_row("filtered", f"{self.filtered:,}", "")
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in self.rejected.most_common())
        table.add_row("rejected", f"{self.rejected.total():,}", reasons)
        console.print(table)
        console.print(_histogram(self.histogram), highlight=False)
        if self.first_rejection:
            shown = f"first rejection: {self.first_rejection}"
            console.print(shown, highlight=False, markup=False, soft_wrap=True)
        for line in self._files_out():
            console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _files_out(self) -> Iterator[str]:
        outputs = self.files.get("outputs", [])
        if len(outputs) > MOST_LISTED:
            yield f"outputs: {len(outputs):,} files, the first is {outputs[0]}"
        else:
            yield from (f"output: {path}" for path in outputs)
        yield from (f"{name}: {self.files[name]}" for name in ("scores", "rejects", "report") if self.files.get(name))


def _and(where: str | None) -> str:
    return f" and {where}" if where else ""


def _histogram(counts: NDArray[np.int64]) -> str:
    """Scores in bars, two bins a line, on a logarithmic scale: nights have a thousand bogus a real."""
    pairs = counts.reshape(-1, 2).sum(axis=1)
    if not pairs.any():
        return ""
    lengths = np.ceil(np.log1p(pairs) / np.log1p(pairs.max()) * _BAR_WIDTH).astype(int)
    lines = [
        f"  {low / 10:.1f} {'█' * length:<{_BAR_WIDTH}} {count:>9,}"
        for low, (length, count) in enumerate(zip(lengths, pairs, strict=True))
    ]
    return "\n".join(["drb (bars are logarithmic)", *lines])
