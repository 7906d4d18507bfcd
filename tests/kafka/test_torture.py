"""Workers killed again and again, for a short time: `torture.py` by itself does the same for as long as one likes."""

import pytest
from broker import Broker
from torture import torture


@pytest.mark.parametrize(
    ("packets", "kills", "in_transaction", "more"),
    [
        (1500, 5, 2, ["--protocol=classic", "--workers=3", "--elastic", "--sigterm=1", "--transactional-input"]),
        (800, 3, 1, ["--protocol=consumer", "--workers=2", "--dynamic"]),
        (800, 3, 0, ["--delivery=at-least-once", "--workers=2", "--sigterm=1"]),
    ],
    ids=["classic", "consumer", "at-least-once"],
)
def test_every_alert_goes_out_as_often_as_promised_whenever_workers_are_killed(
    packets: int,
    kills: int,
    in_transaction: int,
    more: list[str],
    broker: Broker,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("torture")
    where = [f"--bootstrap-servers={broker.servers}", f"--folder={folder}"]
    numbers = [f"--packets={packets}", f"--kills={kills}", f"--kills-in-transaction={in_transaction}"]
    report = torture([*numbers, *more, *where, "--partitions=4", "--pause=2"])
    assert not report.failures, "\n".join(report.failures)
    assert report.published == packets
    assert report.alerts["scores"] >= packets
    assert sum(report.kills.values()) == kills
    assert report.kills_in_transaction >= in_transaction
