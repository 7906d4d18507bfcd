"""Micro-batches: due by number, by bytes, by time; on a clock that the test holds."""

from rbstream.settings import Batch as BatchSettings
from rbstream.worker.batcher import Batcher, Message


def message(offset: int, size: int = 10, partition: int = 0) -> Message:
    return Message("ztf", partition, offset, None, bytes(size), 0, [])


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def batcher(clock: Clock | None = None) -> Batcher:
    return Batcher(BatchSettings(max_alerts=4, max_bytes=2048, max_delay=0.5), clock or Clock())


def test_an_empty_batch_is_never_due() -> None:
    assert batcher().due_in() is None


def test_a_batch_is_due_when_it_is_full_by_number() -> None:
    made = batcher()
    for offset in range(3):
        made.add(message(offset))
    assert (made.room, made.due_in()) == (1, 0.5)
    made.add(message(3))
    assert (made.room, made.due_in()) == (0, 0.0)


def test_a_batch_is_due_when_it_is_full_by_bytes() -> None:
    made = batcher()
    made.add(message(0, 2048))
    assert (made.room, made.due_in()) == (0, 0.0)


def test_a_batch_is_due_some_time_after_its_first_message() -> None:
    clock = Clock()
    made = batcher(clock)
    made.add(message(0))
    clock.now += 0.375
    made.add(message(1))
    assert made.due_in() == 0.125
    clock.now += 1
    assert made.due_in() == 0.0
    batch = made.take()
    assert batch.waited == 1.375
    assert [each.offset for each in batch.messages] == [0, 1]
    assert (len(made), made.due_in()) == (0, None)


def test_the_ends_of_a_batch_are_behind_its_last_messages() -> None:
    made = batcher()
    for partition, offset in ((0, 5), (1, 7), (0, 8)):
        made.add(message(offset, partition=partition))
    assert made.take().ends() == {("ztf", 0): 9, ("ztf", 1): 8}


def test_dropped_partitions_leave_the_others_messages() -> None:
    made = batcher()
    for partition in (0, 1, 0):
        made.add(message(1, 1024, partition))
    made.drop({("ztf", 0)})
    assert made.room == 1
    assert [each.partition for each in made.take().messages] == [1]


def test_the_room_is_what_fits_of_messages_as_large_as_those_that_came() -> None:
    made = Batcher(BatchSettings(max_alerts=100, max_bytes=10_000), Clock())
    assert made.room == 100
    made.add(message(0, 1000))
    assert made.room == 9
    made.add(message(1, 8999))
    assert made.room == 1
