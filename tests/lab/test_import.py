"""Sources of data sets: what comes out is what went in, and what can't be read is refused with words."""

import csv
import gzip
import json
import os
from collections.abc import Callable
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pytest
from astropy.io import fits
from bounds import bounded
from tiny import records, write_tar

from rbstream.lab.dataset import STAMPS, DataSet
from rbstream.lab.sources.find import open_inputs
from rbstream.lab.sources.source import Reading
from rbstream.lab.sources.write import Wanted, write
from rbstream.simulate import truth_path

Here = Callable[..., tuple[object, str, str]]


def made(here: Here, *arguments: object) -> DataSet:
    """The data set that `rbstream data` makes."""
    status, _, error = here("data", *map(str, arguments), "-o", "made")
    assert status == 0, error
    return DataSet("made")


def refused(here: Here, *arguments: object, status: int = 2) -> str:
    """What is said where `rbstream data import` refuses; nothing is left behind."""
    before = sorted(Path().rglob("*"))
    ended, out, error = here("data", "import", *map(str, arguments), "-o", "made")
    assert (ended, out) == (status, ""), error
    assert sorted(Path().rglob("*")) == before
    return error


def everything(data: DataSet) -> np.ndarray:
    return data.stamps(np.arange(len(data)))


def image_of(record: dict[str, Any], cutout: str) -> np.ndarray:
    """What astropy reads in a packet's stamp."""
    with fits.open(BytesIO(gzip.decompress(record[cutout]["stampData"]))) as hdus:
        return np.asarray(hdus[0].data, np.float32)


# ---- packets


def test_a_night_has_its_stamps_its_candidates_and_its_truth(here: Here, night: Path) -> None:
    data = made(here, "import", night)
    alerts = records(night)
    with truth_path(night).open() as file:
        truth = list(csv.DictReader(file))
    assert data.about.channels == ("science", "template", "difference")
    assert (len(data), data.about.size, data.about.survey) == (60, 63, "ztf")
    assert data.column("candid").tolist() == [alert["candid"] for alert in alerts]
    assert data.column("object").tolist() == [alert["objectId"] for alert in alerts]
    assert data.column("night").tolist() == [int(alert["candidate"]["jd"]) for alert in alerts]
    assert data.column("positive").tolist() == [int(alert["candidate"]["isdiffpos"] == "t") for alert in alerts]
    for name in ("magpsf", "fwhm"):
        np.testing.assert_allclose(data.column(name), [alert["candidate"][name] for alert in alerts], rtol=1e-6)
    assert data.column("label").tolist() == [float(row["real"]) for row in truth]
    assert data.column("kind").tolist() == [row["kind"] for row in truth]
    np.testing.assert_allclose(data.column("snr"), [float(row["snr"]) for row in truth], rtol=1e-5)
    assert set(data.column("label_source")) == {"simulated"}
    stamps = everything(data)
    for stamp, alert in zip(stamps, alerts, strict=True):
        for channel, cutout in enumerate(("cutoutScience", "cutoutTemplate", "cutoutDifference")):
            image = image_of(alert, cutout)
            np.testing.assert_array_equal(stamp[channel, : image.shape[0], : image.shape[1]], image)
            assert np.isnan(stamp[channel, image.shape[0] :]).all()


