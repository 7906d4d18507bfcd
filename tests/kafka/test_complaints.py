"""How long no broker has answered, by what librdkafka's statistics say."""

import json

import pytest

from rbstream.kafka.clients import Complaints
from rbstream.kafka.faults import KafkaFailure

MAX_OUTAGE = 60.0


def statistics(at: float, *answers: int) -> str:
    brokers = {f"broker-{number}": {"rx": count} for number, count in enumerate(answers)}
    return json.dumps({"ts": int(at * 1e6), "brokers": brokers})


def told(*reports: str) -> Complaints:
    complaints = Complaints("consumer")
    for report in reports:
        complaints.on_statistics(report)
    return complaints


ANSWERING = [statistics(5 * number, number, 10 + number) for number in range(100)]
SILENT = [statistics(5 * number, 7, 10) for number in range(14)]
FINE = {
    "nothing told yet": [],
    "every broker answers": ANSWERING,
    "one of them answers": [statistics(5 * number, 7, 10 + number) for number in range(100)],
    "not silent for long enough": SILENT[:13],
    "one came back": [*SILENT[:12], statistics(60, 8, 10), statistics(65, 8, 10)],
    "clients of brokers that went away are removed, with their counts": [
        report for number in range(0, 200, 2) for report in (statistics(5 * number, 50 + number),
                                                             statistics(5 * number + 5, number))
    ],
    "the process was halted for an hour": [ANSWERING[0], statistics(3600, 0, 10)],
}  # fmt: skip


@pytest.mark.parametrize("reports", FINE.values(), ids=FINE)
def test_a_cluster_that_answered_in_time_is_there(reports: list[str]) -> None:
    told(*reports).check(MAX_OUTAGE)


GONE = {
    "same counts": SILENT,
    "it has gone, and nothing is left but a name to ask": [statistics(0, 500), *(
        statistics(5 * number, 1) for number in range(1, 14)
    )],
    "answered before": [*ANSWERING, *(statistics(500 + 5 * number, 99, 109) for number in range(13))],
}  # fmt: skip


@pytest.mark.parametrize("reports", GONE.values(), ids=GONE)
def test_one_that_did_not_is_gone(reports: list[str]) -> None:
    with pytest.raises(KafkaFailure, match=r"consumer: no broker has answered for 6[0-9] s"):
        told(*reports).check(MAX_OUTAGE)


def test_no_outage_is_so_short_that_a_client_without_work_would_hear_nothing() -> None:
    told(*SILENT[:7]).check(1.0)
    with pytest.raises(KafkaFailure):
        told(*SILENT[:8]).check(1.0)
