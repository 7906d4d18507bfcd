"""Signals while a Kafka client calls back: they take effect behind the piece that must be whole."""

import signal
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Producer

from rbstream.kafka.interrupts import held_back

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def as_the_command_has_them() -> Iterator[None]:
    """Handlers that raise, as rbstream's commands have them."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in NUMBERS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_takes_effect_once_and_behind_the_piece(number: signal.Signals) -> None:
    steps = []

    def piece() -> None:
        with held_back():
            signal.raise_signal(number)
            signal.raise_signal(number)
            steps.append("went on")

    with pytest.raises(SystemExit) as raised:
        piece()
    assert raised.value.code == 128 + number
    assert steps == ["went on"]
    with pytest.raises(SystemExit):  # and the next one as ever
        signal.raise_signal(number)


def test_a_piece_that_fails_is_told_of_where_no_signal_came() -> None:
    with pytest.raises(ValueError, match="of its own"), held_back():
        raise ValueError("of its own")
    with pytest.raises(SystemExit):
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_in_the_middle_of_a_delivery_report_loses_neither(number: signal.Signals) -> None:
    reports: list[Any] = []

    def report(error: Any, _: Any) -> None:
        signal.raise_signal(number)
        reports.append(error)

    # Nobody listens there: the message is given up, and that is reported.
    producer = Producer({"bootstrap.servers": "127.0.0.1:9", "message.timeout.ms": 100, "log_level": 0})
    producer.produce("topic", b"value", on_delivery=report)

    def listen() -> None:
        while not reports:
            with held_back():
                producer.poll(0.1)

    with pytest.raises(SystemExit) as raised:
        listen()
    assert raised.value.code == 128 + number
    assert len(reports) == 1
