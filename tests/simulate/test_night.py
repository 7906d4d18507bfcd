"""A simulated night, read back with other people's software and held against ZTF's own packets."""

import csv
import gzip
import io
import json
from pathlib import Path

import fastavro
import numpy as np
import pytest
from astropy.io import fits

from rbstream.files import data_path
from rbstream.simulate import TRUTH, simulate_night, truth_path

ALERTS, SEED = 300, 7
STAMPS = ("cutoutScience", "cutoutTemplate", "cutoutDifference")


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    path = tmp_path_factory.mktemp("night") / "night.avro"
    simulate_night(path, ALERTS, SEED)
    return path


@pytest.fixture(scope="module")
def packets(night):
    with open(night, "rb") as file:
        return list(fastavro.reader(file))


@pytest.fixture(scope="module")
def truth(night):
    with open(truth_path(night), newline="") as table:
        return list(csv.DictReader(table))


def without_docs(schema):
    if isinstance(schema, dict):
        return {key: without_docs(value) for key, value in schema.items() if key != "doc"}
    return [without_docs(item) for item in schema] if isinstance(schema, list) else schema


def embedded_schema(path):
    with open(path, "rb") as file:
        return json.loads(fastavro.reader(file).metadata["avro.schema"])


def candidate_fields(schema):
    (candidate,) = (field for field in schema["fields"] if field["name"] == "candidate")
    branches = candidate["type"] if isinstance(candidate["type"], list) else [candidate["type"]]
    return {f["name"] for branch in branches if isinstance(branch, dict) for f in branch["fields"]}


def test_the_same_seed_gives_the_same_bytes(night, tmp_path):
    again = tmp_path / "again.avro"
    simulate_night(again, ALERTS, SEED)
    assert again.read_bytes() == night.read_bytes()
    assert truth_path(again).read_bytes() == truth_path(night).read_bytes()


def test_another_seed_gives_other_stamps(night, tmp_path):
    simulate_night(tmp_path / "other.avro", 5, SEED + 1)
    with open(tmp_path / "other.avro", "rb") as file:
        other = next(iter(fastavro.reader(file)))
    with open(night, "rb") as file:
        first = next(iter(fastavro.reader(file)))
    assert other["cutoutScience"]["stampData"] != first["cutoutScience"]["stampData"]


def test_the_schema_is_ztfs_4_02_field_by_field(shared_data):
    published = embedded_schema(shared_data / "ztf/alerts/boom__2695378462115010012.avro")
    ours = json.loads(data_path("schemas/ztf.alert.avsc").read_text())
    assert without_docs(ours) == without_docs(published)


def test_the_candidate_has_every_field_of_every_ztf_schema(shared_data):
    ours = candidate_fields(json.loads(data_path("schemas/ztf.alert.avsc").read_text()))
    for path in sorted((shared_data / "ztf/alerts").glob("*.avro")):
        missing = candidate_fields(embedded_schema(path)) - ours
        assert not missing, f"{path.name}: {missing}"


def test_every_packet_is_one_block_without_compression(night):
    with open(night, "rb") as file:
        blocks = list(fastavro.block_reader(file))
    assert [block.num_records for block in blocks] == [1] * ALERTS
    assert {block.codec for block in blocks} == {"null"}


def test_stamps_are_one_header_block_of_fits(packets, truth):
    for packet, row in zip(packets, truth, strict=True):
        rows, columns = int(row["rows"]), int(row["columns"])
        for name in STAMPS:
            zipped = packet[name]["stampData"]
            assert zipped[:4] == bytes.fromhex("1f8b0800")  # deflate, without a name
            assert zipped[4:8] == bytes(4)  # without a time
            data = gzip.decompress(zipped)
            if (rows, columns) == (63, 63):
                assert len(data) == 20_160
            with fits.open(io.BytesIO(data)) as hdus:
                assert hdus[0].header["BITPIX"] == -32
                assert hdus[0].data.shape == (rows, columns)


def test_the_truth_table_has_a_row_for_each_packet_in_its_order(packets, truth):
    assert tuple(truth[0]) == TRUTH
    assert len(truth) == len(packets) == ALERTS
    for packet, row in zip(packets, truth, strict=True):
        assert packet["candid"] == packet["candidate"]["candid"] == int(row["candid"])
        assert packet["objectId"] == row["objectId"]
        assert packet["candidate"]["magpsf"] == pytest.approx(float(row["magpsf"]), abs=1e-3)
        assert packet["candidate"]["isdiffpos"] == row["isdiffpos"]
    assert len({packet["candid"] for packet in packets}) == ALERTS


def test_every_alert_was_detected_at_5_sigma(truth):
    assert min(float(row["snr"]) for row in truth) >= 5


def test_a_negative_difference_is_stored_sign_flipped(packets):
    for packet in packets:
        with fits.open(io.BytesIO(gzip.decompress(packet["cutoutDifference"]["stampData"]))) as hdus:
            image = hdus[0].data
        if image.shape == (63, 63):
            # Bright whichever way round: a single pixel of a line or a rim can be in its noise.
            assert np.nansum(image[29:34, 29:34]) > 0 or np.nanmax(image[29:34, 29:34]) > 3 * np.nanstd(image)


def test_most_of_the_history_are_upper_limits(packets):
    history = [entry for packet in packets for entry in packet["prv_candidates"]]
    lengths = [len(packet["prv_candidates"]) for packet in packets]
    assert min(lengths) >= 20
    assert max(lengths) <= 65
    assert np.mean([entry["candid"] is None for entry in history]) > 0.5
    assert all(entry["jd"] < packet["candidate"]["jd"] for packet in packets for entry in packet["prv_candidates"])


def test_identifiers_follow_ztfs_scheme(packets):
    for packet in packets:
        candidate = packet["candidate"]
        sign = 15_000 if candidate["isdiffpos"] == "t" else 10_000
        assert candidate["candid"] == candidate["pid"] * 1_000_000 + sign + candidate["tblid"]
        assert candidate["pid"] // 10_000 == round((candidate["jd"] - 2457754.5) * 1e5)
        assert candidate["pid"] // 100 % 100 == candidate["rcid"]


def test_nobody_has_scored_it(packets):
    assert {(p["candidate"]["drb"], p["candidate"]["drbversion"]) for p in packets} == {(None, "")}


def test_an_interrupted_run_leaves_nothing(tmp_path):
    def interrupt(written: int) -> None:
        if written == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate_night(tmp_path / "night.avro", 10, 1, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("alerts", "seed"), [(0, 1), (-1, 1), (1, -1)])
def test_no_alerts_and_negative_seeds_are_refused(tmp_path: Path, alerts, seed):
    with pytest.raises(ValueError, match="at least"):
        simulate_night(tmp_path / "night.avro", alerts, seed)
