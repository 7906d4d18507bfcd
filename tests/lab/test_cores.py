"""Batches made in processes are those made here, and a process that dies is told."""

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from joblib import cpu_count
from tiny import RBSTREAM, environment
from waiting import wait_until

from rbstream.errors import RbstreamError
from rbstream.lab.sources.cores import on_all_cores
from rbstream.simulate import triplets
from rbstream.simulate.inject import injections, receivers

MANY = 9  # batches: one more than are made here
several_cores = pytest.mark.skipif(cpu_count() < 2, reason="there is one core here: all is made in this process")


def process(_: int) -> np.ndarray:
    return np.array([os.getpid()])


def itself(number: int) -> np.ndarray:
    return np.array([number])


def killed(_: int) -> np.ndarray:
    os.kill(os.getpid(), signal.SIGKILL)
    return np.array([])


def test_events_drawn_in_processes_are_those_drawn_here_in_the_same_order() -> None:
    stamps, _, _ = triplets(64, 21)
    into = receivers(stamps, np.ones(64, bool))
    events = (MANY - 1) * 128 + 5
    there, here = list(injections(into, events, 5, None, on_all_cores)), list(injections(into, events, 5))
    assert [len(batch.real) for batch in there] == [128] * (MANY - 1) + [5]
    for one, other in zip(there, here, strict=True):
        for name, values in vars(other).items():
            assert np.array_equal(vars(one)[name], values, equal_nan=values.dtype.kind == "f"), name


def test_order_is_kept_from_one_block_to_the_next() -> None:
    numbers = range(3 * 16 * cpu_count() + 1)
    assert np.concatenate(list(on_all_cores(itself, numbers))).tolist() == list(numbers)


@several_cores
def test_many_batches_are_made_in_other_processes_and_few_in_this_one() -> None:
    assert os.getpid() not in np.concatenate(list(on_all_cores(process, range(MANY))))
    assert set(np.concatenate(list(on_all_cores(process, range(MANY - 1))))) == {os.getpid()}


def test_where_there_is_one_core_all_is_made_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    assert set(np.concatenate(list(on_all_cores(process, range(MANY))))) == {os.getpid()}


@several_cores
def test_a_process_that_dies_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(RbstreamError, match=r"died; out of memory\? .*taskset"):
        list(on_all_cores(killed, range(MANY)))


@several_cores
def test_no_process_outlives_a_killed_command(tmp_path: Path) -> None:
    """They are those with the command's output open: nobody else has that file."""
    log = tmp_path / "log"
    command = [*RBSTREAM, "data", "simulate", "--triplets", "100000", "-o", str(tmp_path / "made")]
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file, env=environment()) as process:
        wait_until(lambda: len(holders(log) - {os.getpid()}) > 2, "its processes have begun", seconds=60)
        process.kill()
    wait_until(lambda: holders(log) == set(), "they have ended", seconds=60)


def holders(file: Path) -> set[int]:
    """Processes that have a file open."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if link.readlink() == file:
                found.add(int(link.parts[2]))
    return found
