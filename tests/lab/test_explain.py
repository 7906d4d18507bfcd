"""A network that looks at one known place, and the maps that have to find it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny import tiny_manifest, tiny_network, write_tiny
from torch import Tensor, nn

from rbstream.errors import UsageError
from rbstream.lab.dataset import DataWriter
from rbstream.lab.explain.examples import Selection
from rbstream.lab.explain.occlusion import occlusion
from rbstream.lab.explain.run import Request, explain
from rbstream.lab.explain.saliency import Saliency
from rbstream.model.bundle import Scorer, load_bundle
from rbstream.model.golden import golden_triplets
from rbstream.model.manifest import read_bundle
from rbstream.model.network import RealBogus
from rbstream.simulate import simulate_night

Call = Callable[..., tuple[object, str, str]]
Array = NDArray[np.float32]

SIZE = 17
CHANNELS = ("science", "template", "difference")
LOOKS_AT = 1
X, Y = 12, 4  # off-centre, and not where a swap of x and y, a flip or a rotation would put it
KERNELS = (1, 2, 3, 4, 5, 6, 8, SIZE)


class Zeroed(nn.Module):
    """No normalisation but for what is masked."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.nan_to_num(x)


class Masked(nn.Module):
    """1 where a pixel is masked."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.isnan(x).to(torch.float32)


class Filter(nn.Module):
    """A matched filter: the sum of weights (channels, size, size) times pixels."""

    weights: Tensor

    def __init__(self, weights: Array, bias: float) -> None:
        super().__init__()
        self.register_buffer("weights", torch.from_numpy(weights))
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.weights).sum(dim=(1, 2, 3)) + self.bias


def source(x: int = X, y: int = Y, channel: int = LOOKS_AT) -> Array:
    """One channel's source with a tail to one side and a fainter one downwards, peak 1 DN at (x, y)."""
    stamps = np.zeros((3, SIZE, SIZE), np.float32)
    for dx, dy, flux in ((0, 0, 1.0), (1, 0, 0.6), (2, 0, 0.3), (0, -1, 0.4), (-1, 0, 0.2)):
        if 0 <= x + dx < SIZE and 0 <= y + dy < SIZE:
            stamps[channel, y + dy, x + dx] = flux
    return stamps


def write_filter(path: Path, weights: Array, normalize: nn.Module | None = None, bias: float = -0.8) -> Path:
    return write_tiny(path, RealBogus(normalize or Zeroed(), Filter(weights, bias)), size=SIZE, threshold=0.5)


def peak(values: Array) -> tuple[int, int]:
    """x and y of the one pixel with the largest value."""
    assert (values == values.max()).sum() == 1
    y, x = np.unravel_index(values.argmax(), values.shape)
    return int(x), int(y)


