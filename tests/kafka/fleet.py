"""Workers under a supervisor that starts again what ends, and ends them where it is told to."""

import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from board import Board
from worker import Worker

LAUNCHER = Path(__file__).with_name("launcher.py")
# Between a worker's end and its next start, as a supervisor waits [s].
PAUSE = (0.0, 2.0)
# What it may take until an ordered signal meets a worker at the step [s]: another step is tried then.
PATIENCE = 10.0


@dataclass
class Member:
    """One worker's name over all the processes that run under it."""

    name: str
    board: Board
    worker: Worker | None = None
    start_at: float = 0.0


@dataclass
class End:
    """One end of a worker: how it came about, and what it held. status: of the process, minus the signal's number."""

    name: str
    why: str
    status: int
    held: int
    in_transaction: bool
    last_words: list[str] = field(default_factory=list)


class Fleet:
    """settings: of a worker by its name. program: see launcher.py."""

    def __init__(
        self, folder: Path, settings: Callable[[str], dict[str, Any]], program: str, draw: random.Random
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._program = program
        self._draw = draw
        self._members: dict[str, Member] = {}
        self.ends: list[End] = []

    def __len__(self) -> int:
        return len(self._members)

    def add(self, name: str) -> None:
        """Start a worker."""
        board = Board(self._folder / f"{name}.board")
        self._members[name] = Member(name, board)
        self._start(self._members[name])

    def supervise(self, seconds: float = 0.05, but: Member | None = None) -> None:
        """Start again what ended, when its time has come, `but` for one; then pass some time."""
        now = time.monotonic()
        for member in self._members.values():
            if member is but:
                continue
            if member.worker is not None and not member.worker.running:
                self._bury(member, "by itself")
            if member.worker is None and now >= member.start_at:
                self._start(member)
        time.sleep(seconds)

    def pass_time(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.supervise()

    def strike(self, step: str, number: signal.Signals, seconds: float = 40) -> End | None:
        """Have some worker that holds uncommitted messages signal itself at a step, and end of it; None where in
        `seconds` none did."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            member = self._draw.choice(list(self._members.values()))
            if member.worker is None or not member.worker.running:
                self.supervise()
            elif self._obeys(member, step, number):
                end = self._await(member, f"{number.name} at {step}")
                if number != signal.SIGKILL:  # it went on, and let go of what it held
                    end.held, end.in_transaction = member.board.held_then, bool(member.board.in_transaction_then)
                if end.held:
                    return end
        return None

    def _obeys(self, member: Member, step: str, number: signal.Signals) -> bool:
        """Order a worker to signal itself at a step. Whether it came there in time."""
        before, patience = member.board.obeyed, time.monotonic() + PATIENCE
        assert member.worker is not None
        member.board.order(step, number)
        while member.board.obeyed == before and member.worker.running and time.monotonic() < patience:
            self.supervise(0.01, but=member)
        member.board.cancel()
        time.sleep(0.05)  # it may have been about to
        return member.board.obeyed > before

    def remove(self, name: str) -> End:
        """End a worker by SIGTERM, for good, once it reads."""
        member = self._members[name]
        deadline = time.monotonic() + 60
        while member.worker is None or not member.board.subscribed:
            assert time.monotonic() < deadline, f"{name} didn't get to reading within 60 s: see {self._folder}"
            self.supervise()
        member.worker.send(signal.SIGTERM)
        end = self._await(member, "removed")
        del self._members[name]
        return end

    def remove_any(self) -> End:
        return self.remove(self._draw.choice(list(self._members)))

    def stop(self) -> list[End]:
        """End all by SIGTERM."""
        return [self.remove(name) for name in list(self._members)]

    def close(self) -> None:
        """Kill what still runs."""
        for member in self._members.values():
            if member.worker is not None and member.worker.running:
                member.worker.kill()

    def _start(self, member: Member) -> None:
        member.board.cancel()
        member.board.subscribed = 0
        board = self._folder / f"{member.name}.board"
        member.worker = Worker(
            self._folder,
            self._settings(member.name),
            name=member.name,
            command=(sys.executable, LAUNCHER, board, self._program),
        )

    def _await(self, member: Member, why: str, seconds: float = 90) -> End:
        """Its end, while the others are looked after."""
        deadline = time.monotonic() + seconds
        worker = member.worker
        assert worker is not None
        while worker.running:
            assert time.monotonic() < deadline, f"{member.name} didn't end within {seconds:g} s ({why}): {worker.log}"
            self.supervise(but=member)
        return self._bury(member, why)

    def _bury(self, member: Member, why: str) -> End:
        worker = member.worker
        assert worker is not None
        assert worker.status is not None
        words = [str(line) for line in worker.lines()[-5:]]
        end = End(member.name, why, worker.status, member.board.held, bool(member.board.in_transaction), words)
        self.ends.append(end)
        member.worker = None
        member.start_at = time.monotonic() + self._draw.uniform(*PAUSE)
        return end