def test_without_its_truth_a_night_knows_its_asteroids_alone(here: Here, night: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.avro"
    alone.write_bytes(night.read_bytes())
    data = made(here, "import", alone)
    near = [0 <= alert["candidate"]["ssdistnr"] < 2 for alert in records(night)]
    assert any(near)
    np.testing.assert_array_equal(np.where(near, 1, np.nan), data.column("label"))
    assert set(data.column("label_source")) == {"", "known asteroid"}


def test_a_tar_and_a_folder_of_packets_are_the_same_alerts(here: Here, packets: list[bytes], tmp_path: Path) -> None:
    write_tar(tmp_path / "night.tar.gz", [(f"{i}.avro", packet) for i, packet in enumerate(packets[:5])], "w:gz")
    (tmp_path / "folder").mkdir()
    for i, packet in enumerate(packets[:5]):
        (tmp_path / f"folder/{i}.avro").write_bytes(packet)
    assert here("data", "import", "folder", "-o", "one")[0] == 0
    assert here("data", "import", "night.tar.gz", "-o", "other")[0] == 0
    assert Path("one", STAMPS).read_bytes() == Path("other", STAMPS).read_bytes()


def test_channels_are_chosen_by_name(here: Here, night: Path) -> None:
    data = made(here, "import", night, "--channels", "difference,science")
    assert data.about.channels == ("difference", "science")
    np.testing.assert_array_equal(everything(data)[0, 1], image_of(records(night)[0], "cutoutScience"))


def test_packets_that_cannot_be_read_are_counted_and_the_rest_goes_on(
    here: Here, packets: list[bytes], tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    for i, packet in enumerate(packets[:8]):
        (tmp_path / f"folder/{i}.avro").write_bytes(packet if i % 2 else packet[: 9_000 * i + 10])
    status, out, _ = here("data", "import", "folder", "-o", "made")
    assert status == 0
    assert "4 of 8 packets can't be read, more than rejects.max_ratio (20%) of them" in out
    assert len(DataSet("made")) == 4


def test_packets_of_which_none_can_be_read_are_no_data_set(here: Here, packets: list[bytes], tmp_path: Path) -> None:
    (tmp_path / "broken.avro").write_bytes(packets[0][:30_000])
    assert "1 of 1 packets can't be read" in refused(here, "broken.avro", status=1)


@pytest.mark.parametrize("kept", [0, 20, 500, 2000, 2010, 2020])
def test_a_truth_table_cut_short_is_refused(here: Here, night: Path, tmp_path: Path, kept: int) -> None:
    (tmp_path / "n.avro").write_bytes(night.read_bytes())
    (tmp_path / "n.truth.csv").write_text(truth_path(night).read_text()[:kept])
    assert "n.truth.csv" in refused(here, "n.avro", status=1)


def test_replayed_packets_keep_the_scores_of_the_survey(here: Here, shared_data: Path, bundle: Path) -> None:
    alerts = sorted((shared_data / "ztf/alerts").glob("kowalski__24754338502*"))
    assert here("replay", *map(str, alerts), "--model", str(bundle), "--threshold", "0", "-o", "replayed.avro")[0] == 0
    published = [records(path)[0]["candidate"]["drb"] for path in alerts]
    data = made(here, "import", "replayed.avro", "--soft-labels", "drb")
    np.testing.assert_allclose(data.column("drb"), published, rtol=1e-6)
    soft = data.column("label_source") == "drb"
    assert soft.any()
    np.testing.assert_array_equal(data.column("label")[soft], data.column("drb")[soft])


# ---- labels of a table


def test_a_table_of_labels_wins_and_says_what_it_met_nowhere(here: Here, night: Path, tmp_path: Path) -> None:
    candids = [alert["candid"] for alert in records(night)]
    lines = f"candid,label,source,kind\n{candids[0]},0.25,Anna,ghost\n{candids[1]},bogus,,\n17,real,,\n"
    (tmp_path / "mine.csv").write_text(lines)
    status, out, _ = here("data", "import", str(night), "--labels", "mine.csv", "-o", "made")
    assert status == 0
    assert "1 of its 3 candids" in out
    data = DataSet("made")
    with truth_path(night).open() as file:
        truth = list(csv.DictReader(file))
    assert data.column("label").tolist() == [0.25, 0.0] + [float(row["real"]) for row in truth[2:]]
    assert data.column("label_source").tolist() == ["Anna", "mine.csv"] + ["simulated"] * 58
    assert data.column("kind").tolist() == ["ghost"] + [row["kind"] for row in truth[1:]]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("candid,label\n17,1\n", "none of its 1 candids"),
        ("candid,class\n17,1\n", "has no column label"),
        ("candid,label\n17,1.5\n", "in [0, 1]"),
        ("candid,label\n17,maybe\n", "line 2"),
        ("candid,label\n17\n", "line 2"),
        ("candid,label\n17,0\n17,1\n", "line 3: candid 17 has another label above"),
        ("candid,label\n", "no label in it"),
    ],
)
def test_a_table_of_labels_that_is_none_is_refused(here: Here, night: Path, lines: str, said: str) -> None:
    Path("mine.csv").write_text(lines)
    assert said in refused(here, night, "--labels", "mine.csv")


