"""Waiting for a condition, in tests of whatever runs beside them."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], what: str, seconds: float = 30, pause: float = 0.1) -> T:
    """The first true value of a condition. Raises AssertionError that says `what` was awaited, after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(pause)
    return value
