"""The card of the shipped network: models/evaluate.py fills in its figures."""

import re
from pathlib import Path

import evaluate
import gallery
import leave_out
import numpy as np
import pytest
import recipe
from tiny import write_tiny

from rbstream.errors import ModelError
from rbstream.model import load_bundle

MODELS = Path(evaluate.__file__).parent


def test_the_card_speaks_of_the_bundle_beside_it():
    manifest, card = load_bundle(MODELS / "rbnet.pt").manifest, (MODELS / "rbnet.md").read_text()
    assert f"| at {manifest.threshold:g} |" in card
    assert re.search(rf"^{manifest.threshold:g}: ", card, re.MULTILINE)
    assert manifest.version in card
    assert manifest.threshold == recipe.THRESHOLD[1]


def test_figures_are_put_between_their_marks_and_nothing_else_changes():
    card = "a\n<!-- one -->\nold\nold\n<!-- end of one -->\nb\n<!-- two -->\nkept\n<!-- end of two -->\nc\n"
    after = "a\n<!-- one -->\n| new |\n<!-- end of one -->\nb\n<!-- two -->\nkept\n<!-- end of two -->\nc\n"
    assert evaluate.put(card, "one", "| new |") == after
    with pytest.raises(ValueError, match="no marks for three"):
        evaluate.put(card, "three", "| new |")


@pytest.mark.parametrize("name", [*evaluate.FIGURES, leave_out.FIGURE])
def test_the_card_has_a_place_for_every_figure(name):
    assert "new" in evaluate.put((MODELS / "rbnet.md").read_text(), name, "new")


def cells(table):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]


def test_kinds_pass_at_the_threshold_at_which_each_halfs_network_keeps_99_per_cent_of_the_transients():
    kinds = np.repeat(["transient", "variable", "streak", "ghost"], [200, 100, 100, 100])
    score = np.concatenate(
        [np.linspace(0.1, 1, 200), np.full(100, 0.5), np.repeat([0.05, 0.9], [75, 25]), np.zeros(100)]
    )
    both, half = np.tile(kinds, 2), np.repeat([0, 1], 500)
    scores = {"rbnet": np.concatenate([score, score / 10]).astype(np.float32)}  # ten times as low: the same, by rank
    events = evaluate.Events(np.isin(both, ["transient", "variable"]), both, np.arange(1000), half, scores)
    lines = cells(evaluate.by_kind(events, 0.95))
    found = {name: (n, passing.split()[0]) for name, n, passing, _ in lines[2:]}
    assert lines[0] == ["", "events", "rbnet >= 0.109, 0.0109", "rbnet >= 0.95"]
    own = {name: passing.split()[:1] for name, _, _, passing in lines[2:]}
    assert own["transient"] == ["3.00%"]  # 12 of one half's 200
    assert own["all reals at 0.5"] == []
    assert found["transient"] == ("400", "99.00%")
    assert found["variable"] == ("200", "100.0%")
    assert found["streak"] == ("200", "25.0%")
    assert found["ghost"] == ("200", "0.0%")
    assert found["**all artefacts**"] == ("400", "12.5%")
    assert found["artefacts, all kinds weighed alike"] == ("400", "12.5%")
    assert found["**all reals**"] == ("600", "99.33%")
    # Of one half 111 transients and all variables, of the other none.
    assert found["all reals at 0.5"] == ("600", "35.2%")
    assert found["all artefacts at 0.5"] == ("400", "6.25%")
    assert found["recall at FPR 5%"] == ("600", "7.67%")  # 23 of 300 are above the 25 artefacts at 0.9


def test_where_a_threshold_keeps_a_share_of_what_was_drawn_its_intervals_are_of_other_thresholds_too():
    rng = np.random.default_rng(1)
    kind, half = np.repeat(["transient", "ghost"], 1000), np.tile([0, 1], 1000)
    score = np.where(kind == "ghost", 0.01, 1) * rng.random(2000)  # so that one in two ghosts passes at about 0.005
    events = evaluate.Events(kind == "transient", kind, np.arange(2000), half, {"rbnet": score.astype(np.float32)})
    one = np.ones(2000, np.int64)
    at = events.quantile("rbnet", 0.005, events.transient, one)
    ghosts = np.where(kind == "ghost", 0, -1)
    scenes = evaluate.Scenes(events.scene, 0)
    (fixed,) = scenes.shares(ghosts, ["ghost"], score.astype(np.float32) >= at[half])
    (drawn,) = scenes.shares_of(ghosts, ["ghost"], events.keeping("rbnet", 0.995))
    assert (drawn.value, drawn.n) == (fixed.value, fixed.n)
    assert drawn.high - drawn.low > 2 * (fixed.high - fixed.low)
    (again,) = scenes.shares_of(ghosts, ["ghost"], evaluate.always(score.astype(np.float32) >= at[half]))
    assert (again.low, again.high) == pytest.approx((fixed.low, fixed.high))


