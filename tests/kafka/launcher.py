"""Runs a worker that can be told where to die: `launcher.py BOARD PROGRAM ARGUMENTS...`

PROGRAM is `rbstream`, or the path of another script. It runs as it is; only `confluent_kafka`'s Producer and Consumer
are replaced, before it imports them, by ones that look at the board at each step of a transaction.
"""

import os
import random
import runpy
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import confluent_kafka
from board import STEPS, Board

# A commit takes a few milliseconds: a signal that comes up to so long after it was asked for meets it under way.
COMMITTING_SECONDS = 0.01


class Held:
    """Offsets that were taken and not committed, by partition."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._offsets: dict[tuple[str, int], deque[int]] = {}

    def take(self, messages: list[Any]) -> None:
        for message in messages:
            if message.error() is None:
                taken = self._offsets.setdefault((message.topic(), message.partition()), deque())
                while taken and taken[-1] >= message.offset():  # rewound
                    taken.pop()
                taken.append(message.offset())
        self._show()

    def commit(self, positions: list[Any]) -> None:
        for position in positions:
            taken = self._offsets.get(source(position), deque())
            while taken and taken[0] < position.offset:
                taken.popleft()
        self._show()

    def forget(self, partitions: list[Any] | None = None) -> None:
        for partition in partitions or ():
            self._offsets.pop(source(partition), None)
        if partitions is None:
            self._offsets.clear()
        self._show()

    def _show(self) -> None:
        self._board.held = sum(map(len, self._offsets.values()))


def source(position: Any) -> tuple[str, int]:
    """The source's partition that one of the group is, or stands for (a progress topic's)."""
    return position.topic.rpartition(".progress.")[2], position.partition


def reach(board: Board, step: str) -> None:
    """Obey an order for this step: signal this process."""
    if board.step == STEPS.index(step) + 1 and board.held:
        board.step = 0
        board.held_then, board.in_transaction_then = board.held, board.in_transaction
        board.obeyed += 1
        if step == "committing":
            threading.Thread(target=_signal_soon, args=(board.signal,), daemon=True).start()
        else:
            os.kill(os.getpid(), board.signal)


def _signal_soon(number: int) -> None:
    time.sleep(random.uniform(0, COMMITTING_SECONDS))
    os.kill(os.getpid(), number)


def patch(board: Board) -> None:
    held = Held(board)
    real_consumer: Any = confluent_kafka.Consumer
    real_producer: Any = confluent_kafka.Producer

    class Consumer(real_consumer):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            held.forget()
            super().__init__(*args, **options)

        def subscribe(self, topics: Any, **callbacks: Any) -> None:
            for name in ("on_revoke", "on_lost"):
                if name in callbacks:
                    callbacks[name] = self._forgetting(callbacks[name])
            super().subscribe(topics, **callbacks)
            board.subscribed = 1

        @staticmethod
        def _forgetting(callback: Callable[[Any, Any], Any]) -> Callable[[Any, Any], None]:
            def called(consumer: Any, partitions: Any) -> None:
                callback(consumer, partitions)
                held.forget(partitions)

            return called

        def poll(self, *args: Any, **options: Any) -> Any:
            message = super().poll(*args, **options)
            self._taken([] if message is None else [message])
            return message

        def consume(self, *args: Any, **options: Any) -> Any:
            messages = super().consume(*args, **options)
            self._taken(messages)
            return messages

        def _taken(self, messages: list[Any]) -> None:
            if messages:
                held.take(messages)
                if not board.in_transaction:
                    reach(board, "taken")

        def commit(self, message: Any = None, offsets: Any = None, asynchronous: bool = True) -> Any:
            # At least once: nothing is committed but so.
            assert message is None
            reach(board, "commit")
            reach(board, "committing")
            done = super().commit(offsets=offsets, asynchronous=asynchronous)
            board.commits += 1
            held.commit(offsets)
            reach(board, "committed")
            return done

    class Producer(real_producer):  # type: ignore[misc]
        _positions: list[Any]

        def begin_transaction(self) -> None:
            super().begin_transaction()
            self._positions = []
            board.in_transaction = 1
            reach(board, "begun")

        def produce(self, *args: Any, **options: Any) -> None:
            super().produce(*args, **options)
            reach(board, "produced")

        def send_offsets_to_transaction(self, positions: list[Any], *args: Any) -> None:
            reach(board, "sending")
            super().send_offsets_to_transaction(positions, *args)
            self._positions = list(positions)
            reach(board, "sent")

        def commit_transaction(self, *args: Any) -> None:
            reach(board, "commit")
            reach(board, "committing")
            super().commit_transaction(*args)
            board.in_transaction = 0
            board.commits += 1
            held.commit(self._positions)
            reach(board, "committed")

        def abort_transaction(self, *args: Any) -> None:
            super().abort_transaction(*args)
            board.in_transaction = 0
            board.aborts += 1

    confluent_kafka.Consumer = Consumer  # type: ignore[misc]
    confluent_kafka.Producer = Producer  # type: ignore[misc]


def main() -> None:
    path, program, *arguments = sys.argv[1:]
    board = Board(Path(path))
    board.subscribed = board.held = board.in_transaction = 0
    patch(board)
    sys.argv = [program, *arguments]
    if program == "rbstream":
        runpy.run_module("rbstream", run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main()