@pytest.fixture(scope="module")
def looker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that looks for the source at its place, and nowhere else."""
    return write_filter(tmp_path_factory.mktemp("looker") / "looker.pt", source())


@pytest.fixture(scope="module")
def scorer(looker: Path) -> Scorer:
    return load_bundle(looker)


def sky(seed: int) -> Array:
    return np.random.default_rng(seed).normal(0, 0.02, (3, SIZE, SIZE)).astype(np.float32)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_occlusion_map_peaks_at_the_source_in_its_channel_alone(scorer: Scorer, kernel: int) -> None:
    stamps = source() + sky(1)
    maps = occlusion(scorer, stamps, kernel)
    assert peak(maps[LOOKS_AT]) == (X, Y)
    before = scorer.score(stamps[None])[0]
    hidden = stamps.copy()
    hidden[LOOKS_AT] = 0
    lost = before - scorer.score(hidden[None])[0]
    assert lost > 0.2
    assert 0.4 * lost < maps[LOOKS_AT].max() <= lost + 0.05  # the noise may speak against
    others = [channel for channel in range(3) if channel != LOOKS_AT]
    assert np.abs(maps[others]).max() < 1e-6


@pytest.mark.parametrize(("x", "y"), [(0, 0), (SIZE - 1, 0), (0, SIZE - 1), (SIZE - 1, SIZE - 1), (1, 9)])
def test_a_single_pixel_is_found_at_borders_and_corners(tmp_path: Path, x: int, y: int) -> None:
    stamps = np.zeros((3, SIZE, SIZE), np.float32)
    stamps[2, y, x] = 1
    scorer = load_bundle(write_filter(tmp_path / "b.pt", stamps))
    for kernel in (1, 2, 3, 4, 5, 6, 8):
        assert peak(occlusion(scorer, stamps, kernel)[2]) == (x, y)


@pytest.mark.parametrize("kernel", [2, 3, 4, 5])
def test_mirrored_stamps_have_mirrored_maps(tmp_path: Path, kernel: int) -> None:
    stamps, weights = source() + sky(2), sky(3) * 20
    maps = occlusion(load_bundle(write_filter(tmp_path / "a.pt", weights)), stamps, kernel)
    mirrored_weights, mirrored_stamps = (np.ascontiguousarray(each[:, ::-1, ::-1]) for each in (weights, stamps))
    mirrored = occlusion(load_bundle(write_filter(tmp_path / "b.pt", mirrored_weights)), mirrored_stamps, kernel)
    assert np.abs(maps).max() > 0.01
    assert np.allclose(mirrored[:, ::-1, ::-1], maps, atol=1e-6)


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 2), (4, 4), (5, 3), (8, 5)])
def test_with_a_stride_every_pixel_is_hidden_and_the_peak_is_within_a_step_of_the_source(
    scorer: Scorer, kernel: int, stride: int
) -> None:
    maps = occlusion(scorer, source(), kernel, stride)
    assert np.isfinite(maps).all()
    y, x = np.nonzero(maps[LOOKS_AT] == maps[LOOKS_AT].max())
    assert np.maximum(np.abs(x - X), np.abs(y - Y)).min() <= stride
    assert len(x) <= stride**2


def test_occlusion_gives_what_a_single_hidden_pixel_costs(scorer: Scorer) -> None:
    stamps = source() + sky(4)
    maps = occlusion(scorer, stamps, 1)
    hidden = stamps.copy()
    hidden[LOOKS_AT, Y, X + 1] = 0
    expected = scorer.score(stamps[None])[0] - scorer.score(hidden[None])[0]
    assert maps[LOOKS_AT, Y, X + 1] == pytest.approx(expected, abs=1e-6)


def test_what_is_masked_is_not_hidden_but_stays_masked(tmp_path: Path) -> None:
    counter = load_bundle(write_filter(tmp_path / "b.pt", np.full((3, SIZE, SIZE), 0.1, np.float32), Masked()))
    stamps = sky(5)
    stamps[:, 3:9, 2:7] = np.nan
    assert np.abs(occlusion(counter, stamps, 3)).max() == 0


def test_a_hole_in_the_sky_is_evidence_unless_the_median_fills_it(scorer: Scorer) -> None:
    level = np.float32(0.2)
    stamps = source() + level
    zero, median = occlusion(scorer, stamps, 1), occlusion(scorer, stamps, 1, fill="median")
    assert peak(zero[LOOKS_AT]) == peak(median[LOOKS_AT]) == (X, Y)
    filled = stamps.copy()
    filled[LOOKS_AT, Y, X] = level
    expected = scorer.score(np.stack([stamps, filled]))
    assert median[LOOKS_AT, Y, X] == pytest.approx(expected[0] - expected[1], abs=1e-6)
    assert zero[LOOKS_AT, Y, X] > median[LOOKS_AT, Y, X] + 0.01


@pytest.mark.parametrize(("kernel", "stride"), [(0, 1), (SIZE + 1, 1), (3, 0), (3, 4)])
def test_kernels_and_strides_that_cant_be_are_refused(
    looker: Path, scorer: Scorer, tmp_path: Path, kernel: int, stride: int
) -> None:
    with pytest.raises(ValueError, match="not in 1 to"):
        occlusion(scorer, source(), kernel, stride)
    with pytest.raises(UsageError, match=r"--(kernel|stride)"):
        explain(looker, [write_data(tmp_path / "d")], tmp_path / "out", Request(kernel=kernel, stride=stride))


def test_saliency_is_the_filter_itself_and_peaks_at_the_source(looker: Path) -> None:
    maps = Saliency(read_bundle(looker), "cpu")(source() + sky(7))
    assert peak(maps[LOOKS_AT]) == (X, Y)
    assert np.allclose(maps, np.abs(source()))


def test_saliency_agrees_with_finite_differences_through_the_normalisation(tmp_path: Path) -> None:
    bundle = read_bundle(write_tiny(tmp_path / "tiny.pt", tiny_network(gain=1.0)))
    network = tiny_network(gain=1.0).double().eval()
    stamps = bundle.golden[2]
    slopes = Saliency(bundle, "cpu")(stamps)

    def logit(pixels: Array) -> float:
        x = network.normalize(torch.from_numpy(pixels[None].astype(np.float64)))
        return float(network.network(x).detach())

    for channel, y, x in ((0, 31, 31), (1, 5, 60), (2, 44, 12)):
        low, high = stamps.astype(np.float64), stamps.astype(np.float64)
        low[channel, y, x] -= 0.01
        high[channel, y, x] += 0.01
        expected = abs(logit(high) - logit(low)) / 0.02
        assert slopes[channel, y, x] == pytest.approx(expected, rel=1e-3)


def test_saliency_is_zero_where_there_is_no_data_and_nan_where_there_is_no_slope(tmp_path: Path) -> None:
    saliency = Saliency(read_bundle(write_tiny(tmp_path / "tiny.pt")), "cpu")
    stamps = golden_triplets(tiny_manifest())[3]
    stamps[0, :10] = np.nan
    stamps[1, 5, 5] = -3.4e38
    stamps[2] = 0  # has no norm: the graph divides by 1 instead
    slopes = saliency(stamps)
    assert (slopes[0, :10] == 0).all()
    assert slopes[1, 5, 5] == 0
    assert np.isfinite(slopes[:2]).all()
    assert slopes[0, 10:].max() > 0
    assert np.isnan(slopes[2]).all()


def test_slopes_of_the_shipped_network_are_finite_on_golden_triplets() -> None:
    bundle = read_bundle(Path(__file__).parents[2] / "models" / "rbnet.pt")
    saliency = Saliency(bundle, "cpu")
    for stamps in bundle.golden:  # some masked, cut short, filled with -3.4e38, all masked
        slopes = saliency(stamps)
        assert np.isfinite(slopes).all()
        assert (slopes.max() > 0) == bool(np.isfinite(stamps).any())


def test_slopes_of_braai_are_finite_on_real_triplets(shared_data: Path, tmp_path: Path) -> None:
    from rbstream.model.keras import import_keras

    import_keras(shared_data / "braai" / "d6_m7.h5", tmp_path / "m7.pt", "l2-row")
    saliency = Saliency(read_bundle(tmp_path / "m7.pt"), "cpu")
    stamps = np.load(shared_data / "ztf" / "stamps.npz")["stamps"]
    masked = np.flatnonzero(np.isnan(stamps).any(axis=(1, 2, 3)))
    for number in [0, 1, 2, *masked[:10].tolist()]:
        assert np.isfinite(saliency(stamps[number])).all()


# The command.


def write_data(path: Path, size: int = SIZE, label: float | None = None) -> Path:
    """Twelve alerts, all in the test part. Rows 0 to 5 have a source where the network looks, the rest have not; the
    labels of rows 4 and 9 are wrong; row 11 has none."""
    stamps = np.stack([sky(10 + i) + (source() if i < 6 else 0) for i in range(12)])[:, :, :size, :size]
    labels = np.array([1, 1, 1, 1, 0, 1, 0, 0, 0, 1, 0, np.nan]) if label is None else np.full(12, label)
    with DataWriter(path, CHANNELS, size, "ztf", {"test": True}) as writer:
        writer.add(stamps, label=labels, kind=[f"kind {i % 2}" for i in range(12)])
        writer.commit({"validation": 0, "test": 1})
    return path


def read(folder: Path) -> dict[str, Any]:
    numbers: dict[str, Any] = json.loads((folder / "explain.json").read_text())
    return numbers


def test_the_command_explains_rows_with_pictures_and_numbers(here: Call, looker: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    status, out, err = here(
        "model", "explain", str(looker), str(data), "-o", "out", "--select", "7,0-2", "--kernel", "4"
    )
    assert (status, err) == (0, "")
    assert "4 alerts explained" in out
    numbers = read(Path("out"))
    assert [alert["number"] for alert in numbers["alerts"]] == [7, 0, 1, 2]
    assert {path.name for path in Path("out").iterdir()} == {
        "explain.json", "mean.png", *(alert["picture"] for alert in numbers["alerts"]),
    }  # fmt: skip
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in Path("out").glob("*.png"))
    for alert in numbers["alerts"][1:]:
        assert (alert["label"], alert["score"] > 0.5) == (1, True)
        found = alert["occlusion"]["template"]["highest"]
        assert (found["x"], found["y"]) == (X, Y)
        assert found["value"] > 0.1
        for channel in ("science", "difference"):
            assert abs(alert["occlusion"][channel]["highest"]["value"]) < 1e-6
        assert alert["saliency"]["template"]["highest"] == {"x": X, "y": Y, "value": pytest.approx(1)}
    means = numbers["means"]
    assert {name: mean["alerts"] for name, mean in means.items()} == {
        "labelled real": 3, "labelled bogus": 1, "called real": 3, "called bogus": 1,
    }  # fmt: skip
    average = means["labelled real"]["occlusion"]["template"]["highest"]
    assert (average["x"], average["y"]) == (X, Y)
    each = [alert["occlusion"]["template"]["highest"]["value"] for alert in numbers["alerts"][1:]]
    assert average["value"] == pytest.approx(np.mean(each))


def test_the_same_input_gives_the_same_bytes(looker: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    for name in ("a", "b"):
        explain(looker, [data], tmp_path / name, Request(limit=2))
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("a", "b"))
    assert first == second
    assert str(tmp_path) not in first["explain.json"].decode()


def test_misclassified_are_those_whose_label_is_on_the_other_side_the_most_wrong_first(
    here: Call, looker: Path, tmp_path: Path
) -> None:
    data = write_data(tmp_path / "data")
    status, out, _ = here("model", "explain", str(looker), str(data), "-o", "out", "--select", "misclassified")
    assert status == 0
    numbers = read(Path("out"))
    wrong = [abs(alert["score"] - alert["label"]) for alert in numbers["alerts"]]
    assert sorted(alert["number"] for alert in numbers["alerts"]) == [4, 9]
    assert wrong == sorted(wrong, reverse=True)
    assert (numbers["labelled"], numbers["found"]) == (11, 2)
    status, out, _ = here(
        "model", "explain", str(looker), str(data), "-o", "one", "--select", "misclassified", "--limit", "1"
    )
    assert [a["number"] for a in read(Path("one"))["alerts"]] == [numbers["alerts"][0]["number"]]
    assert "1 of 2 alerts explained (misclassified, of 11 labelled)" in out


def test_confident_wrong_are_only_those_beyond_99_per_cent(tmp_path: Path) -> None:
    sure = write_filter(tmp_path / "sure.pt", source() * 10, bias=-8)
    data = write_data(tmp_path / "data")
    summary = explain(sure, [data], tmp_path / "out", Request(Selection("confident-wrong")))
    scores = {alert["number"]: alert["score"] for alert in summary.numbers["alerts"]}
    assert sorted(scores) == [4, 9]
    assert scores[4] > 0.99
    assert scores[9] < 0.01
    unsure = explain(write_filter(tmp_path / "unsure.pt", source()), [data], tmp_path / "none", Request(
        Selection("confident-wrong")
    ))  # fmt: skip
    assert unsure.chosen == ([], 0, 11)


def test_nothing_misclassified_is_said_and_writes_nothing(here: Call, looker: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    status, out, _ = here(
        "model", "explain", str(looker), str(data), "-o", "out", "--select", "misclassified", "--threshold", "0"
    )
    assert status == 0  # at 0 all are called real: the five boguses are wrong
    assert len(read(Path("out"))["alerts"]) == 5
    real = write_data(tmp_path / "real", label=1)
    status, out, _ = here(
        "model", "explain", str(looker), str(real), "-o", "none", "--select", "misclassified", "--threshold", "0"
    )
    assert status == 0
    assert "none is misclassified of 12 labelled alerts" in out
    assert not Path("none").exists()


def test_without_a_selection_rows_are_spread_over_the_part(looker: Path, tmp_path: Path) -> None:
    summary = explain(looker, [write_data(tmp_path / "data")], tmp_path / "out", Request(limit=3))
    assert [alert["number"] for alert in summary.numbers["alerts"]] == [0, 6, 11]  # 5.5 rounds to even
    assert summary.numbers["alerts"][2]["label"] is None


def test_single_channel_stamps_are_explained_as_well(tmp_path: Path) -> None:
    weights = source()[LOOKS_AT : LOOKS_AT + 1]
    manifest = {"size": SIZE, "channels": ("coadd",), "survey": "other"}
    bundle = write_tiny(tmp_path / "b.pt", RealBogus(Zeroed(), Filter(weights, -0.8)), **manifest)
    with DataWriter(tmp_path / "data", ("coadd",), SIZE, "other", {}) as writer:
        writer.add(weights[None], label=1)
        writer.commit({"validation": 0, "test": 1})
    summary = explain(bundle, [tmp_path / "data"], tmp_path / "out")
    found = summary.numbers["alerts"][0]["occlusion"]["coadd"]["highest"]
    assert (found["x"], found["y"]) == (X, Y)


def test_packets_are_explained_by_their_place_with_the_truth_beside_them(here: Call, bundle: Path, night: Path) -> None:
    common = ("model", "explain", str(bundle), str(night), "--kernel", "21", "--stride", "21")
    status, out, err = here(*common, "-o", "out", "--select", "41,3")
    assert (status, err) == (0, "")
    lines = night.with_name("night.truth.csv").read_text().splitlines()[1:]
    for alert, line in zip(read(Path("out"))["alerts"], (lines[41], lines[3]), strict=True):
        candid, name, real, kind = line.split(",")[:4]
        assert [alert["candid"], alert["object"], alert["label"], alert["kind"]] == [int(candid), name, int(real), kind]
    here("replay", str(night), "--model", str(bundle), "--scores", "s.csv", "--device", "cpu")
    scores = Path("s.csv").read_text().splitlines()[1:]
    assert read(Path("out"))["alerts"][0]["score"] == pytest.approx(float(scores[41].split(",")[3]), abs=1e-6)
    status, out, _ = here(*common, "-o", "wrong", "--select", "misclassified", "--limit", "2")
    assert status == 0
    assert "of 60 labelled" in out


def test_packets_without_truth_have_no_misclassified(here: Call, bundle: Path, tmp_path: Path) -> None:
    simulate_night(tmp_path / "n.avro", 3, 1)
    (tmp_path / "n.truth.csv").unlink()
    status, _, err = here(
        "model", "explain", str(bundle), str(tmp_path / "n.avro"), "-o", "out", "--select", "misclassified"
    )
    assert status == 2
    assert "no alert here has a label" in err
    assert not Path("out").exists()


def test_rejected_packets_are_counted_and_cant_be_selected(here: Call, bundle: Path, packets: list[bytes]) -> None:
    Path("in").mkdir()
    for name, content in (("0.avro", packets[0]), ("1.avro", packets[1][:3000]), ("2.avro", packets[2])):
        Path("in", name).write_bytes(content)
    common = ("model", "explain", str(bundle), "in", "--kernel", "30", "--stride", "30")
    status, out, _ = here(*common, "-o", "out")
    assert status == 0
    assert "1 rejected, which have no stamps to look at" in out
    assert [alert["number"] for alert in read(Path("out"))["alerts"]] == [0, 2]
    status, _, err = here(*common, "-o", "other", "--select", "1")
    assert status == 2
    assert "1.avro" in err
    assert "was rejected" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("DATA", "--select", "12"), "has rows 0 to 11"),
        (("NIGHT", "--select", "60"), "60 alerts in the packets"),
        (("DATA", "--select", "5-2"), "numbers such as"),
        (("DATA", "--select", "worst"), "numbers such as"),
        (("DATA", "--select", "0-99999999"), "more than 10,000"),
        (("DATA", "--limit", "0"), "at least 1"),
        (("DATA", "--threshold", "1.5"), "scores are from 0 to 1"),
        (("DATA", "--part", "train"), "part train is empty"),
        (("NIGHT", "--part", "test"), "packets have no parts"),
        (("DATA", "NIGHT"), "is a data set; one alone"),
        (("nothing.avro",), "no such file"),
        (("OTHER",), "of 16x16"),
        (("stack.npy",), "`rbstream data import` makes one"),
    ],
)
def test_what_cant_be_explained_is_refused_with_words(
    here: Call, looker: Path, bundle: Path, night: Path, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    paths = {"DATA": write_data(tmp_path / "data"), "OTHER": write_data(tmp_path / "o", size=16), "NIGHT": night}
    model = bundle if arguments[0] == "NIGHT" else looker
    status, _, err = here("model", "explain", str(model), *(str(paths.get(a, a)) for a in arguments), "-o", "out")
    assert status == (1 if "train" in arguments else 2)
    assert words in err
    assert not Path("out").exists()


def test_a_folder_that_is_there_is_not_written_into(here: Call, looker: Path, tmp_path: Path) -> None:
    Path("out").mkdir()
    status, _, err = here("model", "explain", str(looker), str(write_data(tmp_path / "data")), "-o", "out")
    assert status == 2
    assert "is there already" in err
    assert not list(Path("out").iterdir())
