"""The limit on rejections: when it trips, that it trips at the same alert again, and how to get past it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbstream.errors import ExitStatus, LimitError
from rbstream.settings import Rejects
from rbstream.worker.rejects import Rejections, Window

P, Q = ("ztf", 0), ("ztf", 1)
SETTINGS = Rejects(max_ratio=0.2, window=200, in_a_row=30)


def tripped_at(verdicts: list[str | None], start: Rejections) -> int | None:
    """The number of the alert that trips the limit."""
    state = start
    for number, verdict in enumerate(verdicts):
        try:
            state = state.after({P: [verdict]})
        except LimitError:
            return number
    return None


@given(st.lists(st.booleans(), max_size=400), st.integers(1, 64))
def test_a_window_counts_the_last_verdicts(verdicts: list[bool], size: int) -> None:
    window = Window()
    for verdict in verdicts:
        window = window.add(verdict, size)
    last = verdicts[-size:]
    assert (window.alerts, window.rejected) == (len(last), sum(last))
    row = next((back for back, verdict in enumerate(reversed(last)) if not verdict), len(last))
    assert window.in_a_row == row
    assert Window.of(window.metadata()) == window


def test_the_share_is_told_from_the_alert_on_from_which_it_is_judged() -> None:
    few = Rejections(SETTINGS, {}).after({P: ["cutout_gzip"] * 20 + [None] * 79})
    assert few.judged(P) == 0
    assert few.after({P: [None]}).judged(P) == 0.2
    small = Rejections(Rejects(window=20), {}).after({P: ["cutout_gzip"] + [None] * 19})
    assert small.judged(P) == 0.05


@pytest.mark.parametrize("note", ["", None, "rbstream:", "others' note", "rbstream:1", "rbstream:x:y", "1:2:3"])
def test_a_note_of_somebody_else_is_an_empty_window(note: str | None) -> None:
    assert Window.of(note) == Window()


def test_the_largest_window_fits_into_a_committed_offset() -> None:
    window = Window(16_000, (1 << 16_000) - 1)
    assert len(window.metadata()) <= 4096  # offset.metadata.max.bytes


def test_few_alerts_are_no_ratio() -> None:
    start = Rejections(SETTINGS, {})
    assert tripped_at([None, "sync", "sync", "sync"] * 5, start) is None


def test_too_many_in_a_window_trip_it() -> None:
    assert tripped_at(([None] * 3 + ["sync"]) * 100, Rejections(SETTINGS, {})) == 99
    assert tripped_at(([None] * 4 + ["sync"]) * 100, Rejections(SETTINGS, {})) is None


def test_too_many_in_a_row_trip_it() -> None:
    assert tripped_at([None] * 500 + ["sync"] * 40, Rejections(SETTINGS, {})) == 500 + 29


def test_partitions_are_judged_one_by_one() -> None:
    state = Rejections(SETTINGS, {})
    for _ in range(29):
        state = state.after({P: ["sync"], Q: ["sync"]})
    with pytest.raises(LimitError, match="ztf/1"):
        state.after({P: [None], Q: ["sync"]})


@given(st.lists(st.sampled_from([None, None, None, "sync"]), max_size=400), st.integers(0, 400))
def test_a_restart_anywhere_halts_at_the_same_alert(verdicts: list[str | None], committed: int) -> None:
    start = Rejections(SETTINGS, {})
    trip = tripped_at(verdicts, start)
    committed = min(committed, len(verdicts) if trip is None else trip)
    note = start.after({P: verdicts[:committed]}).note(P)
    again = tripped_at(verdicts[committed:], Rejections(SETTINGS, {}).assigned(P, Window.of(note)))
    assert again == (None if trip is None else trip - committed)


def test_accepted_rejections_do_not_count_and_the_next_ones_do() -> None:
    assert tripped_at(["sync"] * 100, Rejections(SETTINGS, {}, accepted=50)) == 50 + 29


def test_a_batch_that_is_not_committed_uses_up_nothing() -> None:
    start = Rejections(SETTINGS, {}, accepted=5)
    start.after({P: ["sync"] * 5})
    assert start.accepted == 5
    assert start.windows == {}


def test_the_error_says_what_to_do() -> None:
    with pytest.raises(LimitError) as raised:
        Rejections(SETTINGS, {}).after({P: ["cutout_gzip"] * 30})
    assert raised.value.status is ExitStatus.LIMIT
    assert all(word in str(raised.value) for word in ("30 alerts in a row", "ztf/0", "cutout_gzip", "--accept-rejects"))
