"""How the shipped bundle is made: models/recipe.py, with little data; and the generator that its card measures with."""

import numpy as np
import pytest
import recipe
from blind import injection, kinds, light

from rbstream.lab.recipe import load_recipe
from rbstream.model import load_bundle
from rbstream.simulate import triplets


@pytest.fixture
def quick(monkeypatch):
    """The recipe in seconds."""
    for name, few in (("ALONE", 300), ("SIMULATED", 100), ("INJECTED", 200)):
        monkeypatch.setattr(recipe, name, few)
    monkeypatch.setattr(recipe, "VALIDATION", 0.2)
    monkeypatch.setattr(recipe, "braai_scores", lambda _, stamps: {n: np.full(len(stamps), 0.5) for n in recipe.BRAAI})
    monkeypatch.setattr(recipe, "load_recipe", lambda path, given: load_recipe(path, given | {"epochs": 1}))


def table(n=40, seed=3):
    """Triplets as `real_triplets` has them, on four nights."""
    stamps, real, _ = triplets(n, seed)
    label = real.astype(np.float32)
    return {
        "stamps": stamps,
        "candid": np.arange(n),
        "night": np.arange(n, dtype=np.int32) % 4 + 2459000,
        "object": np.array([f"ZTF{i}" for i in range(n)]),
        "positive": np.ones(n, np.int8),
        "d6_m7": label,
        "d6_m9": label,
    }


def test_without_the_shared_data_it_learns_from_simulation_alone_and_says_so(quick, monkeypatch, tmp_path, capsys):
    arguments = ["recipe.py", "--shared", str(tmp_path / "nowhere"), "-o", str(tmp_path / "alone.pt")]
    monkeypatch.setattr("sys.argv", arguments)
    recipe.main()
    assert "no real triplets" in capsys.readouterr().out
    manifest = load_bundle(tmp_path / "alone.pt").manifest
    assert [source.get("simulated") for source in manifest.provenance["data"]["source"]["sources"]] == [300]
    monkeypatch.setattr("sys.argv", [*arguments, "--halves", str(tmp_path / "halves")])
    with pytest.raises(SystemExit, match="2"):
        recipe.main()


def test_the_same_seed_makes_the_same_bundle_of_real_triplets(quick, monkeypatch, tmp_path):
    digests = []
    for name in "ab":
        recipe.make(tmp_path / f"{name}.pt", table(), tmp_path, seed=5)
        digests.append(load_bundle(tmp_path / f"{name}.pt").manifest.weights_sha256)
    assert digests[0] == digests[1]


def test_a_bundle_is_replaced_only_when_all_is_made_and_has_the_threshold_of_the_halves(quick, monkeypatch, tmp_path):
    output = tmp_path / "net.pt"
    output.write_bytes(b"before")
    monkeypatch.setattr(recipe, "real_triplets", lambda _: table())
    monkeypatch.setattr(recipe, "THRESHOLD", {5: 0.3})
    monkeypatch.setattr("sys.argv", ["recipe.py", "--seed", "5", "-o", str(output)])
    with monkeypatch.context() as broken:
        broken.setattr(recipe, "write_with_threshold", broken_disk)
        with pytest.raises(OSError, match="no space left"):
            recipe.main()
    assert output.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt"]
    recipe.main()
    manifest = load_bundle(output).manifest
    assert manifest.threshold == 0.3
    assert manifest.provenance["threshold"]["made with"] == "python models/recipe.py --seed 5"


