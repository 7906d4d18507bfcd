"""The study of moving-object stamps, small: everything is there, and the same for the same seed."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rbstream.lab.dataset import DataSet, DataWriter
from rbstream.lab.networks import build
from rbstream.lab.studies.moving import moving_objects
from rbstream.model.bundle import load_bundle

Call = Callable[..., tuple[object, str, str]]

NETWORKS = ("fc", "pixelwise", "cnn")
STAMPS, EPOCHS = 100, 1


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "study"
    moving_objects(folder, 3, each=STAMPS, epochs=EPOCHS)
    return folder


def numbers(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "study.json").read_text())
    return read


@pytest.mark.parametrize(("arch", "parameters"), [("pixelwise", 27_452), ("cnn", 9_666)])
def test_the_networks_of_the_course_have_its_parameters(arch: str, parameters: int) -> None:
    assert sum(weight.numel() for weight in build(arch, 1, 21).parameters()) == parameters


def test_the_study_says_the_numbers_of_its_networks(study: Path) -> None:
    found = numbers(study)
    assert {name: each["parameters"] for name, each in found["learning"].items()} == {
        "fc": 441 * 64 + 64 + 64 * 32 + 32 + 32 + 1, "pixelwise": 27_452, "cnn": 9_666,
    }  # fmt: skip
    for name in NETWORKS:
        assert set(found["learning"][name]) >= {"converged", "gap", "words", "validation_loss"}


def test_data_and_bundles_are_there_to_go_on_with(study: Path) -> None:
    with DataSet(study / "data") as data:
        assert (len(data), data.shape) == (2 * STAMPS, (1, 21, 21))
        label = data.column("label")
        assert label.sum() == STAMPS
        parts = numbers(study)["data"]["parts"]
        assert sum(part[kind] for part in parts.values() for kind in ("sources", "noise")) == 2 * STAMPS
        rows = data.rows("test")
        assert parts["test"] == {"sources": int(label[rows].sum()), "noise": int((1 - label[rows]).sum())}
        for name in NETWORKS:
            scores = load_bundle(study / f"{name}.pt").score(data.stamps(rows))
            confusion = np.array(numbers(study)["evaluation"][name]["confusion"])
            assert confusion[1, 1] == ((scores >= 0.5) & (label[rows] == 1)).sum()
            assert confusion.sum() == len(rows)
    assert not list(study.glob("*.checkpoint"))


def test_every_figure_of_the_page_is_there_and_every_chapter(study: Path) -> None:
    page = (study / "index.html").read_text()
    shown = re.findall(r'<img [^>]*src="([^"]+)"', page)
    assert sorted(shown) == sorted(path.name for path in study.glob("*.png"))
    assert all((study / name).read_bytes().startswith(b"\x89PNG") for name in shown)
    for name in NETWORKS:
        assert {f"curves-{name}.png", f"confusion-{name}.png", f"probabilities-{name}.png"} <= set(shown)
    assert {"sources.png", "noise.png", "recall.png", "occlusion.png"} <= set(shown)
    assert len(re.findall("<h2>", page)) == 7
    assert (study / "evaluation.html").read_text().startswith("<!doctype html>")


def test_it_says_where_the_networks_look(study: Path) -> None:
    found = numbers(study)["occlusion"]
    assert set(found["agreement"]) == {"fc and pixelwise", "fc and cnn", "pixelwise and cnn"}
    for pair in found["agreement"].values():
        assert -1 <= pair["correlation"] <= 1
        assert pair["distance"] >= 0
    assert set(found["peaks"]) == set(NETWORKS)


def test_the_same_seed_gives_the_same_numbers_and_figures(study: Path, tmp_path: Path) -> None:
    moving_objects(tmp_path / "again", 3, each=STAMPS, epochs=EPOCHS)
    for path in study.iterdir():
        if path.suffix in (".json", ".png", ".csv", ".html"):
            assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name
    assert str(study) not in (study / "study.json").read_text()


def test_ones_own_data_set_goes_through_the_same_command(here: Call, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    stamps = rng.normal(100, 3, (60, 2, 11, 11)).astype(np.float32)
    stamps[:30, :, 4:7, 4:7] += 40
    with DataWriter(tmp_path / "mine", ("first", "second"), 11, "other", {}) as writer:
        writer.add(stamps, label=np.arange(60) < 30)
        writer.commit({"validation": 0.2, "test": 0.3})
    status, out, _ = here("study", "moving-objects", "out", "--data", str(tmp_path / "mine"), "--epochs", "1")
    assert status == 0
    assert "out/index.html" in out
    page = Path("out/index.html").read_text()
    assert "from mine" in page
    assert "signal-to-noise of" not in page  # nobody knows it
    assert "recall.png" not in page
    assert not Path("out/data").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("out", "--seed", "-1"), "at least 0"),
        (("out", "--seed", "9" * 20), "at most"),
        (("out", "--stamps", "0"), "at least 1"),
        (("out", "--epochs", "0"), "at least 1"),
        (("out", "--stamps", "9", "--data", "d"), "not both"),
        (("there",), "is there already"),
    ],
)
def test_what_cant_be_done_is_refused_with_words(here: Call, arguments: tuple[str, ...], words: str) -> None:
    Path("there").mkdir()
    status, _, err = here("study", "moving-objects", *arguments)
    assert status == 2
    assert words in err
    assert not Path("out").exists()


def test_a_data_set_that_is_none_leaves_nothing_behind(here: Call) -> None:
    status, _, err = here("study", "moving-objects", "out", "--data", "nowhere")
    assert status == 1
    assert "no data set" in err
    assert not list(Path().iterdir())


def test_a_data_set_of_one_class_is_refused_with_words(here: Call, tmp_path: Path) -> None:
    with DataWriter(tmp_path / "mine", ("coadd",), 11, "other", {}) as writer:
        writer.add(np.random.default_rng(1).normal(size=(60, 1, 11, 11)), label=1)
        writer.commit()
    status, _, err = here("study", "moving-objects", "out", "--data", str(tmp_path / "mine"))
    assert status == 1
    assert "of the train part are real" in err
