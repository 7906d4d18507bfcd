"""Publishes packets at a pace, in shares that are let go one by one."""

import threading
import time
from collections.abc import Iterable
from typing import Any

from confluent_kafka import Producer
from packets import Made

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
            # Long enough for a broker that is killed and started again.
            {"bootstrap.servers": servers, "enable.idempotence": True, "delivery.timeout.ms": 600_000, "log_level": 2}
        )
        self._topic = topic
        self._packets = packets
        self._total = total
        self._rate = rate
        self._hold = hold
        self._let_go = 0.0
        self._finish = threading.Event()
        self.published: list[tuple[int, int]] = []
        self.failures: list[str] = []
        self.sent = 0

    def let_go(self, share: float) -> None:
        """Publish up to this share of all at the full rate."""
        self._let_go = share

    def finish(self) -> None:
        """Publish the rest."""
        self._let_go = 1.0
        self._finish.set()

    def run(self) -> None:
        for packet in self._packets:
            if self.sent == self._total - self._hold:
                self._finish.wait()
            self._send(packet)
            self.sent += 1
            self._await_turn(time.monotonic())
        left = self._producer.flush(300)
        if left:
            self.failures.append(f"{left} messages are still not acknowledged")

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
            self.published.append((message.partition(), message.offset()))