def test_a_seed_of_which_no_threshold_is_known_gives_a_bundle_without_one_and_says_so(
    quick, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(recipe, "real_triplets", lambda _: table())
    monkeypatch.setattr("sys.argv", ["recipe.py", "--seed", "6", "-o", str(tmp_path / "net.pt")])
    recipe.main()
    manifest = load_bundle(tmp_path / "net.pt").manifest
    assert manifest.threshold == 0.5
    assert "threshold" not in manifest.provenance
    assert "No threshold is known for these weights" in capsys.readouterr().out


def broken_disk(*_):
    raise OSError("no space left")


def test_halves_are_made_of_other_nights_and_tell_the_threshold_that_loses_one_in_fifty(
    quick, monkeypatch, tmp_path, capsys
):
    real = table() | {"consensus": np.ones(40, np.int8)}
    monkeypatch.setattr(recipe, "real_triplets", lambda _: real)
    monkeypatch.setattr(recipe, "THRESHOLD", {1: 0.01})
    monkeypatch.setattr("sys.argv", ["recipe.py", "-o", str(tmp_path / "net.pt"), "--halves", str(tmp_path / "halves")])
    recipe.main()
    assert {path.name for path in tmp_path.glob("**/*.pt")} == {"half0.pt", "half1.pt"}
    score = recipe.held_out(tmp_path / "halves", real)
    best = recipe.best_threshold(score, real)
    assert f"threshold {best:g}, and THRESHOLD of the seed is 0.01: write it there" in capsys.readouterr().out
    assert (score >= np.float32(best)).all()  # one in 40 would be too many
    made = [load_bundle(tmp_path / "halves" / f"half{half}.pt").manifest.provenance for half in range(2)]
    assert made[0]["data"] != made[1]["data"]
    assert all("threshold" not in each for each in made)  # nobody has chosen one for them


def test_no_night_is_in_both_halves_and_they_are_nearly_equal():
    night = np.repeat(np.arange(7), [50, 30, 20, 5, 5, 5, 5])
    half = recipe.halves(night)
    assert all(len(set(half[night == each])) == 1 for each in range(7))
    assert half.sum() == 60


@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("brighter", [True, False])
def test_what_lies_beside_a_candidate_is_found_centred_and_stored_with_its_own_sign(positive, brighter):
    rng = np.random.default_rng(1)
    stamps = rng.normal(0, 1, (1, 3, 63, 63)).astype(np.float32)
    y, x = np.mgrid[:63, :63]
    stamps[0, 2] += (60 if brighter else -60) * np.exp(-0.5 * ((x - 43) ** 2 + (y - 24) ** 2))
    stamps[0, 2] += 60 * np.exp(-0.5 * ((x - 31) ** 2 + (y - 31) ** 2))  # the candidate itself
    stamps[0, 2] *= 1 if positive else -1
    found = recipe.beside(table(1) | {"stamps": stamps, "positive": np.array([positive], np.int8)})
    assert len(found["stamps"]) == 1
    moved = found["stamps"][0]
    assert bool(found["positive"][0]) == brighter
    assert np.unravel_index(np.nanargmax(moved[2]), (63, 63)) == (31, 31)
    assert np.array_equal(moved[0, 7:, :51], stamps[0, 0, :56, 12:])
    assert np.isnan(moved[:, :7]).all()
    assert np.isnan(moved[:, :, 51:]).all()
    assert found["object"].tolist() == ["ZTF0"]


def test_the_other_generator_gives_the_same_events_for_a_seed_all_detected_and_whole_in_the_middle():
    stamps, _, _ = triplets(60, 8, ["transient", "variable"])
    positive = np.ones(60, bool)
    one, two = (injection.inject(stamps, positive, 96, 4) for _ in range(2))
    assert all(np.array_equal(one[name], two[name], equal_nan=name == "stamps") for name in one)
    assert set(one["kind"]) == set(kinds.KINDS)
    assert one["real"].sum() == 48
    assert one["snr"].min() >= 5
    assert np.isfinite(one["stamps"][:, :, 29:34, 29:34]).all()


@pytest.mark.parametrize(
    ("left", "snr", "outshines"), [(0.0, 5.0, True), (4.9, 5.0, True), (6.0, 11.0, False), (6.0, 13.0, True)]
)
def test_the_other_generators_reals_are_not_told_by_what_their_host_leaves(left, snr, outshines):
    delta = np.zeros((5, 5))
    delta[2, 2] = 1
    empty = np.zeros((light.SIZE, light.SIZE))
    scene = light.Scene(empty, empty, empty, empty.astype(bool), 1.0, delta)
    spot = np.exp(-0.5 * light.R2)
    host = spot * left / light.matched_flux(spot).max()
    assert injection.outshines(scene, light.Light(host_sci=host), snr) == outshines
    assert injection.outshines(scene, light.Light(host_mat=host), snr) == outshines
