"""Ctrl-C, SIGTERM and SIGHUP between the calls of a Kafka client, never within one.

A client that is called back loses an exception that is raised in there: confluent-kafka 2.16 raises SystemError in its
place. And a message that it was just telling of would not be counted. For commands; the worker has `worker/stop.py`.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def held_back() -> Iterator[None]:
    """Signals that come within take effect when it is left. For pieces that take a moment; in the main thread."""
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
