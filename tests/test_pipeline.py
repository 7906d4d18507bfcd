"""The pipeline: every alert gets one outcome, in order, however the input is cut."""

import gzip
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pytest
from numpy.typing import NDArray
from tiny import records, tiny_manifest

from rbstream.errors import ModelError, Rejection
from rbstream.filter import Filter, compile_where, ztf_fields
from rbstream.model.manifest import Manifest
from rbstream.packet.alert import Alert, Origin, Packet, Rejected
from rbstream.packet.reader import PacketReader
from rbstream.packet.survey import ZTF
from rbstream.pipeline import Outcome, Pipeline
from rbstream.settings import Limits


class Means:
    """Scores a triplet by a number that only it has, and remembers the sizes of the batches."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.manifest: Manifest = tiny_manifest()
        self.device = "none"
        self.sizes: list[int] = []
        self._fails_at = fails_at

    def new_batch(self, alerts: int) -> NDArray[np.float32]:
        return np.empty((alerts, *self.manifest.shape), np.float32)

    def score(self, triplets: NDArray[np.float32]) -> NDArray[np.float32]:
        if len(self.sizes) == self._fails_at:
            raise ModelError("the device is gone")
        self.sizes.append(len(triplets))
        return own_score(triplets)


def own_score(triplets: NDArray[np.float32]) -> NDArray[np.float32]:
    return (np.abs(np.nanmean(triplets, axis=(1, 2, 3))) % 1).astype(np.float32)


def outcomes(
    chunks: Iterable[Iterable[Packet | Rejected]],
    scorer: Means,
    max_alerts: int = 32,
    where: str | None = None,
) -> list[Outcome]:
    passes = Filter(0.5, compile_where(where, ztf_fields()) if where else None)
    limits = Limits()
    reader = PacketReader(ZTF, scorer.manifest.channels, passes.fields, limits)
    found = []
    for batch, *_ in Pipeline(reader, scorer, {"output": passes}, limits, max_alerts).run(chunks):
        for outcome in batch:
            if outcome.triplet is not None:  # the memory is used again
                outcome.triplet = outcome.triplet.copy()
            found.append(outcome)
    return found


def packet(content: bytes, number: int = 0) -> Packet:
    return Packet(Origin(f"{number}.avro"), content)


def with_stamp(night: Path, change: dict[str, bytes | None]) -> bytes:
    """The night's first alert with other cutouts, by the field's name."""
    record = records(night)[0]
    for field, stamp in change.items():
        record[field] = None if stamp is None else record[field] | {"stampData": stamp}
    return repacked(night, record)


def repacked(night: Path, record: dict[str, Any]) -> bytes:
    with night.open("rb") as file:
        schema: Any = fastavro.reader(file).writer_schema
    buffer = BytesIO()
    fastavro.writer(buffer, schema, [record])
    return buffer.getvalue()


def fits(image: NDArray[np.float32]) -> bytes:
    cards = [
        "SIMPLE  =                    T",
        "BITPIX  =                  -32",
        "NAXIS   =                    2",
    ]
    cards += [f"NAXIS1  = {image.shape[1]:>20}", f"NAXIS2  = {image.shape[0]:>20}", "END"]
    header = "".join(card.ljust(80) for card in cards).ljust(2880).encode()
    data = image.astype(">f4").tobytes()
    return gzip.compress(header + data + bytes(-len(data) % 2880))


def key(outcome: Outcome) -> tuple[object, ...]:
    item = outcome.item
    if isinstance(item, Alert):
        return outcome.verdict, item.origin, item.candid, round(outcome.drb, 6)
    return outcome.verdict, item.origin, item.rejection.reason


@pytest.fixture(scope="session")
def mixed(packets: list[bytes], night: Path) -> list[Packet | Rejected]:
    """Sixty single packets, a container of sixty, and every third a bad one, of many kinds."""
    bad: list[bytes] = [
        b"", b"not avro", packets[0][:1000], packets[1][:-5], with_stamp(night, {"cutoutScience": None}),
        with_stamp(night, {"cutoutDifference": b"no stamp"}),
        with_stamp(night, {"cutoutTemplate": fits(np.zeros((64, 63), np.float32))}),
    ]  # fmt: skip
    items: list[Packet | Rejected] = []
    for number, good in enumerate(packets):
        items.append(packet(good, number))
        if number % 3 == 0:
            items.append(packet(bad[number // 3 % len(bad)], 1000 + number))
        if number % 10 == 0:
            rejection = Rejection("container", "unreadable", "gone")
            items.append(Rejected(rejection, Origin(f"{2000 + number}.avro"), b""))
    return [*items, packet(night.read_bytes(), 3000)]


@pytest.fixture(scope="session")
def expected(mixed: list[Packet | Rejected]) -> list[tuple[object, ...]]:
    return [key(outcome) for outcome in outcomes([mixed], Means(), 1)]


def test_every_alert_gets_one_outcome_in_order(
    mixed: list[Packet | Rejected], expected: list[tuple[object, ...]], packets: list[bytes]
) -> None:
    assert len(expected) == len(mixed) - 1 + len(packets)
    numbers = [int(origin.file.split(".")[0]) for _, origin, *_ in expected]  # type: ignore[attr-defined]
    inputs = [int(item.origin.file.split(".")[0]) for item in mixed]
    assert list(dict.fromkeys(numbers)) == inputs
    assert [origin.record for _, origin, *_ in expected[-60:]] == list(range(60))  # type: ignore[attr-defined]
    assert {verdict for verdict, *_ in expected} == {"passed", "filtered", "rejected"}


@pytest.mark.parametrize("max_alerts", [2, 7, 32, 200])
@pytest.mark.parametrize("chunk", [1, 5, 64, 1000])
def test_outcomes_do_not_depend_on_how_the_input_is_cut(
    mixed: list[Packet | Rejected], expected: list[tuple[object, ...]], max_alerts: int, chunk: int
) -> None:
    chunks = [mixed[i : i + chunk] for i in range(0, len(mixed), chunk)]
    assert [key(outcome) for outcome in outcomes(chunks, Means(), max_alerts)] == expected


def test_each_outcome_has_its_own_triplet(mixed: list[Packet | Rejected]) -> None:
    for outcome in outcomes([mixed], Means(), 4):
        if outcome.triplet is not None:
            assert own_score(outcome.triplet[None])[0] == pytest.approx(outcome.drb)


def test_batches_are_full_but_for_the_last_of_a_chunk(mixed: list[Packet | Rejected]) -> None:
    scorer = Means()
    outcomes([mixed[:-1], [mixed[-1]]], scorer, 32)
    assert scorer.sizes == [32, 28, 32, 28]


def test_a_chunk_of_rejections_only_is_not_scored() -> None:
    scorer = Means()
    found = outcomes([[packet(b"bad")] * 3, [], [packet(b"")]], scorer)
    assert [outcome.verdict for outcome in found] == ["rejected"] * 4
    assert scorer.sizes == []


@pytest.mark.parametrize("fails_at", [0, 1, 3])
def test_a_fault_of_the_model_ends_the_run(mixed: list[Packet | Rejected], fails_at: int) -> None:
    with pytest.raises(ModelError, match="the device is gone"):
        outcomes([mixed], Means(fails_at), 8)


def test_whoever_stops_listening_leaves_no_thread(mixed: list[Packet | Rejected]) -> None:
    import threading

    limits, scorer = Limits(), Means()
    passes = Filter(0.5, None)
    reader = PacketReader(ZTF, scorer.manifest.channels, passes.fields, limits)
    run = Pipeline(reader, scorer, {"output": passes}, limits, 4).run([mixed])
    next(iter(run))
    run.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("score")]


def test_a_short_stamp_lies_top_left_among_masked_pixels(night: Path) -> None:
    image = np.arange(58 * 63, dtype=np.float32).reshape(58, 63)
    (outcome,) = outcomes([[packet(with_stamp(night, {"cutoutTemplate": fits(image)}))]], Means())
    assert outcome.triplet is not None
    np.testing.assert_array_equal(outcome.triplet[1, :58], image)
    assert np.isnan(outcome.triplet[1, 58:]).all()
    assert np.isfinite(outcome.triplet[0]).all()


def test_a_stamp_larger_than_the_models_is_rejected(night: Path) -> None:
    for shape in ((64, 63), (63, 64), (1, 64)):
        stamp = fits(np.zeros(shape, np.float32))
        (outcome,) = outcomes([[packet(with_stamp(night, {"cutoutScience": stamp}))]], Means())
        assert isinstance(outcome.item, Rejected)
        assert outcome.item.rejection.reason == "cutout_shape"
        assert "cutoutScience.stampData" in outcome.item.rejection.detail
        assert "63" in outcome.item.rejection.detail


def test_a_rejected_alert_keeps_its_bytes(night: Path) -> None:
    content = with_stamp(night, {"cutoutScience": b"broken"})
    (outcome,) = outcomes([[packet(content)]], Means())
    assert isinstance(outcome.item, Rejected)
    assert outcome.item.packet == content


def test_the_condition_sees_the_new_score_and_the_packets_fields(night: Path) -> None:
    where = "drb >= 0.2 and magpsf < 19 and drbversion = 'tiny1'"
    found = outcomes([[packet(night.read_bytes())]], Means(), where=where)
    for outcome, record in zip(found, records(night), strict=True):
        holds = outcome.drb >= 0.5 and record["candidate"]["magpsf"] < 19
        assert outcome.verdict == ("passed" if holds else "filtered")
    assert {outcome.verdict for outcome in found} == {"passed", "filtered"}