def test_a_table_of_labels_that_is_not_there_is_refused(here: Here, night: Path) -> None:
    assert "mine.csv" in refused(here, night, "--labels", "mine.csv", status=1)


# ---- stacks


def stack(rows: int = 6, channels: int = 3, side: int = 12, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, channels, side, side)).astype(np.float32)


@pytest.mark.parametrize("suffix", ["npy", "npz", "compressed npz"])
@pytest.mark.parametrize("dtype", [np.float64, np.float16, ">f4", np.int16])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_stack_of_any_real_type_and_order_comes_out_as_it_is(here: Here, suffix: str, dtype: Any, order: Any) -> None:
    stamps = np.asarray(10 * stack(), dtype, order=order)
    if suffix == "npy":
        np.save("stack.npy", stamps)
    else:
        (np.savez if suffix == "npz" else np.savez_compressed)("stack.npz", whatever=stamps, more=np.arange(6))
    data = made(here, "import", f"stack.{suffix[-3:]}")
    np.testing.assert_array_equal(everything(data), stamps.astype(np.float32))
    assert np.isnan(data.column("label")).all()


def test_the_short_axis_is_that_of_the_channels(here: Here) -> None:
    np.save("last.npy", np.moveaxis(stack(channels=2), 1, -1))
    np.testing.assert_array_equal(
        everything(made(here, "import", "last.npy", "--channels", "new,old")), stack(channels=2)
    )


def test_a_stack_of_one_channel_needs_no_axis_for_it(here: Here) -> None:
    np.save("one.npy", stack()[:, 0])
    data = made(here, "import", "one.npy")
    assert data.about.channels == ("difference",)
    np.testing.assert_array_equal(everything(data)[:, 0], stack()[:, 0])


def test_where_no_axis_is_short_somebody_has_to_say_which(here: Here) -> None:
    np.save("small.npy", stack(side=5))
    assert "--layout nchw" in refused(here, "small.npy")
    np.testing.assert_array_equal(everything(made(here, "import", "small.npy", "--layout", "nchw")), stack(side=5))


def test_a_class_may_be_its_own_file(here: Here) -> None:
    np.save("a.npy", stack(4, seed=1))
    np.save("b.npy", stack(5, seed=2))
    np.save("c.npy", stack(2, seed=3))
    data = made(here, "import", "--real", "a.npy", "--bogus", "b.npy", "--bogus", "c.npy")
    assert data.column("label").tolist() == [1.0] * 4 + [0.0] * 7
    assert data.column("label_source").tolist() == ["a.npy"] * 4 + ["b.npy"] * 5 + ["c.npy"] * 2
    np.testing.assert_array_equal(
        everything(data), np.concatenate([stack(4, seed=1), stack(5, seed=2), stack(2, seed=3)])
    )


def test_arrays_with_the_names_of_columns_are_columns(here: Here) -> None:
    label, kind = [0, 1, 1, 0.5, np.nan, 0], ["a", "b", "", "c", "d", "e"]
    np.savez(
        "s.npz", x=stack(), y=label, kind=kind, candid=np.arange(6) + 100, magpsf=np.arange(6) + 15.0,
        objectId=["A"] * 6
    )  # fmt: skip
    data = made(here, "import", "s.npz")
    np.testing.assert_array_equal(data.column("label"), np.array(label, np.float32))
    assert data.column("label_source").tolist() == ["s.npz"] * 4 + ["", "s.npz"]
    assert data.column("kind").tolist() == kind
    assert data.column("candid").tolist() == list(range(100, 106))
    assert data.column("magpsf").tolist() == [15, 16, 17, 18, 19, 20]
    assert set(data.column("object")) == {"A"}


