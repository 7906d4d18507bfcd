"""How long to go on asking Kafka: calls are repeated, aborted or given up as `faults.judge` says, within a limit."""

import logging
import math
import time
from collections.abc import Callable
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from rbstream.kafka.faults import Aborted, Fault, KafkaFailure, ProducerLostError, judge

T = TypeVar("T")
Client = Consumer | Producer
logger = logging.getLogger(__name__)

# A call is asked again this often, so that a deadline is noticed.
CALL_SECONDS = 1.0
# A client that flushes for 0.2 s or longer does so in pieces, and goes on with the next after a fatal error: callbacks
# run with that exception pending, and SystemError can come out in its place (confluent-kafka 2.16).
FLUSH_SECONDS = 0.15
# Some calls fail at once while a broker is away; to ask ten times a second is no busy loop.
PAUSE_SECONDS = 0.1
# An operator wants to know why nothing moves; a broker's restart takes some seconds and is no news.
SECONDS_BEFORE_A_WORD, SECONDS_BETWEEN_WORDS = 10.0, 30.0
# A coordinator moves within seconds. A producer that was in a transaction when its broker went away sometimes never
# looks for another one (librdkafka 2.16, as issue 5456).
SECONDS_BEFORE_STUCK = 50.0


class Patience:
    """Repeats calls of the clients. max_outage: for so long [s]. tick: called at every turn, so that health sees us.

    deadline: when all has to be over, by the monotonic clock: a process that was asked to stop has less time.
    """

    def __init__(
        self, max_outage: float, tick: Callable[[], None], deadline: Callable[[], float | None] = lambda: None
    ) -> None:
        self._max_outage = max_outage
        self._tick = tick
        self._deadline = deadline

    def call(
        self,
        doing: str,
        function: Callable[[float], T],
        budget: float = math.inf,
        answers: Callable[[], bool] = lambda: False,
    ) -> T:
        """The function's result. function: takes the seconds that it may take, and can be called again.

        doing: for messages. budget: until when, by the monotonic clock, this piece of work may take. answers: whether
        the brokers answer the same client: what runs into time-outs all the same is given up.
        Raises Aborted where the work has to be taken up anew, KafkaFailure where it's over.
        """
        outage = self.outage(doing, budget)
        answered: float | None = None
        while True:
            try:
                return function(CALL_SECONDS)
            except KafkaException as error:
                check(doing, error.args[0])
                if error.args[0].code() == KafkaError._TIMED_OUT and answers():
                    answered = answered or time.monotonic()
                    if time.monotonic() - answered > SECONDS_BEFORE_STUCK:
                        raise ProducerLostError(f"{doing}: the brokers answer, and it does not get on") from error
                else:
                    answered = None
                outage.wait(error.args[0])

    def insist(self, doing: str, function: Callable[[float], T]) -> T:
        """The same where there is nothing to take up anew. Raises KafkaFailure only."""
        try:
            return self.call(doing, function)
        except Aborted as aborted:
            raise KafkaFailure(str(aborted)) from aborted

    def outage(self, doing: str, budget: float = math.inf) -> "Outage":
        """The clock of one piece of work."""
        return Outage(doing, self._max_outage, self._tick, self._deadline, budget)


class Outage:
    """How long one piece of work has been waiting for Kafka."""

    def __init__(
        self,
        doing: str,
        max_seconds: float,
        tick: Callable[[], None],
        deadline: Callable[[], float | None],
        budget: float,
    ) -> None:
        self._doing = doing
        self._max_seconds = max_seconds
        self._tick = tick
        self._deadline = deadline
        self._budget = budget
        self._since = time.monotonic()
        self._next_word = self._since + SECONDS_BEFORE_A_WORD

    def wait(self, error: KafkaError | None = None) -> None:
        """Wait a moment. Raises KafkaFailure where it took too long, Aborted where only the budget is used up."""
        self._tick()
        now, deadline = time.monotonic(), self._deadline()
        why = f": {error.str()}" if error is not None else ""
        if deadline is not None and now > deadline:
            raise KafkaFailure(f"stopped while {self._doing}, which Kafka did not answer in time{why}")
        if now - self._since > self._max_seconds:
            raise KafkaFailure(f"{self._doing}: Kafka has not answered for {self._max_seconds:g} s{why}")
        if now > self._budget:
            raise Aborted(f"{self._doing}: not done in time{why}")
        if now > self._next_word:
            self._next_word = now + SECONDS_BETWEEN_WORDS
            logger.warning("waiting for Kafka: %s%s", self._doing, why, extra={"seconds": round(now - self._since)})
        time.sleep(PAUSE_SECONDS)


def answers(client: Client) -> bool:
    """Whether the brokers answer a client."""
    try:
        client.list_topics(timeout=CALL_SECONDS)
    except KafkaException:
        return False
    return True


def flush(producer: Producer, seconds: float = CALL_SECONDS) -> int:
    """How many messages are still on their way after so long [s]. Raises KafkaException for a fatal error."""
    until = time.monotonic() + seconds
    while (left := producer.flush(FLUSH_SECONDS)) and time.monotonic() < until:
        pass
    return left


def check(doing: str, error: KafkaError) -> None:
    """Return where the error passes by itself. Raises Aborted, or KafkaFailure, where it does not."""
    fault = judge(error)
    if fault is Fault.REPEAT:
        return
    told = f"{doing}: {error.str()} ({error.name()})"
    if error.code() == KafkaError.INVALID_TXN_STATE:  # the broker aborted it by itself, while nobody could reach it
        raise ProducerLostError(told)
    raise Aborted(told) if fault is Fault.ABORT else KafkaFailure(told)
