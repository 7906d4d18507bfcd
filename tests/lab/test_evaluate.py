"""`rbstream model evaluate`, on data sets whose scores are known: each stamp is flat, at the logit of its score."""

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk
from test_report_browser import visit
from tiny import tiny_manifest, write_tiny
from torch import Tensor, nan_to_num, nn

from rbstream.lab.dataset import DataSet, DataWriter
from rbstream.lab.evaluate.gallery import MOST, galleries, galleries_of_two
from rbstream.lab.evaluate.scores import read_part
from rbstream.model.bundle import load_bundle
from rbstream.model.manifest import read_bundle
from rbstream.model.network import RealBogus

Call = Callable[..., tuple[object, str, str]]

SIZE, CHANNELS = 9, ("science", "difference")


class Unmasked(nn.Module):
    def forward(self, triplets: Tensor) -> Tensor:
        return nan_to_num(triplets)


def write_mean(path: Path, channel: int, version: str, **changes: Any) -> Path:
    """A bundle whose score is the sigmoid of the mean of one channel."""
    network = nn.Sequential(nn.AvgPool2d(SIZE), nn.Flatten(), nn.Linear(len(CHANNELS), 1))
    network[2].weight.data[:] = 0
    network[2].weight.data[0, channel] = 1
    network[2].bias.data[:] = 0
    values = {"size": SIZE, "channels": CHANNELS, "version": version} | changes
    return write_tiny(path, RealBogus(Unmasked(), network), **values)


def write_flat(path: Path, scores: np.ndarray, split: dict[str, Any] | None = None, **columns: Any) -> None:
    """A data set with the scores (n, 2) that bundles of either channel will give."""
    scores = scores.astype(np.float64)
    logit = np.log(scores) - np.log1p(-scores)
    stamps = np.broadcast_to(logit[:, :, None, None], (*logit.shape, SIZE, SIZE))
    with DataWriter(path, CHANNELS, SIZE, "ztf", {"made": "flat"}) as writer:
        writer.add(stamps.astype(np.float32), **columns)
        writer.commit(split or {"validation": 0.4, "test": 0.6}).close()