def test_the_real_triplets_import_whole(here: Here, shared_data: Path) -> None:
    path = shared_data / "ztf/stamps.npz"
    data, table = made(here, "import", path), np.load(path)
    stamps = table["stamps"]
    np.testing.assert_array_equal(everything(data), np.where(np.abs(stamps) < 1e30, stamps, np.nan))
    expected = np.where(table["asteroid"], 1, np.where(table["consensus"] < 0, np.nan, table["consensus"]))
    np.testing.assert_array_equal(data.column("label"), expected)
    source = np.where(table["asteroid"], "known asteroid", np.where(table["consensus"] < 0, "", "consensus"))
    assert data.column("label_source").tolist() == source.tolist()
    meta = [json.loads(text) for text in table["meta"]]
    assert data.column("candid").tolist() == table["candid"].tolist()
    assert data.column("object").tolist() == [row["objectId"] for row in meta]
    assert data.column("night").tolist() == [int(row["jd"]) for row in meta]
    assert data.column("positive").tolist() == [int(row["isdiffpos"] == "t") for row in meta]
    np.testing.assert_allclose(data.column("magpsf"), [row["magpsf"] for row in meta], rtol=1e-6)
    np.testing.assert_allclose(data.column("drb"), table["drb"], rtol=1e-6)


def test_soft_labels_win_over_consensus_but_not_over_truth(here: Here, shared_data: Path) -> None:
    path = shared_data / "ztf/stamps.npz"
    data, table = made(here, "import", path, "--soft-labels", "d6_m7,d6_m9"), np.load(path)
    mean = (table["d6_m7"].astype(float) + table["d6_m9"]) / 2
    np.testing.assert_allclose(data.column("label"), np.where(table["asteroid"], 1, mean), rtol=1e-6)
    assert set(data.column("label_source")) == {"known asteroid", "d6_m7+d6_m9"}


def test_rubins_stamps_of_many_sizes_are_cropped_around_their_own_middle(here: Here, shared_data: Path) -> None:
    path = shared_data / "other-surveys/lsst-stamps.npz"
    table = np.load(path)
    data = made(here, "import", path, "--crop", 21, "--soft-labels", "reliability")
    assert (data.about.survey, data.about.size, len(data)) == ("lsst", 21, 106)
    for stamp, whole, height in zip(everything(data), table["stamps"], table["shape"][:, 0, 0], strict=True):
        begin = height // 2 - 10
        np.testing.assert_array_equal(stamp, whole[:, begin : begin + 21, begin : begin + 21])
    asteroid = [json.loads(text)["ssObjectId"] > 0 for text in table["meta"]]
    assert (data.column("label")[asteroid] == 1).all()
    np.testing.assert_array_equal(data.column("label")[~np.array(asteroid)], table["reliability"][~np.array(asteroid)])


def test_the_whole_of_rubins_stamps_keeps_its_nan(here: Here, shared_data: Path) -> None:
    path = shared_data / "other-surveys/lsst-stamps.npz"
    np.testing.assert_array_equal(everything(made(here, "import", path)), np.load(path)["stamps"])


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": stack().astype(complex)}, "complex"),
        ({"x": stack().astype(str)}, "they have to be real numbers"),
        ({"x": np.empty((0, 3, 12, 12))}, "there are none"),
        ({"x": stack().reshape(6, -1)}, "N x H x W"),
        ({"a": stack(), "b": stack()}, "which are the stamps"),
        ({"y": [0, 1]}, "which are the stamps"),
        ({"x": stack(), "y": [0, 1]}, "'y' is (2,), for 6 stamps"),
        ({"x": stack(), "y": list("abcdef")}, "labels are numbers"),
        ({"x": stack(), "candid": list("abcdef")}, "'candid'"),
        ({"x": stack(), "kind": np.arange(6.0)}, "'kind'"),
        ({"x": stack(), "night": np.arange(6) << 40}, "int32 can't hold"),
        ({"x": stack(channels=7)}, "name them with --channels"),
        ({"x": stack(side=1100, rows=1, channels=1)}, "limits.cutout_side"),
    ],
)
def test_arrays_that_are_no_stamps_are_refused(here: Here, arrays: dict[str, Any], said: str) -> None:
    np.savez("s.npz", **arrays)
    assert said in refused(here, "s.npz")


