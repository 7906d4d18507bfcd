"""How far partitions are: whatever is read, given up and delivered, in any order, no offset is skipped or doubled."""

from hypothesis import given
from hypothesis import strategies as st

from rbstream.worker.partitions import Partitions

P, Q = ("ztf", 0), ("ztf", 1)
BEGINNING = -2


def owned(**offsets: int) -> Partitions:
    partitions = Partitions()
    partitions.assign({("ztf", int(name[1:])): offset for name, offset in offsets.items()})
    return partitions


def test_messages_of_partitions_that_are_not_ours_are_left() -> None:
    partitions = owned(p0=5)
    assert not partitions.read(Q, 5)
    partitions.remove([P])
    assert not partitions.read(P, 5)


def test_what_was_read_before_is_not_read_again() -> None:
    partitions = owned(p0=5)
    assert [partitions.read(P, offset) for offset in (5, 6, 6, 5, 9)] == [True, True, False, False, True]


def test_after_giving_up_nothing_is_taken_until_we_have_gone_back() -> None:
    partitions = owned(p0=5, p1=BEGINNING)
    partitions.read(P, 5)
    partitions.read(P, 6)
    partitions.read(Q, 0)
    partitions.deliver({P: 6})
    partitions.give_up()
    assert not partitions.read(P, 7)
    assert partitions.go_back() == {P: 6, Q: BEGINNING}
    assert partitions.go_back() == {}
    assert [partitions.read(P, 6), partitions.read(Q, 0)] == [True, True]


def test_what_comes_of_a_new_assignment_before_we_have_gone_back_is_gone_back_to() -> None:
    partitions = owned(p0=5)
    partitions.remove([P])
    partitions.give_up()
    partitions.assign({P: 25, Q: 7})
    assert not partitions.read(P, 25)
    assert partitions.go_back() == {P: 25}
    assert [partitions.read(P, 25), partitions.read(Q, 7)] == [True, True]


def test_only_what_was_read_and_not_delivered_is_gone_back_to() -> None:
    partitions = owned(p0=5, p1=7)
    partitions.read(P, 5)
    partitions.give_up()
    assert partitions.go_back() == {P: 5}


def test_nothing_is_gone_back_to_while_nothing_was_given_up() -> None:
    partitions = owned(p0=5)
    partitions.read(P, 5)
    assert partitions.go_back() == {}
    assert partitions.position(P) == 6


def test_an_end_behind_what_is_delivered_is_to_be_committed_once() -> None:
    partitions = owned(p0=5)
    partitions.reached(P, 6)
    assert partitions.quiet_ends() == {P: 6}
    partitions.deliver({P: 6})
    assert partitions.quiet_ends() == {}


def test_an_end_is_not_committed_over_messages_that_are_under_way() -> None:
    partitions = owned(p0=5)
    partitions.read(P, 5)
    partitions.reached(P, 7)
    assert partitions.quiet_ends() == {}
    partitions.deliver({P: 6})
    assert partitions.quiet_ends() == {P: 7}


def test_an_end_told_before_we_went_back_does_not_count() -> None:
    partitions = owned(p0=5)
    partitions.read(P, 5)
    partitions.give_up()
    partitions.reached(P, 6)
    partitions.go_back()
    partitions.reached(P, 6)
    assert partitions.quiet_ends() == {}
    partitions.read(P, 5)
    partitions.deliver({P: 6})
    partitions.reached(P, 8)
    assert partitions.quiet_ends() == {P: 8}


STEPS = st.lists(st.sampled_from(["read", "deliver", "give up", "go back", "end", "lose"]), max_size=60)


@given(STEPS)
def test_every_message_is_delivered_once_and_in_order(steps: list[str]) -> None:
    """A log with gaps, as markers make them; batches of all that was taken; a client that fetches on from where it is.

    It moves only where it is told to: by an assignment, or by going back.
    """
    log, end = [0, 1, 2, 5, 6, 9, 10, 11, 15], 17
    partitions, fetched, batch, delivered = owned(p0=BEGINNING), 0, list[int](), list[int]()
    committed = BEGINNING
    for step in [*steps, "go back", *["read"] * 20, "deliver", "end"]:
        if step == "read" and fetched < len(log):
            if partitions.read(P, log[fetched]):
                batch.append(log[fetched])
            fetched += 1
        elif step == "end" and fetched == len(log):
            partitions.reached(P, end)
            committed = partitions.quiet_ends().get(P, committed)
            partitions.deliver(partitions.quiet_ends())
        elif step == "deliver" and batch:
            delivered += batch
            committed = batch[-1] + 1
            partitions.deliver({P: committed})
            batch = []
        elif step in ("give up", "lose"):
            if step == "lose":
                partitions.remove([P])
            partitions.give_up()
            batch = []
            if step == "lose":
                partitions.assign({P: committed})
                fetched = sum(offset < committed for offset in log)
        elif step == "go back":
            offsets = partitions.go_back()
            fetched = sum(offset < offsets[P] for offset in log) if P in offsets else fetched
    assert delivered == log
    assert committed == end
