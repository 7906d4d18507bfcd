"""SIGTERM and Ctrl-C: the first asks the worker to finish what it has, a second one ends it at once."""

import faulthandler
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rbstream.errors import ExitStatus

logger = logging.getLogger(__name__)

# What closing takes when Kafka is gone; then there is nothing left to lose by leaving.
GRACE_SECONDS = 3.0


class Stop:
    """Whether to stop. drain: seconds from the first signal in which the worker has to be done."""

    def __init__(self, drain: float) -> None:
        self._drain = drain
        self._asked: float | None = None

    @property
    def requested(self) -> bool:
        """Whether a signal came."""
        return self._asked is not None

    @property
    def deadline(self) -> float | None:
        """When the worker has to be done, by the monotonic clock; None where nobody asked."""
        return None if self._asked is None else self._asked + self._drain

    def ask(self) -> None:
        """As a signal does."""
        self._asked = time.monotonic() if self._asked is None else self._asked

    @contextmanager
    def bounded(self, seconds: float) -> Iterator[None]:
        """End the process if what is done in here takes longer: nobody may have asked it to stop."""
        if not self.requested:  # else it is bounded already
            faulthandler.dump_traceback_later(seconds, exit=True)
        try:
            yield
        finally:
            if not self.requested:
                faulthandler.cancel_dump_traceback_later()

    def install(self) -> None:
        """Listen for signals. A thread does, as the main one may be waiting for Kafka when they come."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        threading.Thread(target=self._listen, args=(reader,), name="signals", daemon=True).start()

    def _listen(self, reader: int) -> None:
        name = signal.Signals(os.read(reader, 1)[0]).name
        logger.info("%s: finishing what is under way", name, extra={"seconds": self._drain})
        self.ask()
        # Should a client hang in a way that no thread of ours gets to run, this ends the process all the same.
        faulthandler.dump_traceback_later(self._drain + 2 * GRACE_SECONDS, exit=True)
        threading.Thread(target=self._second, args=(reader,), name="second signal", daemon=True).start()
        time.sleep(self._drain + GRACE_SECONDS)
        logger.error("not done %g s after %s; what is not committed will be taken up again", self._drain, name)
        os._exit(ExitStatus.FAILED)

    @staticmethod
    def _second(reader: int) -> None:
        name = signal.Signals(os.read(reader, 1)[0]).name
        logger.error("second signal (%s): stopped at once; what is not committed will be taken up again", name)
        os._exit(ExitStatus.FAILED)
