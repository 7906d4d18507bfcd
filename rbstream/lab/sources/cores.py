"""Batches of the simulator on all cores, in processes: its many small operations hold Python's lock."""

import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from joblib import Parallel, delayed, effective_n_jobs
from joblib.externals.loky.process_executor import TerminatedWorkerError

from rbstream.errors import RbstreamError
from rbstream.simulate.columns import Batch

# Of a command that is stopped: what was drawn and not written is no loss.
warnings.filterwarnings("ignore", ".*(processed by the workers have been cancelled|executed but not used)", UserWarning)

_FEW = 8  # batches, of 128 events: made here in the seconds that processes take to begin
_AHEAD = 16  # batches a core that are drawn before the first of them is written: 100 MB, and the last ones' wait is 3%
_IDLE = 10.0  # s: between two blocks processes don't end; behind the last one nobody waits long for them


def on_all_cores(make: Callable[[int], Batch], numbers: Sequence[int]) -> Iterator[Batch]:
    """As `map`, on all cores that this process may use. Raises RbstreamError where one of the processes dies."""
    cores = effective_n_jobs(-1)  # 1 too where there can be no processes
    if cores == 1 or len(numbers) <= _FEW:
        yield from map(make, numbers)
        return
    # What they make it with goes to the processes once, at their beginning: receivers are 95 MB.
    begun = {"initializer": _begin, "initargs": (os.getpid(), make), "idle_worker_timeout": _IDLE}
    parallel = Parallel(n_jobs=cores, return_as="generator", max_nbytes=None, **begun)
    block = _AHEAD * cores  # joblib doesn't wait for who takes its results
    try:
        for begin in range(0, len(numbers), block):
            yield from parallel(delayed(_made)(number) for number in numbers[begin : begin + block])
    except TerminatedWorkerError as error:
        raise RbstreamError(
            "a process that drew events died; out of memory? There is one on each core: `taskset --cpu-list 0,1 "
            "rbstream ...` uses two"
        ) from error


_make: Callable[[int], Any]  # of this process, where it is one of those


def _begin(parent: int, make: Callable[[int], Any]) -> None:
    """In a process: keep what it makes batches with, and end when its parent has, were it killed: else it waits for
    ever to hand over its batch."""
    global _make
    _make = make

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _made(number: int) -> Any:
    return _make(number)
