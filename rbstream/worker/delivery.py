"""Results out, with the offsets that they stand for: in one transaction, or one after the other."""

import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Protocol, cast

from confluent_kafka import KafkaError, KafkaException, Producer

from rbstream.kafka.faults import Aborted, KafkaFailure, ProducerLostError
from rbstream.kafka.patience import CALL_SECONDS, Patience, answers, check, flush
from rbstream.metrics import Metrics
from rbstream.worker.messages import Outgoing
from rbstream.worker.offsets import GroupOffsets, Marks

PRODUCING = "producing"
Reported = Callable[[KafkaError | None, Any], None]


class Delivery(Protocol):
    """How results get out."""

    def deliver(self, outgoing: Iterable[Outgoing], marks: Marks, budget: float = math.inf) -> None:
        """Write messages and commit offsets. Raises Aborted where nothing was committed, KafkaFailure at the end.

        budget: until when, by the monotonic clock; later is Aborted too. A commit that has been asked for is waited
        for all the same: only Kafka knows how it ends.
        """

    def poll(self) -> None:
        """Let the producer say what it has to say: it complains only while it is polled."""


class ExactlyOnce:
    """Messages and offsets in one transaction, opened when all is scored."""

    def __init__(self, producer: Producer, offsets: GroupOffsets, patience: Patience, metrics: Metrics) -> None:
        self._producer = producer
        self._offsets = offsets
        self._patience = patience
        self._ended = metrics.transactions

    def deliver(self, outgoing: Iterable[Outgoing], marks: Marks, budget: float = math.inf) -> None:
        try:
            self._producer.begin_transaction()
            for message in outgoing:
                _produce(self._producer, message, self._patience, budget)
            self._offsets.send(self._producer, marks, budget)
            self._insist("committing the transaction", self._producer.commit_transaction)
        except Aborted:
            self._abort()
            raise
        except KafkaException as error:
            self._try_to_abort()
            if error.args[0].code() != KafkaError._STATE:  # else it failed before, in a call that does not tell
                check(PRODUCING, error.args[0])
            raise Aborted(f"{PRODUCING}: {error.args[0].str()}") from error
        except ProducerLostError:  # another one will end what this one left open
            raise
        except KafkaFailure:
            self._try_to_abort()
            raise
        self._ended.labels("committed").inc()

    def poll(self) -> None:
        self._producer.poll(0)

    def _abort(self) -> None:
        self._settle()
        self._insist("aborting the transaction", self._producer.abort_transaction)
        self._ended.labels("aborted").inc()

    def _try_to_abort(self) -> None:
        """Abort on the way out, so that nobody waits for the transaction's timeout; once, as Kafka may be gone."""
        with suppress(KafkaException):
            self._settle()
            self._producer.abort_transaction(CALL_SECONDS)
            self._ended.labels("aborted").inc()

    def _insist(self, doing: str, ask: Callable[[float], None]) -> None:
        self._patience.call(doing, ask, answers=lambda: answers(self._producer))

    def _settle(self) -> None:
        """Let the first messages go out: of an abort before that the broker is told nothing (librdkafka 2.16), also
        where it has been told of the transaction, which is then open until its timeout."""
        flush(self._producer)


class AtLeastOnce:
    """Messages first, offsets when the broker has acknowledged them all: what comes between is written twice."""

    def __init__(self, producer: Producer, offsets: GroupOffsets, patience: Patience) -> None:
        self._producer = producer
        self._offsets = offsets
        self._patience = patience
        self._error: KafkaError | None = None

    def deliver(self, outgoing: Iterable[Outgoing], marks: Marks, budget: float = math.inf) -> None:
        self._error = None
        try:
            for message in outgoing:
                _produce(self._producer, message, self._patience, budget, self._reported)
        except KafkaException as error:
            self._error = error.args[0]
        outage = self._patience.outage("waiting for acknowledgements", budget)
        while flush(self._producer):
            outage.wait(self._error)
        if self._error is not None:
            check(PRODUCING, self._error)
            raise Aborted(f"{PRODUCING}: {self._error.str()}")
        self._offsets.commit(marks, budget)

    def poll(self) -> None:
        self._producer.poll(0)

    def _reported(self, error: KafkaError | None, _: Any) -> None:
        self._error = self._error or error


def _produce(
    producer: Producer, message: Outgoing, patience: Patience, budget: float, reported: Reported | None = None
) -> None:
    """Hand a message to the producer; wait where its queue is full."""
    outage = None
    headers = cast(list[tuple[str, str | bytes | None]], message.headers)
    while True:
        try:
            producer.produce(
                message.topic, message.value, message.key, headers=headers, timestamp=message.timestamp,
                on_delivery=reported,
            )  # fmt: skip
            return
        except BufferError:
            outage = outage or patience.outage("waiting for room in the producer's queue", budget)
            producer.poll(CALL_SECONDS / 10)
            outage.wait()
