"""How long Kafka is asked: until it answers, the budget of the work is used up, the process has to end, or for good."""

import math
import time
from collections.abc import Callable
from typing import cast

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from rbstream.kafka import patience as module
from rbstream.kafka.faults import Aborted, KafkaFailure, ProducerLostError
from rbstream.kafka.patience import Patience, flush

TIMED_OUT = KafkaError._TIMED_OUT
PAST = 0.0  # the monotonic clock is beyond it
AWAY, MOVED, REFUSED = KafkaError._TRANSPORT, KafkaError.ILLEGAL_GENERATION, KafkaError.TOPIC_AUTHORIZATION_FAILED


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)


def failing(code: int, times: float = math.inf) -> Callable[[float], str]:
    """A call that fails so often before it answers."""
    left = times

    def call(_: float) -> str:
        nonlocal left
        left -= 1
        if left >= 0:
            raise KafkaException(KafkaError(code))
        return "answer"

    return call


def patience(max_outage: float = math.inf, deadline: float | None = None) -> Patience:
    return Patience(max_outage, lambda: None, lambda: deadline)


def test_a_call_is_repeated_while_kafka_is_away_and_its_answer_given() -> None:
    assert patience().call("asking", failing(AWAY, times=5)) == "answer"
    assert patience().call("asking", failing(AWAY, times=5), time.monotonic() + 60) == "answer"


def test_a_first_answer_counts_however_late_it_is() -> None:
    assert patience(deadline=PAST).call("asking", failing(AWAY, times=0), PAST) == "answer"


@pytest.mark.parametrize(
    ("waits", "code", "budget", "raised", "words"),
    [
        (patience(), AWAY, PAST, Aborted, "asking: not done in time"),
        (patience(deadline=PAST), AWAY, math.inf, KafkaFailure, "stopped while asking"),
        (patience(deadline=PAST), AWAY, PAST, KafkaFailure, "stopped while asking"),
        (patience(max_outage=-1), AWAY, math.inf, KafkaFailure, "has not answered for"),
        (patience(max_outage=-1), AWAY, PAST, KafkaFailure, "has not answered for"),
        (patience(), MOVED, math.inf, Aborted, "ILLEGAL_GENERATION"),
        (patience(), REFUSED, math.inf, KafkaFailure, "TOPIC_AUTHORIZATION_FAILED"),
        (patience(), KafkaError.INVALID_TXN_STATE, math.inf, ProducerLostError, "INVALID_TXN_STATE"),
    ],
)
def test_what_ends_the_asking(waits: Patience, code: int, budget: float, raised: type[Exception], words: str) -> None:
    with pytest.raises(raised, match=words):
        waits.call("asking", failing(code), budget)


@pytest.mark.parametrize(
    ("code", "seconds", "answers", "ends"),
    [(TIMED_OUT, -1, True, True), (TIMED_OUT, -1, False, False), (TIMED_OUT, 60, True, False), (AWAY, -1, True, False)],
)
def test_what_times_out_for_long_though_the_brokers_answer_is_given_up(
    monkeypatch: pytest.MonkeyPatch, code: int, seconds: float, answers: bool, ends: bool
) -> None:
    monkeypatch.setattr(module, "SECONDS_BEFORE_STUCK", seconds)
    if ends:
        with pytest.raises(ProducerLostError, match="the brokers answer"):
            patience().call("asking", failing(code), answers=lambda: answers)
    else:
        assert patience().call("asking", failing(code, times=5), answers=lambda: answers) == "answer"


def test_where_nothing_can_be_taken_up_anew_every_end_is_for_good() -> None:
    with pytest.raises(KafkaFailure, match="ILLEGAL_GENERATION"):
        patience().insist("asking", failing(MOVED))


class Client:
    """A producer with so many messages that no broker takes. `asked`: for how long it was to flush, each time [s]."""

    def __init__(self, messages: int) -> None:
        self.messages = messages
        self.asked: list[float] = []

    def flush(self, seconds: float) -> int:
        self.asked.append(seconds)
        return self.messages


@pytest.mark.parametrize("messages", [0, 7])
def test_a_client_never_flushes_for_so_long_that_it_goes_on_after_a_fatal_error(messages: int) -> None:
    client = Client(messages)
    assert flush(cast(Producer, client), seconds=0.001) == messages
    assert max(client.asked) < 0.2  # CHUNK_TIMEOUT_MS in confluent-kafka's Producer.c
    assert messages or len(client.asked) == 1