@pytest.mark.parametrize("label", [-1, 1.5, np.inf])
def test_labels_outside_of_0_to_1_are_refused_with_their_row(here: Here, label: float) -> None:
    np.savez("s.npz", x=stack(), y=[0, 1, 0, label, 1, 1])
    assert "of row 3: labels have to be in [0, 1]" in refused(here, "s.npz", status=1)


@pytest.mark.parametrize("meta", ["{", "17", '{"jd": "today"}', '{"candid": "mine"}', '{"candid": 1e30}'])
def test_meta_that_is_no_candidate_is_refused(here: Here, meta: str) -> None:
    np.savez("s.npz", stamps=stack(), meta=[meta] * 6)
    assert "'meta' has to hold" in refused(here, "s.npz", status=1)


def test_nights_that_are_none_are_unknown(here: Here) -> None:
    days = [2459000.7, -1, 1e300]
    np.savez("s.npz", stamps=stack(3), meta=[json.dumps({"jd": day}) for day in days])
    assert made(here, "import", "s.npz").column("night").tolist() == [2459000, -1, -1]


def test_names_that_are_no_text_are_taken_all_the_same(here: Here) -> None:
    np.save("s.npy", stack())
    odd = b"odd \xff.npy"
    Path("s.npy").rename(os.fsdecode(odd))
    data = made(here, "import", "--real", os.fsdecode(odd))
    assert set(data.column("label_source")) == {"odd \N{REPLACEMENT CHARACTER}.npy"}


def test_pickled_arrays_are_refused_and_not_run(here: Here) -> None:
    class Mine:
        def __reduce__(self) -> Any:
            return open, ("run", "w")

    np.savez("s.npz", x=np.array([Mine()] * 3, object), allow_pickle=True)
    np.save("s.npy", np.array([Mine()] * 3, object), allow_pickle=True)
    assert "s.npz" in refused(here, "s.npz", status=1)
    assert "s.npy" in refused(here, "s.npy", status=1)
    assert not Path("run").exists()


@pytest.mark.parametrize("name", ["s.npy", "s.npz", "z.npz"])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99])
def test_a_stack_cut_short_is_refused(here: Here, name: str, kept: float) -> None:
    np.save("s.npy", stack(60))
    np.savez("s.npz", x=stack(60), y=np.ones(60))
    np.savez_compressed("z.npz", x=stack(60), y=np.ones(60))
    content = Path(name).read_bytes()
    Path(name).write_bytes(content[: int(len(content) * kept)])
    assert "cut short" in refused(here, name, status=1)


