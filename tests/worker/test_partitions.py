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
    assert partitions.to_go_back() == {P: 6, Q: BEGINNING}
    partitions.gone_back()
    assert partitions.to_go_back() == {}
    assert [partitions.read(P, 6), partitions.read(Q, 0)] == [True, True]


def test_only_what_was_read_and_not_delivered_is_gone_back_to() -> None:
    partitions = owned(p0=5, p1=7)
    partitions.read(P, 5)
    partitions.give_up()
    assert partitions.to_go_back() == {P: 5}


def test_nothing_is_gone_back_to_while_nothing_was_given_up() -> None:
    partitions = owned(p0=5)
    partitions.read(P, 5)
    assert partitions.to_go_back() == {}


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
    partitions.gone_back()
    partitions.reached(P, 6)
    assert partitions.quiet_ends() == {}
    partitions.read(P, 5)
    partitions.deliver({P: 6})
    partitions.reached(P, 8)
    assert partitions.quiet_ends() == {P: 8}


STEPS = st.lists(st.sampled_from(["read", "deliver", "give up", "go back", "end"]), max_size=60)


@given(STEPS)
def test_every_message_is_delivered_once_and_in_order(steps: list[str]) -> None:
    """A log with gaps, as markers make them; batches of all that was read; a client that fetches in order."""
    log = [0, 1, 2, 5, 6, 9, 10, 11, 15]
    partitions, fetched, batch, delivered = owned(p0=BEGINNING), 0, list[int](), list[int]()
    for step in [*steps, "go back", *["read"] * 20, "deliver"]:
        if step == "read" and fetched < len(log):
            if partitions.read(P, log[fetched]):
                batch.append(log[fetched])
            fetched += 1
        elif step == "end" and fetched == len(log):
            partitions.reached(P, 17)
            partitions.deliver(partitions.quiet_ends())
        elif step == "deliver" and batch:
            delivered += batch
            partitions.deliver({P: batch[-1] + 1})
            batch = []
        elif step == "give up":
            partitions.give_up()
            batch = []
        elif step == "go back":
            offsets = partitions.to_go_back()
            if offsets:
                fetched = sum(offset < offsets[P] for offset in log)
            partitions.gone_back()
            if not offsets and not batch:
                fetched = sum(offset < (partitions.position(P) or 0) for offset in log)
    assert delivered == log[: len(delivered)]
    assert delivered == log
