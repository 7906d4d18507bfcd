"""BRAAI's exercise, smaller: it runs from nothing, says the same twice, and its page shows what it has written."""

import json
import re

import pytest

from rbstream.errors import UsageError
from rbstream.lab.studies.braai import COSMIC_RAYS, braai_exercise
from rbstream.simulate.kinds import BOGUS, REAL

SMALL = {"each": 160, "fresh": 200, "epochs": 12}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "one"
    braai_exercise(folder, 3, **SMALL)
    return folder


def test_the_same_seed_gives_the_same_numbers_page_and_figures(study, tmp_path):
    braai_exercise(tmp_path / "two", 3, **SMALL)
    written = sorted(path.name for path in study.iterdir() if path.suffix in (".json", ".html", ".png", ".csv"))
    assert {"study.json", "index.html", "roc.png", "curves.png", "reals.png"} <= set(written)
    for name in written:
        assert (study / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_its_numbers_hold_together(study):
    numbers = json.loads((study / "study.json").read_text())
    assert sum(map(sum, numbers["confusion at 0.5"])) == 2 * SMALL["each"] * 0.2
    assert numbers["threshold"]["fresh"]["fpr"]["n"] == SMALL["fresh"]
    assert set(COSMIC_RAYS) <= set(numbers["kinds"]) <= {*REAL, *BOGUS}
    assert numbers["imbalance"]["constant accuracy"] == 0.9
    assert numbers["threshold"]["fresh"]["auc"]["value"] > 0.85
    assert set(numbers["difference only"]) == {"three channels", "difference only"}


def test_every_picture_of_the_page_is_there_and_every_question_has_its_chapter(study):
    page = (study / "index.html").read_text()
    pictures = re.findall(r'<img class="figure" src="([^"]+)"', page)
    assert len(pictures) >= 10
    assert all((study / name).stat().st_size > 1000 for name in pictures)
    for question in (
        "1% FPR",
        "Confusion at 0.5",
        "Cosmic rays on the core",
        "One real in ten",
        "difference alone",
        "at 0.5",
    ):
        assert question in page


def test_a_folder_that_is_there_is_not_touched(study):
    before = (study / "study.json").read_bytes()
    with pytest.raises(UsageError, match="is there already"):
        braai_exercise(study, 3, **SMALL)
    assert (study / "study.json").read_bytes() == before
