"""How far a long piece of work is: a bar on a terminal, a log line now and then elsewhere."""

import logging
import sys
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

logger = logging.getLogger(__name__)

# Ten lines tell a five-minute run; a night's log stays readable.
SECONDS_BETWEEN_LINES = 30.0
# A bar that moves ten times a second looks alive and costs nothing.
SECONDS_BETWEEN_REFRESHES = 0.1


class Progress:
    """Shows counts, rate and time left. Without threads: processes are forked beside it.

    total: what `done` will be at the end, in any unit; None where that can't be known.
    """

    def __init__(self, doing: str, total: int | None) -> None:
        self._doing = doing
        self._total = total
        self._terminal = sys.stderr.isatty()
        self._started = self._shown = time.monotonic()
        self._bar = Bar(
            TextColumn("{task.fields[counts]}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(),
            console=Console(stderr=True), auto_refresh=False, transient=True, disable=not self._terminal,
        )  # fmt: skip
        self._task = self._bar.add_task(doing, total=total, counts=doing)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, alerts: int, done: int, **fields: Any) -> None:
        """Show how far it is, if it's time to. fields: what a log line says beside."""
        now = time.monotonic()
        if now - self._shown < (SECONDS_BETWEEN_REFRESHES if self._terminal else SECONDS_BETWEEN_LINES):
            return
        self._shown = now
        rate = alerts / (now - self._started)
        if self._terminal:
            self._bar.start()  # not before: what is said while loading would be glued to the bar
            self._bar.update(self._task, completed=done, counts=f"{alerts:,} alerts, {rate:,.0f}/s", refresh=True)
            return
        line = {"alerts": alerts, **fields, "alerts_per_second": round(rate, 1), "done": done, "total": self._total}
        logger.info(self._doing, extra=line)
