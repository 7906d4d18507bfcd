"""When bad input is too much of the input: judged by partition, and remembered where its offset is committed.

A batch that trips the limit is not committed, and what came before it is known again from the committed offset: whoever
takes the partition up halts at the same alert, until its cause is mended or so many rejections are accepted.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Self

from rbstream.errors import LimitError
from rbstream.settings import Rejects
from rbstream.worker.batcher import Partition

# Fewer than this are too few for a ratio: three bad packets of the first ten are no bad night.
JUDGED_FROM = 100
_PREFIX = "rbstream:"


@dataclass(frozen=True, slots=True)
class Window:
    """The last verdicts of a partition, newest in the lowest bit: 1 where rejected."""

    alerts: int = 0
    bits: int = 0

    def add(self, rejected: bool, size: int) -> "Window":
        """The window with one more verdict, of at most `size`."""
        return Window(min(self.alerts + 1, size), (self.bits << 1 | rejected) & ((1 << size) - 1))

    @property
    def rejected(self) -> int:
        """How many of them were rejected."""
        return self.bits.bit_count()

    @property
    def in_a_row(self) -> int:
        """How many of the newest were rejected, one after the other."""
        passed = ~self.bits & (self.bits + 1)  # the lowest bit that is 0
        return min(passed.bit_length() - 1, self.alerts)

    @property
    def ratio(self) -> float:
        """Share of rejected alerts; 0 where there are none."""
        return self.rejected / self.alerts if self.alerts else 0.0

    def metadata(self) -> str:
        """The window as the metadata of a committed offset: 260 characters for 1,000 alerts."""
        return f"{_PREFIX}{self.alerts}:{self.bits:x}"

    @classmethod
    def of(cls, metadata: str | None) -> Self:
        """The window that was committed; an empty one where others committed, or nobody did."""
        try:
            alerts, bits = (metadata or "").removeprefix(_PREFIX).split(":")
            return cls(int(alerts), int(bits, 16))
        except ValueError:
            return cls()


@dataclass(frozen=True)
class Rejections:
    """The windows of all partitions at one moment, by (topic, partition). A later moment is another object.

    accepted: so many rejections are let through first and not counted, as the operator said.
    """

    settings: Rejects
    windows: Mapping[Partition, Window]
    accepted: int = 0

    def after(self, verdicts: Mapping[Partition, Iterable[str | None]]) -> "Rejections":
        """As it is after some more alerts: None or what each was rejected for, by partition and in order.

        Raises LimitError at the first alert with which too many were rejected.
        """
        windows, accepted = dict(self.windows), self.accepted
        for partition, reasons in verdicts.items():
            window = windows.get(partition, Window())
            for reason in reasons:
                counts = reason is not None and accepted == 0
                accepted -= reason is not None and not counts
                window = window.add(counts, self.settings.window)
                if counts:
                    self._judge(window, partition, str(reason))
            windows[partition] = window
        return replace(self, windows=windows, accepted=accepted)

    def judged(self, partition: Partition) -> float:
        """The share of rejections by which a partition is judged; 0 while its alerts are too few for that."""
        window = self.windows[partition]
        return window.ratio if window.alerts >= self._least else 0.0

    @property
    def _least(self) -> int:
        return min(JUDGED_FROM, self.settings.window)

    def note(self, partition: Partition) -> str:
        """What to commit with the partition's offset."""
        return self.windows.get(partition, Window()).metadata()

    def assigned(self, partition: Partition, window: Window) -> "Rejections":
        """With a partition that was assigned, as its committed offset remembers it."""
        return replace(self, windows={**self.windows, partition: window})

    def without(self, partitions: Iterable[Partition]) -> "Rejections":
        """Without partitions that are no longer ours."""
        gone = set(partitions)
        return replace(self, windows={key: window for key, window in self.windows.items() if key not in gone})

    def _judge(self, window: Window, partition: Partition, reason: str) -> None:
        limits = self.settings
        if window.in_a_row >= limits.in_a_row:
            what = f"{window.in_a_row} alerts in a row"
        elif window.alerts >= self._least and window.ratio > limits.max_ratio:
            what = f"{window.rejected} of the last {window.alerts} alerts"
        else:
            return
        raise LimitError(
            f"{what} of {partition[0]}/{partition[1]} were rejected; the last was {reason}. Nothing of that batch is "
            "committed, and a restart halts here again: mend the cause, raise rejects.max_ratio or rejects.in_a_row, "
            "or let the next N through with --accept-rejects N"
        )