def test_a_stack_with_damaged_bytes_is_refused(here: Here) -> None:
    np.savez_compressed("z.npz", x=stack(600))
    content = bytearray(Path("z.npz").read_bytes())
    content[len(content) // 2] ^= 255
    Path("z.npz").write_bytes(content)
    assert "z.npz: can't be read" in refused(here, "z.npz", status=1)


def test_a_large_stack_takes_no_more_memory_than_a_part_of_it(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "zeros.npz", x=np.zeros((12_000, 63, 63), np.float32))  # 190 MB
    with bounded(mebibytes=120, seconds=60):
        inputs = open_inputs([str(tmp_path / "zeros.npz")], Reading())
        data, _ = write(inputs, tmp_path / "made", Wanted(), "importing")
    assert len(data) == 12_000


# ---- FITS cutouts


def write_fits(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.PrimaryHDU(image).writeto(path)


def test_channels_of_fits_cutouts_are_told_by_their_names(here: Here) -> None:
    stamps = stack(4)
    names = (("sci", ".fits"), ("ref", ".fits.gz"), ("diff", ".fit"))
    for row, stamp in enumerate(stamps):
        for (channel, suffix), image in zip(names, stamp, strict=True):
            write_fits(Path(f"cutouts/candid{9 - row}_x_{channel}{suffix}"), image)
    data = made(here, "import", "cutouts")
    assert data.about.channels == ("science", "template", "difference")
    assert data.column("candid").tolist() == [6, 7, 8, 9]  # in the order of their names
    np.testing.assert_array_equal(everything(data), stamps[::-1])
    one = here("data", "import", "cutouts", "--channels", "difference", "-o", "one")
    assert one[0] == 0
    np.testing.assert_array_equal(everything(DataSet("one")), stamps[::-1, 2:])


def test_classes_of_fits_cutouts_are_told_by_their_folders(here: Here) -> None:
    for row, image in enumerate(stack(6)[:, 0]):
        write_fits(Path(f"cutouts/{'real' if row < 2 else 'bogus'}/{row}.fits"), image)
    data = made(here, "import", "cutouts")
    assert data.column("label").tolist() == [1.0] * 2 + [0.0] * 4
    assert data.column("label_source").tolist() == ["cutouts/real"] * 2 + ["cutouts/bogus"] * 4
    np.testing.assert_array_equal(everything(data), stack(6)[:, :1])
    write_fits(Path("cutouts/6.fits"), stack(1)[0, 0])
    Path("made").rename("first")
    assert "of which class is it?" in refused(here, "cutouts")


def test_fits_cubes_have_all_channels_in_one_image(here: Here) -> None:
    for row, cube in enumerate(stack(3)):
        write_fits(Path(f"cutouts/{row}.fits"), cube.astype(np.float64))
    np.testing.assert_array_equal(everything(made(here, "import", "cutouts")), stack(3))


def test_short_cutouts_lie_top_left_among_whole_ones(here: Here) -> None:
    write_fits(Path("cutouts/0.fits"), stack(1)[0, 0, :9])
    write_fits(Path("cutouts/1.fits"), stack(1)[0, 0])
    short, whole = everything(made(here, "import", "cutouts"))
    np.testing.assert_array_equal(short[0, :9], whole[0, :9])
    assert np.isnan(short[0, 9:]).all()


def test_cutouts_that_do_not_go_together_are_refused(here: Here) -> None:
    write_fits(Path("lacking/0_sci.fits"), stack(1)[0, 0])
    write_fits(Path("lacking/0_diff.fits"), stack(1)[0, 0])
    write_fits(Path("lacking/1_sci.fits"), stack(1)[0, 0])
    assert "1 has no difference" in refused(here, "lacking")
    write_fits(Path("mixed/0.fits"), stack(1)[0])
    write_fits(Path("mixed/1.fits"), stack(1)[0, 0])
    assert "1 has 1, 0 has 3" in refused(here, "mixed")
    write_fits(Path("line/0.fits"), np.ones(5))
    assert "two axes" in refused(here, "line")


@pytest.mark.parametrize("suffix", [".fits", ".fits.gz"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_cutouts_cut_short_are_refused_by_name(here: Here, suffix: str, kept: float) -> None:
    write_fits(Path(f"cutouts/0{suffix}"), stack(1, side=63)[0, 0])
    path = Path(f"cutouts/1{suffix}")
    write_fits(path, stack(1, side=63)[0, 0])
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert f"cutouts/1{suffix}" in refused(here, "cutouts", status=1)


# ---- data sets, and all together


def test_data_sets_are_joined_with_all_that_is_known(here: Here, night: Path) -> None:
    assert here("data", "import", str(night), "-o", "one")[0] == 0
    assert here("data", "simulate", "--triplets", "20", "--seed", "5", "-o", "two")[0] == 0
    data, one, two = made(here, "import", "one", "two", "--split", "0.2,0.3"), DataSet("one"), DataSet("two")
    for name in ("object", "night", "label", "label_source", "kind", "magpsf", "fwhm", "snr", "drb", "positive"):
        both = np.concatenate([one.column(name), two.column(name)])
        np.testing.assert_array_equal(data.column(name), both)
    np.testing.assert_array_equal(everything(data), np.concatenate([everything(one), everything(two)]))
    assert data.about.split["validation"] == 0.2


def test_sources_that_do_not_go_together_are_refused(here: Here, night: Path) -> None:
    np.save("small.npy", stack())
    np.save("one.npy", stack(channels=1, side=63))
    assert "--crop 12 keeps the middle" in refused(here, night, "small.npy")
    assert "not all have as many channels" in refused(here, night, "one.npy")
    assert "at most the smallest" in refused(here, night, "small.npy", "--crop", "13")
    assert "has no channel new" in refused(here, night, "--channels", "new")
    assert "name each, once" in refused(here, "small.npy", "--channels", "difference")
    assert "given twice" in refused(here, "small.npy", "--real", "./small.npy")
    data = made(here, "import", night, "small.npy", "--crop", "12")
    assert data.shape == (3, 12, 12)
    whole = image_of(records(night)[0], "cutoutDifference")
    np.testing.assert_array_equal(everything(data)[0, 2], whole[25:37, 25:37])


def test_what_leads_to_nothing_is_refused(here: Here) -> None:
    Path("empty").mkdir()
    assert "no data set" in refused(here, "empty")
    assert "no such file" in refused(here, "nowhere.npz")
    assert "which sources" in refused(here)
    np.save("s.npy", stack())
    assert "more than 1 together" in refused(here, "s.npy", "--split", "0.6,0.6")
    assert "nothing here has a night" in refused(here, "s.npy", "--split-by", "night")
    assert "s.npy: has no array drb" in refused(here, "s.npy", "--soft-labels", "drb")
    Path("made").mkdir()
    assert "is there already" in refused(here, "s.npy")


def test_what_is_repeated_is_of_the_same_object_and_in_the_same_part(here: Here) -> None:
    np.save("s.npy", stack(20))
    data = made(here, "import", "s.npy", "--repeat", "5")
    assert len(data) == 100
    np.testing.assert_array_equal(everything(data), np.tile(stack(20), (5, 1, 1, 1)))
    assert (data.column("split").reshape(5, 20) == data.column("split")[:20]).all()


def test_the_same_import_has_the_same_bytes_and_leaves_its_input_alone(here: Here, night: Path) -> None:
    def digests(folder: Path) -> dict[str, str]:
        return {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}

    before = digests(night.parent)
    for name in ("one", "two"):
        assert here("data", "import", str(night), "-o", name)[0] == 0
    assert digests(Path("one")) == digests(Path("two"))
    assert digests(night.parent) == before


# ---- the simulator


def test_simulated_triplets_are_the_same_for_the_same_seed(here: Here) -> None:
    for name, seed in (("one", "7"), ("two", "7"), ("other", "8")):
        assert here("data", "simulate", "--triplets", "40", "--seed", seed, "-o", name)[0] == 0
    one, two, other = (everything(DataSet(name)) for name in ("one", "two", "other"))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)
    assert set(DataSet("one").column("label_source")) == {"simulated"}


def test_kinds_are_chosen_and_left_out(here: Here) -> None:
    data = made(here, "simulate", "--triplets", "40", "--kinds", "transient,cosmic_ray,ghost", "--without", "ghost")
    assert set(data.column("kind")) == {"transient", "cosmic_ray"}
    assert set(data.column("label")[data.column("kind") == "transient"]) == {1.0}
    status, _, error = here("data", "simulate", "--kinds", "ghost", "--without", "ghost", "-o", "none")
    assert (status, "no kind is left" in error) == (2, True)
    status, _, error = here("data", "simulate", "--kinds", "goblin", "-o", "none")
    assert (status, "kind goblin: not known" in error) == (2, True)


def test_injected_events_are_of_the_object_and_night_of_their_receiver(here: Here, night: Path) -> None:
    data = made(here, "inject", night, "--events", "50", "--seed", "2", "--receivers", "10")
    objects = {alert["objectId"]: int(alert["candidate"]["jd"]) for alert in records(night)}
    assert 1 < len(set(data.column("object"))) <= 10
    pairs = zip(data.column("object"), data.column("night"), strict=True)
    assert all(objects[name] == day for name, day in pairs)
    assert set(data.column("label_source")) == {"injected"}
    assert set(data.column("label")) == {0.0, 1.0}
    assert (data.column("snr") >= 5).all()


def test_injection_says_what_it_does_not_know_of_the_sign(here: Here, shared_data: Path) -> None:
    table = np.load(shared_data / "ztf/stamps.npz")
    np.save("s.npy", table["stamps"][:30])
    status, out, _ = here("data", "inject", "s.npy", "--events", "10", "-o", "made")
    assert status == 0
    assert "30 of 30 receivers don't tell" in out
    np.save("small.npy", stack())
    status, _, error = here("data", "inject", "small.npy", "-o", "none")
    assert (status, "events are injected into" in error) == (2, True)
    np.save("empty.npy", np.full((5, 3, 63, 63), np.nan, np.float32))
    status, _, error = here("data", "inject", "empty.npy", "-o", "none")
    assert (status, "no stamp here can receive an event" in error) == (2, True)


def test_records_of_other_schemas_are_said(here: Here, tmp_path: Path) -> None:
    schema = {"type": "record", "name": "other.alert", "fields": [{"name": "candid", "type": "long"}]}
    with (tmp_path / "other.avro").open("wb") as file:
        fastavro.writer(file, schema, [{"candid": 1}])
    assert "other.alert" in refused(here, "other.avro", status=1)


def test_stamps_without_any_data_are_left_out_when_asked(here, tmp_path):
    stamps = np.ones((6, 9, 9), np.float32)
    stamps[2] = np.nan
    np.savez(tmp_path / "s.npz", stamps=stamps, label=[1, 0, 1, 0, 1, 0], candid=range(6))
    status, output, _ = here("data", "import", "s.npz", "--drop-empty", "-o", "d")
    assert status == 0
    assert "1 stamps without data" in output
    with DataSet("d") as data:
        assert data.column("candid").tolist() == [0, 1, 3, 4, 5]
        assert data.column("label").tolist() == [1, 0, 0, 1, 0]
        assert np.isfinite(data.stamps(np.arange(5))).all()


def test_stacks_that_became_data_sets_and_are_joined_keep_their_scenes_apart(here, tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        stamps = np.random.default_rng(seed).normal(size=(4, 9, 9))
        np.savez(tmp_path / f"{name}.npz", stamps=stamps, label=[1, 0, 1, 0])
        assert here("data", "import", f"{name}.npz", "-o", name)[0] == 0
    assert here("data", "import", "a", "b", "-o", "joined")[0] == 0
    with DataSet("joined") as data:
        names = data.column("object").tolist()
    assert len(set(names)) == 8


def test_a_table_labels_the_rows_of_a_stack_by_their_number(here, tmp_path):
    np.save(tmp_path / "s.npy", np.random.default_rng(1).normal(size=(5, 9, 9)))
    (tmp_path / "t.csv").write_text("candid,label\n1,1\n3,0\n")
    assert here("data", "import", "s.npy", "--labels", "t.csv", "-o", "d")[0] == 0
    with DataSet("d") as data:
        assert data.column("candid").tolist() == [0, 1, 2, 3, 4]
        assert np.array_equal(data.column("label"), [np.nan, 1, np.nan, 0, np.nan], equal_nan=True)


def test_the_truth_of_a_night_labels_what_replay_made_of_it(here, night, bundle, tmp_path):
    assert (
        here("replay", str(night), "--model", str(bundle), "--threshold", "0", "-o", "out.avro", "--device", "cpu")[0]
        == 0
    )
    assert here("data", "import", "out.avro", "-o", "bare")[0] == 0
    assert here("data", "import", "out.avro", "--labels", str(truth_path(night)), "-o", "d")[0] == 0
    assert here("data", "import", str(night), "-o", "same")[0] == 0
    with DataSet("d") as data, DataSet("same") as same, DataSet("bare") as bare:
        assert data.column("label").tolist() == same.column("label").tolist()
        assert data.column("kind").tolist() == same.column("kind").tolist()
        assert np.isnan(bare.column("label")).sum() > 40
