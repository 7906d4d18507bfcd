"""A few numbers that a launched worker and its torturer share, and that outlive a SIGKILL: a mapped file."""

import mmap
import struct
from pathlib import Path

# Where a worker can be told to signal itself. In a transaction: from `begun` to `committing`.
STEPS = ("taken", "begun", "produced", "sending", "sent", "commit", "committing", "committed")
IN_TRANSACTION = STEPS[1:-1]
# Of them, what there is without transactions.
AT_LEAST_ONCE = ("taken", "produced", "commit", "committing", "committed")
_NUMBER = struct.Struct("q")


class _Field:
    def __set_name__(self, owner: "type[Board]", name: str) -> None:
        owner.size = getattr(owner, "size", 0) + _NUMBER.size
        self._place = owner.size - _NUMBER.size

    def __get__(self, board: "Board", owner: "type[Board]") -> int:
        (value,) = _NUMBER.unpack_from(board.memory, self._place)
        return int(value)

    def __set__(self, board: "Board", value: int) -> None:
        _NUMBER.pack_into(board.memory, self._place, value)


class Board:
    """The numbers. The torturer writes the last two, of which the worker clears the first; the worker the others."""

    size = 0
    subscribed = _Field()  # 1 once it has: from then on a SIGTERM is one that it knows to take
    held = _Field()  # messages that the worker has taken and not committed
    in_transaction = _Field()  # 1 from begin_transaction's return to commit_transaction's or abort_transaction's
    commits = _Field()
    aborts = _Field()
    obeyed = _Field()  # orders so far
    held_then = _Field()  # `held` and `in_transaction` when it obeyed the last one
    in_transaction_then = _Field()
    step = _Field()  # index in STEPS, plus one, at which the worker is to signal itself
    signal = _Field()  # with which signal

    def __init__(self, path: Path) -> None:
        if not path.exists() or path.stat().st_size != Board.size:
            path.write_bytes(bytes(Board.size))
        with path.open("r+b") as file:
            self.memory = mmap.mmap(file.fileno(), Board.size)

    def order(self, step: str, number: int) -> None:
        """Have the worker signal itself when it next comes to a step and holds messages that are not committed."""
        self.signal = number
        self.step = STEPS.index(step) + 1

    def cancel(self) -> None:
        self.step = 0