def test_a_score_is_converted_to_the_share_of_reals_among_those_that_have_it():
    score = np.array([0, 0.2, 0.5, 1], np.float32)
    assert evaluate.at_mix(score, 1 / 2) == pytest.approx(score)
    assert evaluate.at_mix(score, 1 / 11) == pytest.approx([0, 0.2 / 8.2, 1 / 11, 1])


def test_bright_stars_leave_the_middle_as_it_was():
    stamps = np.zeros((3, 3, 63, 63), np.float32)
    stamps[2, :, :5] = np.nan
    crowded = evaluate.beside_stars(stamps, evaluate.FIELDS["eight bright stars"], 1)
    assert (np.abs(crowded[:, :, 29:34, 29:34]) < 1).mean() > 0.8
    assert (crowded[:2, 1].reshape(2, -1).max(axis=1) > 500).all()
    assert np.abs(crowded[:2, 2]).sum() < 0.1 * crowded[:2, 0].sum()  # subtracted
    assert np.isnan(crowded[2, :, :5]).all()
    assert np.isfinite(crowded[2, :, 5:]).all()


def test_close_stars_lie_about_the_middle():
    stamps = np.zeros((3, 3, 63, 63), np.float32)
    template = evaluate.beside_stars(stamps, evaluate.FIELDS["six close stars"], 1)[:, 1]
    middle = template[:, 20:43, 20:43].reshape(3, -1)
    assert (middle.max(axis=1) > 100).all()
    assert (middle.sum(axis=1) > 0.9 * template.reshape(3, -1).sum(axis=1)).all()


def test_real_triplets_are_counted_by_night_and_small_nights_together():
    night = np.repeat([1, 2, 3, 4], [30, 5, 3, 2])
    real = {"night": night, "asteroid": night == 4, "consensus": np.tile([1, 0], 20)}
    score = np.where(np.arange(40) < 10, 0.9, 0.1).astype(np.float32)
    lines = cells(evaluate.by_night(real, score, 0.5))
    assert lines[2:5] == [
        ["1", "30", "0 of 0", "10 of 15", "5 of 15"],
        ["4", "2", "2 of 2", "1 of 1", "0 of 1"],
        ["2 others", "8", "0 of 0", "4 of 4", "0 of 4"],
    ]
    assert [cell.split()[0] for cell in lines[5]] == ["all", "40", "100.0%", "75.0%", "25.0%"]


def test_thresholds_are_shown_for_all_nights_and_at_last_those_that_the_rule_finds_on_each_half():
    consensus = np.tile(np.repeat([1, 0], 50), 2)
    real = {"night": np.repeat([1, 2], 100), "asteroid": consensus == 1, "consensus": consensus}
    score = np.repeat([0.9, 0.85, 0.1, 0.35, 0.32, 0.1], [50, 25, 25, 50, 25, 25])
    lines = cells(evaluate.over_thresholds(real, score.astype(np.float32), 0.34))
    found = {name: shares for name, *shares in lines[2:]}
    assert found["0.30"] == ["100.0%", "100.0%", "50.0%"]
    assert found["**0.34**"] == ["100.0%", "100.0%", "25.0%"]
    assert found["0.40"] == ["50.0%", "50.0%", "25.0%"]
    assert list(found)[2:6] == ["0.20", "0.30", "**0.34**", "0.40"]
    assert found["0.89, 0.34, each half's own"] == ["100.0%", "100.0%", "0.0%"]
    assert found["0.34, 0.89, each the other's"] == ["50.0%", "50.0%", "25.0%"]


LEARNED = {"recipe": {"epochs": 14}, "torch": "2", "data": {"source": {"sources": [{"injected": 9}, {"arrays": "r"}]}}}


@pytest.mark.parametrize(
    ("changes", "other"),
    [
        ({"data": {"source": {"sources": [{"injected": 9}, {"arrays": "r"}, {"arrays": "r"}]}}}, None),
        ({"data": {"source": {"sources": [{"injected": 8}]}}}, "events"),
        ({"recipe": {"epochs": 9}}, "settings"),
        ({"torch": "3"}, "versions"),
    ],
)
def test_halves_that_learned_otherwise_than_the_bundle_are_refused(tmp_path, changes, other):
    for name in ("bundle", "half0", "half1"):
        write_tiny(tmp_path / f"{name}.pt", provenance=LEARNED | (changes if name == "half1" else {}))
    if other is None:
        recipe.check_halves(tmp_path, tmp_path / "bundle.pt")
    else:
        with pytest.raises(ModelError, match=rf"half1\.pt was trained with other {other} than .*make the halves"):
            recipe.check_halves(tmp_path, tmp_path / "bundle.pt")


@pytest.mark.parametrize(("script", "more"), [(evaluate, []), (gallery, ["-o", "pictures"])])
def test_a_folder_without_halves_is_wrong_usage(monkeypatch, tmp_path, capsys, script, more):
    monkeypatch.setattr(recipe, "real_triplets", lambda shared: {})
    monkeypatch.setattr("sys.argv", ["script", str(MODELS / "rbnet.pt"), str(tmp_path), *more])
    with pytest.raises(SystemExit, match="2"):
        script.main()
    assert "half0.pt" in capsys.readouterr().err
