"""Publishes packets at a pace, in shares that are let go one by one."""

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from confluent_kafka import KafkaException, Producer
from packets import Made

# How long a message or a transaction may take: longer than a broker that is killed and started again [ms].
TIMEOUT_MS = 600_000
# Messages in a transaction.
TRANSACTION = 20
# Beyond what was let go [1/s]: enough that a worker told to die in a transaction soon has one.
TRICKLE = 3.0


class Publisher(threading.Thread):
    """Each packet once, idempotently, with all acknowledgements, by its key's partition.

    rate: messages a second within what was let go; beyond it they trickle, so that workers never run dry. hold: how
    many of the last are published only once `finish` was called.
    """

    def __init__(self, servers: str, topic: str, packets: Iterable[Made], total: int, rate: float, hold: int) -> None:
        super().__init__(daemon=True)
        self._producer = Producer(
            {
                "bootstrap.servers": servers,
                "enable.idempotence": True,
                "delivery.timeout.ms": TIMEOUT_MS,
                "topic.metadata.refresh.interval.ms": 5000,
                "log_level": 2,
            }
            | self._more(topic)
        )
        self._topic = topic
        self._packets = packets
        self._total = total
        self._rate = rate
        self._hold = hold
        self._let_go = 0.0
        self._finish = threading.Event()
        self.published: list[tuple[str, int, int]] = []
        self.failures: list[str] = []
        self.sent = 0

    def let_go(self, share: float) -> None:
        """Publish up to this share of all at the full rate."""
        self._let_go = share

    def finish(self) -> None:
        """Publish the rest."""
        self._let_go = 1.0
        self._finish.set()

    @staticmethod
    def _more(topic: str) -> dict[str, Any]:
        """More of the producer's configuration."""
        return {}

    def run(self) -> None:
        for packet in self._packets:
            if self.sent == self._total - self._hold:
                self._finish.wait()
            self._send(packet)
            self.sent += 1
            self._await_turn(time.monotonic())
        left = self._flush()
        if left:
            self.failures.append(f"{left} messages are still not acknowledged")

    def _flush(self) -> int:
        """Wait for acknowledgements; how many are missing."""
        return self._producer.flush(300)

    def _send(self, packet: Made) -> None:
        while True:
            try:
                self._producer.produce(self._topic, packet.content, packet.key, on_delivery=self._delivered)
                return
            except BufferError:
                self._producer.poll(0.1)

    def _await_turn(self, since: float) -> None:
        """Until the next one is due; what is let go in the meantime counts."""
        while True:
            ahead = self.sent > self._let_go * self._total
            left = since + 1 / (TRICKLE if ahead else self._rate) - time.monotonic()
            if left <= 0:
                return
            self._producer.poll(min(left, 0.01))

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self.failures.append(str(error))
        else:
            self.published.append((message.topic(), message.partition(), message.offset()))


class TransactionalPublisher(Publisher):
    """The same in transactions, each followed by one that is aborted: the topic then has markers, and messages that
    nobody may see. What it publishes is seen with the next transaction's end only: its bursts are small."""

    _open = 0

    @staticmethod
    def _more(topic: str) -> dict[str, Any]:
        return {"transactional.id": f"{topic}-publisher", "transaction.timeout.ms": TIMEOUT_MS}

    def run(self) -> None:
        self._producer.init_transactions()
        super().run()

    def _send(self, packet: Made) -> None:
        if self._open == 0:
            self._producer.begin_transaction()
        super()._send(packet)
        self._open += 1
        ahead = self.sent > self._let_go * self._total
        if self._open >= TRANSACTION or ahead or self.sent + 1 == self._total - self._hold:
            self._flush()
            self._abort_another(packet)

    def _flush(self) -> int:
        left = super()._flush()
        if self._open:
            self._insist(self._producer.commit_transaction)
            self._open = 0
        return left

    def _abort_another(self, packet: Made) -> None:
        self._producer.begin_transaction()
        self._producer.produce(self._topic, packet.content, packet.key)
        self._producer.flush(300)
        self._insist(self._producer.abort_transaction)

    @staticmethod
    def _insist(call: Callable[[], None]) -> None:
        while True:
            try:
                call()
                return
            except KafkaException as error:
                if not error.args[0].retriable():
                    raise
