"""How far each of our partitions is: read, delivered, at its end. Pure bookkeeping; every decision about offsets."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from rbstream.worker.batcher import Partition


@dataclass(slots=True)
class _Progress:
    """delivered: the offset behind what is committed. read: behind what was read. end: where it has been reached.

    rewound: nothing was read since we went back, so that an end told now may be from before.
    """

    delivered: int
    read: int
    end: int | None = None
    rewound: bool = False


class Partitions:
    """The partitions that are assigned to us."""

    def __init__(self) -> None:
        self._owned: dict[Partition, _Progress] = {}
        self._given_up = False

    def __len__(self) -> int:
        return len(self._owned)

    def __iter__(self) -> Iterator[Partition]:
        return iter(self._owned)

    def assign(self, offsets: Mapping[Partition, int]) -> None:
        """Partitions that are ours from now on, and where they begin."""
        self._owned |= {partition: _Progress(offset, offset) for partition, offset in offsets.items()}

    def remove(self, partitions: Iterable[Partition]) -> None:
        """Partitions that are no longer ours."""
        for partition in partitions:
            self._owned.pop(partition, None)

    def read(self, partition: Partition, offset: int) -> bool:
        """Note a message, and whether to take it: not where it is not ours, was read before, or will be read again."""
        progress = self._owned.get(partition)
        if progress is None or offset < progress.read:
            return False
        # Noted in any case: what is not taken now has to be gone back to.
        progress.read, progress.end, progress.rewound = offset + 1, None, False
        return not self._given_up

    def reached(self, partition: Partition, end: int) -> None:
        """Note that there is nothing more to read before `end`."""
        progress = self._owned.get(partition)
        if progress is not None and not progress.rewound:
            progress.end = end

    def position(self, partition: Partition) -> int | None:
        """The offset to be read next; None where it is not ours."""
        progress = self._owned.get(partition)
        return None if progress is None else progress.read

    def deliver(self, ends: Mapping[Partition, int]) -> None:
        """Note what has been committed."""
        for partition, end in ends.items():
            progress = self._owned[partition]
            progress.delivered, progress.read = end, max(progress.read, end)

    def delivered(self) -> dict[Partition, int]:
        """The offset behind what is committed, by partition."""
        return {partition: progress.delivered for partition, progress in self._owned.items()}

    def quiet_ends(self) -> dict[Partition, int]:
        """Ends that lie behind all that was read and delivered: behind a transaction's marker, that is."""
        return {
            partition: progress.end
            for partition, progress in self._owned.items()
            if progress.end is not None and progress.read == progress.delivered < progress.end
        }

    def give_up(self) -> None:
        """Nothing that was read and not delivered will be: until we have gone back, nothing more is taken."""
        self._given_up = True

    def go_back(self) -> dict[Partition, int]:
        """Where to read again, by partition, if something was given up: messages are expected from there now."""
        behind = {key: each for key, each in self._owned.items() if self._given_up and each.read != each.delivered}
        for progress in behind.values():
            progress.read, progress.end, progress.rewound = progress.delivered, None, True
        self._given_up = False
        return {partition: progress.delivered for partition, progress in behind.items()}
