"""How far a replay is: a bar on a terminal, a log line now and then elsewhere."""

import logging
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from rbstream.replay.sources import Inputs
from rbstream.replay.summary import Summary

logger = logging.getLogger(__name__)

# Ten lines tell a five-minute run; a night's log stays readable.
SECONDS_BETWEEN_LINES = 30.0
# A bar that moves ten times a second looks alive and costs nothing.
SECONDS_BETWEEN_REFRESHES = 0.1


class Progress:
    """Shows counts, rate and time left by the bytes read. Without threads: processes are forked beside it."""

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs
        self._terminal = sys.stderr.isatty()
        self._started = self._shown = time.monotonic()
        self._bar = Bar(
            TextColumn("{task.fields[counts]}"), BarColumn(), TaskProgressColumn(), DownloadColumn(),
            TimeElapsedColumn(), TimeRemainingColumn(),
            console=Console(stderr=True), auto_refresh=False, transient=True, disable=not self._terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("replay", total=inputs.total, counts="starting")

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, summary: Summary) -> None:
        """Show how far it is, if it's time to."""
        now = time.monotonic()
        if now - self._shown < (SECONDS_BETWEEN_REFRESHES if self._terminal else SECONDS_BETWEEN_LINES):
            return
        self._shown = now
        rate = summary.received / (now - self._started)
        if self._terminal:
            counts = f"{summary.received:,} alerts, {rate:,.0f}/s"
            self._bar.update(self._task, completed=self._inputs.position, counts=counts, refresh=True)
            return
        logger.info(
            "replaying",
            extra={
                "in": summary.received, "passed": summary.passed, "filtered": summary.filtered,
                "rejected": summary.rejected.total(), "alerts_per_second": round(rate, 1),
                "bytes_read": self._inputs.position, "bytes_total": self._inputs.total,
            },
        )  # fmt: skip
