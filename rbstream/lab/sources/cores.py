"""Batches of the simulator on all cores, in processes: its many small operations hold Python's lock."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool

from joblib import Parallel, delayed

from rbstream.errors import RbstreamError
from rbstream.simulate.columns import Batch

_FEW = 8  # batches, of 128 events: made here in the seconds that processes take to begin


def on_all_cores(make: Callable[[int], Batch], numbers: Sequence[int]) -> Iterator[Batch]:
    """As `map`, on all cores that this process may use. Raises RbstreamError where one of the processes dies."""
    if len(numbers) <= _FEW:
        yield from map(make, numbers)
        return
    parallel = Parallel(n_jobs=-1, return_as="generator", initializer=_end_with, initargs=(os.getpid(),))
    try:
        yield from parallel(delayed(make)(number) for number in numbers)
    except BrokenProcessPool as error:
        raise RbstreamError(
            "a process that drew events died; out of memory? There is one on each core: `taskset --cpu-list 0,1 "
            "rbstream ...` uses two"
        ) from error


def _end_with(parent: int) -> None:
    """In a process: end when its parent has, were it killed: else it waits for ever to hand over its batch."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