def drawn(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores (n, 2) of two unlike networks, and truth (n,): three of ten are real."""
    rng = np.random.default_rng(seed)
    real = rng.random(n) < 0.3
    scores = np.where(real[:, None], rng.beta(4, 1, (n, 2)), rng.beta(1, 5, (n, 2)))
    return scores.clip(1e-4, 1 - 1e-4), real


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mean(tmp_path_factory.mktemp("first") / "first.pt", 0, "first1")


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mean(tmp_path_factory.mktemp("second") / "second.pt", 1, "second1")


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,500 alerts of 500 objects, with kinds, magnitudes and masks."""
    path = tmp_path_factory.mktemp("data") / "flat"
    scores, real = drawn(1500, 7)
    rng = np.random.default_rng(8)
    kind = np.where(real, rng.choice(["transient", "variable"], 1500), rng.choice(["cosmic_ray", "streak"], 1500))
    objects = np.array([f"ZTF{number}" for number in rng.integers(500, size=1500)], object)
    write_flat(
        path, scores, label=real.astype(float), kind=kind, object=objects, label_source="drawn",
        magpsf=rng.uniform(15, 20, 1500), fwhm=rng.normal(2.2, 0.3, 1500),
    )  # fmt: skip
    return path


def evaluated(here: Call, *arguments: object) -> dict[str, Any]:
    """What `--json` prints; nothing else may be printed."""
    status, out, err = here("model", "evaluate", *map(str, arguments), "--json")
    assert (status, err) == (0, "")
    found: dict[str, Any] = json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    return found


def scores_of(bundle: Path, data: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    with DataSet(data) as opened:
        found = read_part(opened, part)
        return load_bundle(bundle).score(opened.stamps(found.rows)), found.real


def test_the_threshold_is_chosen_on_validation_and_reported_on_test(here: Call, first: Path, flat: Path) -> None:
    found = evaluated(here, first, flat, "--fpr", 0.05)
    (model,) = found["models"]
    threshold = np.float32(model["choice"]["threshold"]["value"])
    score, real = scores_of(first, flat, "validation")
    assert (score[~real] >= threshold).mean() == model["choice"]["fpr"] <= 0.05
    lower = score[score < threshold].max()
    assert (score[~real] >= lower).mean() > 0.05
    score, real = scores_of(first, flat, "test")
    passing = score >= threshold
    assert model["confusion"] == sk.confusion_matrix(real, passing).tolist()
    assert model["tpr"]["value"] == pytest.approx(sk.recall_score(real, passing))
    assert model["auc"]["value"] == pytest.approx(sk.roc_auc_score(real, score))
    assert model["measures"][0]["precision"]["value"] == pytest.approx(sk.precision_score(real, passing))
    assert model["measures"][0]["accuracy"]["value"] == pytest.approx(sk.accuracy_score(real, passing))
    assert model["measures"][1]["prevalence"] == 0.1
    for name in ("tpr", "fpr", "auc"):
        assert model[name]["low"] < model[name]["value"] < model[name]["high"]
    assert found["parts"]["test"]["reals"] == real.sum()


def test_other_rules_choose_other_thresholds(here: Call, first: Path, flat: Path) -> None:
    by_tpr = evaluated(here, first, flat, "--tpr", 0.97)["models"][0]
    assert by_tpr["choice"]["tpr"] >= 0.97
    given = evaluated(here, first, flat, "--threshold", 0.25)["models"][0]
    assert given["choice"]["threshold"] == {"value": 0.25, "low": None, "high": None}
    score, real = scores_of(first, flat, "test")
    assert given["fpr"]["value"] == pytest.approx((score[~real] >= 0.25).mean())


def test_an_alert_at_the_threshold_passes_as_it_does_in_the_stream(here: Call, first: Path, tmp_path: Path) -> None:
    scores = np.repeat([[0.5, 0.5], [0.25, 0.5]], 20, axis=0)
    write_flat(tmp_path / "data", scores, {"validation": 0, "test": 1}, label=np.repeat([1.0, 0.0], 20))
    found = evaluated(here, first, tmp_path / "data", "--threshold", 0.5)["models"][0]
    assert (found["tpr"]["hits"], found["fpr"]["hits"]) == (20, 0)


def test_rates_by_kind_and_magnitude_are_those_of_the_alerts(here: Call, first: Path, flat: Path) -> None:
    found = evaluated(here, first, flat, "--threshold", 0.5)
    (model,) = found["models"]
    score, real = scores_of(first, flat, "test")
    with DataSet(flat) as data:
        rows = read_part(data, "test").rows
        kind, magnitude = data.column("kind")[rows].astype(str), data.column("magpsf")[rows]
    for word, names in (("real", {"transient", "variable"}), ("bogus", {"cosmic_ray", "streak"})):
        assert {share["name"] for share in model["kinds"][word]} == names
        for share in model["kinds"][word]:
            assert share["value"] == pytest.approx((score[kind == share["name"]] >= 0.5).mean())
    edges = found["edges"]["magpsf"]
    for share, low, high in zip(model["recall_against"]["magpsf"], edges, edges[1:], strict=False):
        inside = real & (magnitude >= low) & (magnitude < high)
        assert (share["n"], share["hits"]) == (inside.sum(), (score[inside] >= 0.5).sum())
    assert "edge" not in found["edges"]  # nothing is masked here


def test_alerts_of_one_object_make_intervals_wider_than_as_many_of_many(
    here: Call, first: Path, tmp_path: Path
) -> None:
    scores, real = (each.repeat(6, axis=0) for each in drawn(400, 5))
    objects = {"many": np.arange(2400), "few": np.arange(400).repeat(6)}
    width = {}
    for name, numbers in objects.items():
        named = np.array([f"object {number}" for number in numbers], object)
        write_flat(tmp_path / name, scores, label=real.astype(float), object=named)
        model = evaluated(here, first, tmp_path / name, "--fpr", 0.1)["models"][0]
        ends = (model["choice"]["threshold"], model["tpr"], model["fpr"], model["auc"], model["measures"][0]["f1"])
        width[name] = [each["high"] - each["low"] for each in ends]
    # Six alerts that are one are worth one: the square root of six, but for the luck of another split.
    assert all(few > 1.5 * many for few, many in zip(width["few"], width["many"], strict=True))


def test_few_allowed_errors_are_warned_of_with_the_steps_that_are_possible(here: Call, first: Path, flat: Path) -> None:
    boguses = evaluated(here, first, flat)["parts"]["validation"]["boguses"]
    status, out, _ = here("model", "evaluate", str(first), str(flat))
    assert status == 0
    assert f"warning: first1: FPR <= 0.01 allows {0.01 * boguses:.3g} false positives" in out
    assert f"in steps of {1 / boguses:.2%}" in out
    assert 0.05 * boguses > 10
    _, out, _ = here("model", "evaluate", str(first), str(flat), "--fpr", "0.05")
    assert "warning" not in out


def test_a_test_part_unlike_validation_is_warned_of(here: Call, first: Path, tmp_path: Path) -> None:
    scores, real = drawn(2000, 3)
    with_parts = tmp_path / "data"
    write_flat(with_parts, scores, label=real.astype(float))
    with DataSet(with_parts) as data:
        of_test = np.isin(np.arange(2000), data.rows("test"))
    scores[of_test & ~real] = scores[of_test & ~real] ** 0.5
    write_flat(tmp_path / "moved", scores, label=real.astype(float))
    found = evaluated(here, first, tmp_path / "moved", "--fpr", "0.05")["models"][0]
    assert any("held on validation, but test has" in warning for warning in found["warnings"])


def test_undecided_labels_are_left_out_and_counted(here: Call, first: Path, tmp_path: Path) -> None:
    scores, real = drawn(600, 2)
    label = real.astype(float)
    label[:200] = np.linspace(0.11, 0.89, 200)
    label[200:300] = np.nan
    write_flat(tmp_path / "data", scores, {"validation": 0, "test": 1}, label=label)
    found = evaluated(here, first, tmp_path / "data", "--threshold", 0.5)
    test = found["parts"]["test"]
    assert (test["undecided"], test["reals"] + test["boguses"]) == (200, 300)
    assert sum(map(sum, found["models"][0]["confusion"])) == 300


def test_soft_labels_near_the_ends_count_as_real_and_bogus(here: Call, first: Path, tmp_path: Path) -> None:
    scores, real = drawn(300, 2)
    write_flat(tmp_path / "hard", scores, {"validation": 0, "test": 1}, label=real.astype(float))
    write_flat(tmp_path / "soft", scores, {"validation": 0, "test": 1}, label=np.where(real, 0.93, 0.06))
    hard, soft = (evaluated(here, first, tmp_path / name, "--threshold", 0.5) for name in ("hard", "soft"))
    assert hard["models"] == soft["models"]


def test_the_same_seed_gives_the_same_bytes_wherever_the_files_are(
    here: Call, first: Path, flat: Path, tmp_path: Path
) -> None:
    shutil.copytree(flat, tmp_path / "elsewhere" / "flat")
    shutil.copy(first, tmp_path / "first.pt")
    results = []
    for data, bundle, name in ((flat, first, "a"), (tmp_path / "elsewhere" / "flat", tmp_path / "first.pt", "b")):
        page = tmp_path / f"{name}.html"
        found = evaluated(here, bundle, data, "--report", page, "--seed", 3)
        results.append((json.dumps(found), page.read_bytes()))
    assert results[0] == results[1]
    assert str(tmp_path).encode() not in results[1][1]
    other = evaluated(here, first, flat, "--seed", 4)
    assert other["models"][0]["confusion"] == json.loads(results[0][0])["models"][0]["confusion"]
    assert other["models"][0]["auc"]["low"] != json.loads(results[0][0])["models"][0]["auc"]["low"]


def test_the_chosen_threshold_goes_into_a_copy_that_is_else_the_same(
    here: Call, first: Path, flat: Path, tmp_path: Path
) -> None:
    before, copy = first.read_bytes(), tmp_path / "copy.pt"
    found = evaluated(here, first, flat, "--fpr", 0.05, "-o", copy)
    chosen = found["models"][0]["choice"]["threshold"]["value"]
    assert first.read_bytes() == before
    old, new = read_bundle(first).manifest, read_bundle(copy).manifest
    assert new.threshold == chosen != old.threshold
    assert new.provenance["threshold"] == {
        "rule": "FPR <= 0.05", "data": found["data"]["identity"], "value": chosen, "before": old.threshold,
        "fpr": found["models"][0]["choice"]["fpr"], "tpr": found["models"][0]["choice"]["tpr"],
    }  # fmt: skip
    assert new.model_copy(update={"threshold": old.threshold, "provenance": old.provenance}) == old
    np.testing.assert_array_equal(read_bundle(first).golden, read_bundle(copy).golden)
    with DataSet(flat) as data:
        stamps = data.stamps(data.rows("test"))
    np.testing.assert_array_equal(load_bundle(first).score(stamps), load_bundle(copy).score(stamps))
    status, out, _ = here("model", "verify", str(copy))
    assert (status, "verified" in out) == (0, True)
    # The copy reports at its new threshold what was reported when it was chosen.
    again = evaluated(here, copy, flat, "--threshold", chosen)["models"][0]
    assert again["confusion"] == found["models"][0]["confusion"]


def test_two_networks_are_compared_each_at_its_own_threshold(here: Call, first: Path, second: Path, flat: Path) -> None:
    found = evaluated(here, first, second, flat, "--fpr", 0.05)
    wrong = []
    for bundle, model in zip((first, second), found["models"], strict=True):
        score, real = scores_of(bundle, flat, "test")
        wrong.append((score >= np.float32(model["choice"]["threshold"]["value"])) != real)
    (pair,) = found["comparisons"]
    for name, who in (
        ("both", wrong[0] & wrong[1]),
        ("first_alone", wrong[0] & ~wrong[1]),
        ("second_alone", wrong[1] & ~wrong[0]),
    ):
        assert pair[name] == {"reals": (who & real).sum(), "boguses": (who & ~real).sum()}
    assert pair["difference"]["value"] == pytest.approx(wrong[0].mean() - wrong[1].mean())
    assert 0 < pair["mcnemar_p"] <= 1


def test_more_networks_are_compared_in_pairs_and_named_apart(
    here: Call, first: Path, second: Path, flat: Path, tmp_path: Path
) -> None:
    shutil.copy(first, tmp_path / "copy.pt")
    found = evaluated(here, first, second, tmp_path / "copy.pt", flat, "--report", tmp_path / "r.html")
    pairs = [(pair["first"], pair["second"]) for pair in found["comparisons"]]
    assert len(pairs) == 3
    assert ("first1 (first.pt)", "first1 (copy.pt)") in pairs
    same = found["comparisons"][1]
    assert (same["mcnemar_p"], same["difference"]["value"]) == (1, 0)
    assert "Pairs" in (tmp_path / "r.html").read_text()


def test_galleries_hang_what_they_say_and_each_scene_once(flat: Path, first: Path, second: Path) -> None:
    with DataSet(flat) as data:
        part = read_part(data, "test")
        scores = [load_bundle(bundle).score(data.stamps(part.rows)) for bundle in (first, second)]
    passing = [score >= np.float32(0.5) for score in scores]
    real, bogus, missed, passed, near = galleries(scores[0], passing[0], part)
    assert scores[0][real.places[0]] == scores[0].max()
    assert scores[0][bogus.places[0]] == scores[0].min()
    assert scores[0][missed.places[0]] == scores[0][part.real].min()
    assert scores[0][passed.places[0]] == scores[0][~part.real].max()
    assert abs(scores[0][near.places] - 0.5).max() < 0.05
    assert missed.n == (part.real & ~passing[0]).sum()
    wrong = [verdict != part.real for verdict in passing]
    both, alone, other = galleries_of_two(scores, wrong, ("a", "b"), part)
    assert (wrong[0] & wrong[1])[both.places].all()
    assert (wrong[0] & ~wrong[1])[alone.places].all()
    assert (wrong[1] & ~wrong[0])[other.places].all()
    assert both.n + alone.n == wrong[0].sum()
    for gallery in (real, bogus, missed, passed, near, both, alone, other):
        assert 0 < len(set(part.scene[gallery.places])) == len(gallery.places) <= MOST


def test_stamps_are_read_a_batch_at_a_time(
    here: Call, first: Path, flat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, stamps = [], DataSet.stamps

    def counted(self: DataSet, rows: Any) -> Any:
        read.append(len(rows))
        return stamps(self, rows)

    monkeypatch.setattr(DataSet, "stamps", counted)
    evaluated(here, first, flat, "--report", tmp_path / "report.html")
    assert sum(read) > 1500
    assert max(read) <= 32


def test_the_page_shows_everything_and_fetches_nothing(
    here: Call, first: Path, second: Path, tmp_path: Path, chromium: str
) -> None:
    scores, real = drawn(900, 11)
    evil = "<img src=http://evil.example/x.png onerror=console.error(1)>"
    write_flat(
        tmp_path / "data", scores, label=real.astype(float), label_source="<script>console.error(2)</script>",
        kind=np.where(real, "transient", evil), object=np.array([f"{evil}{n // 2}" for n in range(900)], object),
        magpsf=np.linspace(15, 20, 900), fwhm=np.linspace(1, 3, 900),
    )  # fmt: skip
    page = tmp_path / "report.html"
    status, out, _ = here("model", "evaluate", str(first), str(second), str(tmp_path / "data"), "--report", str(page))
    assert (status, f"written: {page}" in out) == (0, True)
    html = page.read_text()
    for heading in (
        "ROC", "Precision and recall", "What is found", "By kind", "Threshold", "Calibration", "Probabilities",
        "Probabilities of the misclassified", "Confusion", "Where it is sure", "Most confident real",
        "Most confident bogus", "Missed reals", "Passed boguses", "Nearest 0.5", "Both wrong", "first1 alone wrong",
        "second1 alone wrong",
    ):  # fmt: skip
        assert f"<h3>{heading}</h3>" in html, heading
    assert "McNemar" in html
    images = re.findall("<img [^>]*>", html)
    assert len(images) > 30
    assert all('src="data:image/png;base64,' in image and re.search('alt="[^"]+"', image) for image in images)
    assert "<script" not in html
    seen = visit(chromium, page, tmp_path)
    assert (seen.console, seen.fetched) == ([], [])


def test_one_channel_and_masked_stamps_make_a_page_too(here: Call, tmp_path: Path) -> None:
    bundle = write_tiny(
        tmp_path / "one.pt",
        RealBogus(Unmasked(), nn.Sequential(nn.AvgPool2d(5), nn.Flatten(), nn.Linear(1, 1))),
        size=5, channels=("difference",),
    )  # fmt: skip
    stamps = np.random.default_rng(1).normal(0, 1, (200, 1, 5, 5)).astype(np.float32)
    stamps[:20] = np.nan
    stamps[20:120, :, 0] = np.nan
    with DataWriter(tmp_path / "data", ("difference",), 5, "ztf", {}) as writer:
        writer.add(stamps, label=np.arange(200) % 2)
        writer.commit({"validation": 0, "test": 1}).close()
    found = evaluated(here, bundle, tmp_path / "data", "--threshold", 0.5, "--report", tmp_path / "r.html")
    assert found["parts"]["test"]["without_data"] == 20
    assert found["models"][0]["kinds"] == {"real": [], "bogus": []}  # nobody knows them
    assert found["edges"]["edge"][-2:] == [2.5, None]
    assert sum(share["n"] for share in found["models"][0]["recall_against"]["edge"]) == 100


@pytest.mark.parametrize(
    ("columns", "split", "said"),
    [
        ({"label": np.nan}, {}, "the test part has nothing to evaluate (no label)"),
        ({"label": 0.5}, {}, "labels there are between 0.1 and 0.9"),
        ({"label": 1.0}, {}, "labelled alerts of the test part are real"),
        ({"label": 0.0}, {}, "labelled alerts of the test part are bogus"),
        ({"label": np.arange(100) % 2}, {"validation": 0, "test": 1}, "the validation part has nothing to evaluate"),
        ({"label": np.arange(100) % 2}, {"validation": 1, "test": 0}, "the test part has nothing to evaluate"),
    ],
)
def test_a_part_that_cannot_tell_is_refused(
    here: Call, first: Path, tmp_path: Path, columns: dict[str, Any], split: dict[str, float], said: str
) -> None:
    split = split or {"validation": 0.4, "test": 0.6}
    if split["validation"] == 1:
        split = {"validation": 0.99, "test": 0}
    write_flat(tmp_path / "data", np.full((100, 2), 0.5), split, **columns)
    status, out, err = here("model", "evaluate", str(first), str(tmp_path / "data"), "--report", "r.html")
    assert (status, out) == (1, "")
    assert said in err
    assert not Path("r.html").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"channels": ("difference", "science")}, "takes difference/science of 9x9"),
        ({"survey": "ztf", "size": 18}, "takes science/difference of 18x18"),
    ],
)
def test_a_bundle_for_other_stamps_is_refused(
    here: Call, flat: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    manifest = tiny_manifest(**{"size": SIZE, "channels": CHANNELS} | changes)
    network = nn.Sequential(nn.AvgPool2d(manifest.size), nn.Flatten(), nn.Linear(2, 1))
    bundle = write_tiny(
        tmp_path / "other.pt", RealBogus(Unmasked(), network), size=manifest.size, channels=manifest.channels
    )
    status, _, err = here("model", "evaluate", str(bundle), str(flat))
    assert status == 2
    assert said in err
    assert "holds science/difference of 9x9" in err


def test_what_cannot_be_asked_is_refused(here: Call, first: Path, second: Path, flat: Path, tmp_path: Path) -> None:
    for arguments, status, said in (
        ([flat], 2, "required"),
        ([first, second, flat, "-o", "copy.pt"], 2, "holds one network's threshold"),
        ([first, flat, "--fpr", "0.1", "--tpr", "0.9"], 2, "not allowed with"),
        ([first, flat, "--fpr", "1.5"], 2, "between 0 and 1"),
        ([first, flat, "--prevalence", "nan"], 2, "between 0 and 1"),
        ([first, flat, "--prevalence", "0"], 2, "between 0 and 1"),
        ([first, flat, "--confident", "0.9,0.1"], 2, "the lower one first"),
        ([first, flat, "--confident", "0.9"], 2, "no LOW,HIGH"),
        ([first, flat, "--seed", "-1"], 2, "at least 0"),
        ([first, flat, "--device", "tpu"], 2, "not a device"),
        ([first, tmp_path / "none"], 1, "no data set"),
        ([flat / "data.json", flat], 1, "not a TorchScript file"),
    ):
        found, out, err = here("model", "evaluate", *map(str, arguments))
        assert (found, out) == (status, ""), arguments
        assert said in err, arguments


def test_a_network_that_tells_nothing_apart_gets_no_threshold(here: Call, first: Path, tmp_path: Path) -> None:
    write_flat(tmp_path / "data", np.full((400, 2), 0.5), label=np.arange(400) % 2)
    status, _, err = here("model", "evaluate", str(first), str(tmp_path / "data"))
    assert status == 2
    assert "no threshold with FPR <= 0.01 passes any real" in err
    found = evaluated(here, first, tmp_path / "data", "--threshold", 0.5)["models"][0]
    assert found["auc"] == {"value": 0.5, "low": None, "high": None}
    assert math.isclose(found["calibration"]["mixes"][0]["ece"], 0, abs_tol=0.05)


def test_networks_that_never_disagree_are_not_said_to_be_uncertain(
    here: Call, first: Path, flat: Path, tmp_path: Path
) -> None:
    shutil.copy(first, tmp_path / "copy.pt")
    status, output, _ = here("model", "evaluate", str(first), str(tmp_path / "copy.pt"), str(flat), "--fpr", "0.05")
    assert status == 0
    assert "they never disagree" in " ".join(output.split())
