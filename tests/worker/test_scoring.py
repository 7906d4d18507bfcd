"""Decoding and scoring behind a queue: every batch comes back once and in order, whatever the model does on the way."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny import tiny_manifest

from rbstream.assembly import make_pipeline
from rbstream.errors import ModelError
from rbstream.filter import Filter
from rbstream.model.manifest import Manifest
from rbstream.packet.container import read_header
from rbstream.pipeline import Pipeline
from rbstream.settings import Limits
from rbstream.worker import scoring as module
from rbstream.worker.batcher import Batch, Message
from rbstream.worker.messages import Destinations, Encoder
from rbstream.worker.scoring import ATTEMPTS, Scored, Scoring


@dataclass
class Means:
    """Scores by the mean pixel. failures: of so many calls, each fails."""

    failures: list[Exception] = field(default_factory=list)
    device: str = "cpu"

    @property
    def manifest(self) -> Manifest:
        return tiny_manifest()

    def new_batch(self, alerts: int) -> NDArray[np.float32]:
        return np.empty((alerts, 3, 63, 63), np.float32)

    def score(self, triplets: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.failures:
            raise self.failures.pop()
        return np.clip(np.abs(np.nanmean(triplets, axis=(1, 2, 3))) / 1000, 0, 1).astype(np.float32)


Start = Callable[..., Scoring]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts scoring threads, which pause for no time after a fault and end with the test."""
    monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 0.0)
    started: list[Scoring] = []

    def scoring(scorer: Means, depth: int = 4) -> Scoring:
        def pipeline() -> Pipeline:
            return make_pipeline(scorer, {"main": Filter(0.0)}, Limits(), 4)

        to = Destinations({"main": "out"}, "dead", None, {"out": 1 << 20, "dead": 1 << 20})
        made = Scoring(pipeline, Encoder(to, "v"), None, Limits(), depth)
        made.start()
        started.append(made)
        return made

    yield scoring
    for each in started:
        each.close(10)


def batch(contents: list[bytes], first: int) -> Batch:
    return Batch([Message("ztf", 0, first + n, None, content, 1, []) for n, content in enumerate(contents)])


def take(scoring: Scoring) -> Scored:
    result = scoring.take(30)
    assert result is not None
    return result


def offsets(scored: Scored) -> list[int]:
    """Offsets in what goes out."""
    return [int(dict(each.headers)["rbstream.source.offset"] or b"") for each in scored.outgoing]


def test_a_batch_comes_back_without_another_behind_it(start: Start, packets: list[bytes]) -> None:
    scoring = start(Means())
    for round_ in range(3):
        scoring.submit(batch(packets[:3], 3 * round_))
        assert offsets(take(scoring)) == [3 * round_ + n for n in range(3)]
    assert (scoring.waiting, scoring.wanted, scoring.room) == (0, 0, True)


def test_batches_come_back_in_order_whatever_their_size(start: Start, packets: list[bytes]) -> None:
    scoring = start(Means())
    batches = [batch(packets[:size], 100 * size) for size in (1, 9, 4, 2)]
    for each in batches:
        scoring.submit(each)
    assert not scoring.room
    for each in batches:
        scored = take(scoring)
        assert scored.batch is each
        assert offsets(scored) == [message.offset for message in each.messages]
        assert scored.alerts == len(each.messages)


def test_verdicts_are_told_by_partition_and_in_order(start: Start, packets: list[bytes]) -> None:
    scoring = start(Means())
    scoring.submit(batch([packets[0], b"bad", packets[1]], 0))
    assert take(scoring).verdicts == {("ztf", 0): [None, "not_avro", None]}


@pytest.mark.parametrize("fault", [ModelError("the device is gone"), MemoryError()])
def test_a_fault_of_ours_is_tried_again_and_nothing_is_lost(
    start: Start, packets: list[bytes], fault: Exception
) -> None:
    scoring = start(Means([fault] * (ATTEMPTS - 1)))
    batches = [batch(packets[:6], 0), batch(packets[6:8], 6)]
    for each in batches:
        scoring.submit(each)
    assert [offset for _ in batches for offset in offsets(take(scoring))] == list(range(8))


def test_a_fault_that_stays_is_raised_and_gives_no_result(start: Start, packets: list[bytes]) -> None:
    scoring = start(Means([ModelError("the device is gone")] * 10))
    scoring.submit(batch(packets[:2], 0))
    with pytest.raises(ModelError, match="the device is gone"):
        scoring.take(30)


def test_a_bug_is_raised_where_results_are_taken(start: Start, packets: list[bytes]) -> None:
    scoring = start(Means([ZeroDivisionError("a bug")]))
    scoring.submit(batch(packets[:2], 0))
    with pytest.raises(ZeroDivisionError):
        scoring.take(30)


def test_what_was_discarded_never_comes_back_and_what_follows_does(start: Start, packets: list[bytes]) -> None:
    scoring = start(Means())
    for first in (0, 10, 20):
        scoring.submit(batch(packets[:3], first))
    scoring.discard()
    assert (scoring.waiting, scoring.wanted) == (3, 0)
    scoring.submit(batch(packets[:2], 40))
    assert offsets(take(scoring)) == [40, 41]
    assert scoring.take() is None
    assert scoring.waiting == 0


def test_a_message_of_which_nothing_comes_is_rejected(start: Start, packets: list[bytes]) -> None:
    header = packets[0][: read_header(packets[0], Limits()).length]
    scoring = start(Means())
    scoring.submit(batch([packets[0], header, packets[1], header], 0))
    scored = take(scoring)
    assert sorted(offsets(scored)) == [0, 1, 2, 3]
    assert sorted(map(str, scored.verdicts["ztf", 0])) == ["None", "None", "no_records", "no_records"]
    assert [each.value for each in scored.outgoing if each.route == "dead_letters"] == [header, header]
