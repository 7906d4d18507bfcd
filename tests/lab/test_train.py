"""Training on the command line: it learns, it goes on where it was killed, and it refuses what can't teach."""

import json
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from spots import write_spots
from tiny import RBSTREAM, environment, rbstream

from rbstream.lab.curves import Epoch, verdict
from rbstream.lab.dataset import DataSet, DataWriter
from rbstream.lab.loader import Loader, jittered, turn_about
from rbstream.lab.overlap import share_seen, sketch
from rbstream.lab.recipe import Recipe
from rbstream.model.bundle import load_bundle
from rbstream.model.manifest import read_bundle

QUICK = ("--epochs", "6", "--set", "learning_rate=3e-3")


def test_a_network_learns_to_tell_a_spot_from_noise(here, spots, tmp_path):
    status, output, _ = here("model", "train", str(spots), *QUICK, "-o", "net.pt")
    assert status == 0
    assert "accuracy" in output
    scorer = load_bundle("net.pt")
    with DataSet(spots) as data:
        rows = data.rows("test")
        right = (scorer.score(data.stamps(rows)) >= 0.5) == (data.column("label")[rows] >= 0.5)
    assert right.mean() > 0.95
    assert {path.name for path in tmp_path.iterdir()} == {
        "net.pt",
        "net.checkpoint",
        "net.curves.png",
        "net.history.csv",
    }
    manifest = read_bundle("net.pt").manifest
    assert manifest.provenance["recipe"]["arch"] == "cnn"
    assert manifest.provenance["data"]["rows"] == 400
    assert manifest.channels == ("difference",)


@pytest.mark.parametrize("arch", ["fc", "pixelwise", "vgg6", "rbnet"])
def test_every_architecture_trains_and_gives_a_bundle_that_loads(here, spots, arch):
    status, _, errors = here("model", "train", str(spots), "--arch", arch, "--epochs", "1", "-o", "net.pt")
    assert (status, errors) == (0, "")
    assert here("model", "verify", "net.pt")[0] == 0


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(here, spots):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert here("model", "train", str(spots), *QUICK, "--seed", seed, "-o", f"{name}.pt")[0] == 0
    a, b, c = (read_bundle(f"{name}.pt").manifest for name in "abc")
    assert a.weights_sha256 == b.weights_sha256 != c.weights_sha256
    assert a.golden_scores == b.golden_scores


def test_killed_in_the_middle_of_an_epoch_it_ends_with_the_same_weights(spots, tmp_path):
    # Dropout, batch normalisation, augmentation: all that has a state or draws at random.
    settings = ("batch=16", "random_crop=2", "jitter_noise=0.3", "jitter_scale=0.1")
    recipe = ("--arch", "rbnet", "--epochs", "5", *(word for each in settings for word in ("--set", each)))
    assert rbstream("model", "train", spots, *recipe, "-o", tmp_path / "whole.pt").returncode == 0
    command = [
        *RBSTREAM,
        "model",
        "train",
        spots,
        *recipe,
        "--set",
        "checkpoint_seconds=0",
        "-o",
        tmp_path / "killed.pt",
    ]
    checkpoint = tmp_path / "killed.checkpoint"
    for steps in (3, 30):
        with subprocess.Popen([*map(str, command), "--resume"], env=environment(), stdout=subprocess.PIPE) as process:
            while process.poll() is None and not (checkpoint.exists() and done(checkpoint) >= steps):
                pass
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    at = done(checkpoint)
    assert at % 17  # of 280 training rows: not where an epoch ends
    ended = rbstream("model", "train", spots, *recipe, "--resume", "-o", tmp_path / "killed.pt")
    assert f"went on from step {at}" in ended.stdout
    whole, killed = (read_bundle(tmp_path / f"{name}.pt").manifest for name in ("whole", "killed"))
    assert whole.weights_sha256 == killed.weights_sha256
    assert (tmp_path / "whole.history.csv").read_text() == (tmp_path / "killed.history.csv").read_text()


def done(checkpoint):
    return torch.load(checkpoint, weights_only=True)["step"]


def test_a_training_that_has_begun_is_not_overwritten_and_one_that_ended_is(here, spots, tmp_path):
    assert here("model", "train", str(spots), "--epochs", "1", "-o", "net.pt")[0] == 0
    assert here("model", "train", str(spots), "--epochs", "1", "-o", "net.pt")[0] == 0
    content = torch.load("net.checkpoint", weights_only=True)
    torch.save(content | {"done": False}, "net.checkpoint")
    status, _, errors = here("model", "train", str(spots), "--epochs", "1", "-o", "net.pt")
    assert status == 2
    assert "--resume" in errors


def test_a_checkpoint_of_another_architecture_or_data_set_is_refused_naming_both(here, spots, tmp_path):
    assert here("model", "train", str(spots), "--arch", "fc", "--epochs", "1", "-o", "net.pt")[0] == 0
    status, _, errors = here("model", "train", str(spots), "--arch", "cnn", "--epochs", "1", "--resume", "-o", "net.pt")
    assert status == 2
    assert "arch was 'fc' and is 'cnn'" in errors
    write_spots(tmp_path / "other", rows=100).close()
    status, _, errors = here("model", "train", "other", "--arch", "fc", "--epochs", "1", "--resume", "-o", "net.pt")
    assert status == 2
    assert "data was" in errors


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[: len(b) // 2],
        lambda b: b"",
        lambda b: b"no checkpoint at all",
        lambda b: Path("net.pt").read_bytes(),
    ],
)
def test_a_damaged_checkpoint_is_refused_with_words(here, spots, tmp_path, damage):
    assert here("model", "train", str(spots), "--epochs", "1", "-o", "net.pt")[0] == 0
    path = tmp_path / "net.checkpoint"
    path.write_bytes(damage(path.read_bytes()))
    status, _, errors = here("model", "train", str(spots), "--epochs", "1", "--resume", "-o", "net.pt")
    assert status == 1
    assert "delete it and train anew" in errors
    assert "weights_only" not in errors  # torch's advice: to run the file's code


def test_an_output_that_cannot_be_written_is_refused_before_anything_is_trained(here, spots, tmp_path):
    (tmp_path / "folder").mkdir()
    status, _, errors = here("model", "train", str(spots), "--epochs", "1", "-o", "folder")
    assert status == 2
    assert "no regular file" in errors
    assert not (tmp_path / "folder.checkpoint").exists()


def test_a_file_in_the_place_of_a_data_set_is_said_to_be_none(here, spots):
    assert here("model", "train", str(spots), "--epochs", "1", "-o", "net.pt")[0] == 0
    assert "no data set" in refused(here, "net.pt")


def data_set(path, stamps, label, **columns):
    with DataWriter(path, ("difference",), stamps.shape[-1], "ztf", {}) as writer:
        writer.add(stamps, label=label, **columns)
        writer.commit().close()
    return str(path)


def noise(rows=100):
    return np.random.default_rng(2).standard_normal((rows, 1, 21, 21)).astype(np.float32)


def refused(here, data, *arguments, status=1):
    found, _, errors = here("model", "train", data, "--epochs", "1", "-o", "net.pt", *arguments)
    assert found == status, errors
    return errors


def test_one_class_alone_is_refused(here, tmp_path):
    assert "all 70 stamps of the train part are real" in refused(here, data_set(tmp_path / "d", noise(), 1))


def test_stamps_that_are_all_alike_are_refused(here, tmp_path):
    alike = np.repeat(noise(1), 100, axis=0)
    assert "all alike" in refused(here, data_set(tmp_path / "d", alike, np.arange(100) % 2))


def test_stamps_of_nothing_but_nan_are_refused_with_the_row(here, tmp_path):
    stamps = noise()
    stamps[::9] = np.nan
    errors = refused(here, data_set(tmp_path / "d", stamps, np.arange(100) % 2))
    assert "all NaN" in errors
    assert "row " in errors


def test_a_stamp_whose_looked_at_middle_has_no_data_is_scored_like_any_other(here, tmp_path):
    stamps = noise()
    stamps[5, :, 5:16, 5:16] = np.nan
    assert (
        here(
            "model",
            "train",
            data_set(tmp_path / "d", stamps, np.arange(100) % 2),
            "--epochs",
            "1",
            "--set",
            "crop=9",
            "-o",
            "n.pt",
        )[0]
        == 0
    )


def test_an_empty_part_is_refused(here, tmp_path):
    with DataWriter(tmp_path / "d", ("difference",), 21, "ztf", {}) as writer:
        writer.add(noise(), label=np.arange(100) % 2)
        writer.commit({"validation": 0}).close()
    assert "no labelled stamps in the validation part" in refused(here, "d")


def test_labels_that_nobody_knows_are_refused(here, tmp_path):
    assert "no labelled stamps in the train part" in refused(here, data_set(tmp_path / "d", noise(), np.nan))


def test_a_channel_too_few_is_refused_naming_those_there_are(here, spots):
    errors = refused(here, str(spots), "--set", 'channels=["science", "difference"]', status=2)
    assert "has no channel science; it has difference" in errors


def test_a_data_set_cut_short_is_refused(here, spots, tmp_path):
    shutil.copytree(spots, tmp_path / "d")
    with (tmp_path / "d" / "stamps.npy").open("r+b") as file:
        file.truncate(1_000_000 // 2)
    assert "cut short" in refused(here, "d")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--arch", "resnet"), "there are fc, pixelwise, cnn, vgg6, rbnet"),
        (("--set", "lerning_rate=1"), "learning_rate"),
        (("--set", "crop=99"), "have 21 px"),
        (("--set", "batch=1"), "greater than or equal to 2"),
        (("--set", "crop"), "NAME=VALUE"),
        (("--seed", "9" * 20), "seed"),
        (("--set", "learning_rate=inf"), "learning_rate"),
        (("--set", "class_weights=[-1, 1]"), "class_weights"),
        (("--set", "class_weights=[0, 0]"), "class_weights"),
        (("--set", "random_crop=25"), "at most 10"),
        (("--set", "random_crop=5", "--set", "crop=9"), "at most 4"),
        (("--config", "nowhere.toml"), "can't be read"),
        (("--device", "tpu"), "--device tpu"),
    ],
)
def test_a_recipe_that_is_wrong_is_refused_with_words(here, spots, arguments, said):
    assert said in refused(here, str(spots), *arguments, status=2)


def test_a_learning_rate_that_blows_up_is_said(here, spots):
    errors = refused(here, str(spots), "--set", "learning_rate=1e30", "--set", "schedule=constant", "--epochs", "3")
    assert "lower learning_rate" in errors


def test_the_recipe_of_a_file_is_used_and_flags_go_over_it(here, spots, tmp_path):
    (tmp_path / "train.toml").write_text('arch = "fc"\nepochs = 1\nclass_weights = [1.0, 3.0]\nloss = "focal"\n')
    assert here("model", "train", str(spots), "--config", "train.toml", "--seed", "9", "-o", "net.pt")[0] == 0
    recipe = read_bundle("net.pt").manifest.provenance["recipe"]
    assert (recipe["arch"], recipe["seed"], recipe["class_weights"], recipe["loss"]) == ("fc", 9, [1.0, 3.0], "focal")


def test_it_stops_early_and_keeps_the_best_epoch(here, tmp_path):
    # Labels that mean nothing: it can only learn by heart, and the validation loss rises.
    data = data_set(tmp_path / "d", noise(300), np.random.default_rng(4).integers(0, 2, 300))
    recipe = (
        "--arch",
        "fc",
        "--epochs",
        "60",
        "--set",
        "patience=3",
        "--set",
        "schedule=constant",
        "--set",
        "learning_rate=3e-3",
    )
    status, output, _ = here("model", "train", data, *recipe, "-o", "net.pt")
    rows = (tmp_path / "net.history.csv").read_text().splitlines()[1:]
    losses = [float(row.split(",")[4]) for row in rows]
    assert status == 0
    assert len(losses) < 60
    assert losses.index(min(losses)) == len(losses) - 1 - 3
    assert read_bundle("net.pt").manifest.provenance["best"]["validation_loss"] == pytest.approx(min(losses), rel=1e-5)
    assert "Not converged: no better than a constant answer" in output


def test_balanced_sampling_shows_both_classes_equally_and_class_weights_are_applied(tmp_path):
    with DataWriter(tmp_path / "d", ("difference",), 21, "ztf", {}) as writer:
        writer.add(noise(200), label=(np.arange(200) % 10 == 0))
        data = writer.commit()
    loader = Loader(data, data.rows("train"), Recipe(sampling="balanced", batch=10), torch.clone)
    labels = torch.cat([batch.labels for batch in loader.epoch(0)])
    assert labels.mean() == pytest.approx(0.5, abs=0.03)
    assert len(labels) == 250


def test_an_epoch_begun_in_its_middle_is_the_rest_of_it(spots):
    with DataSet(spots) as data:
        loader = Loader(data, data.rows("train"), Recipe(batch=32, random_crop=3), torch.clone)
        whole = list(loader.epoch(1))
        rest = list(loader.epoch(1, 5))
    assert [batch.step for batch in rest] == [batch.step for batch in whole[5:]]
    for a, b in zip(rest, whole[5:], strict=True):
        assert torch.equal(torch.nan_to_num(a.stamps), torch.nan_to_num(b.stamps))


def test_a_turned_stamp_has_the_same_pixels_and_its_middle_stays_the_middle():
    stamps = np.random.default_rng(1).standard_normal((40, 2, 9, 9)).astype(np.float32)
    turned = turn_about(stamps, Recipe(), np.random.default_rng(0))
    assert np.array_equal(turned[..., 4, 4], stamps[..., 4, 4])
    assert np.array_equal(np.sort(turned.reshape(80, -1)), np.sort(stamps.reshape(80, -1)))
    kinds = {turned[i].tobytes() for i in range(40)} & {stamps[i].tobytes() for i in range(40)}
    assert 0 < len(kinds) < 20  # an eighth stays as it was
    assert np.array_equal(turn_about(stamps, Recipe(flips=False, rotations=False), np.random.default_rng(0)), stamps)


def test_rotations_without_flips_never_mirror():
    stamp = np.random.default_rng(1).standard_normal((1, 1, 9, 9)).astype(np.float32)
    turned = turn_about(np.repeat(stamp, 60, axis=0), Recipe(flips=False), np.random.default_rng(0))
    found = {image.tobytes() for image in turned}
    assert found == {np.ascontiguousarray(np.rot90(stamp, k, axes=(2, 3))).tobytes() for k in range(4)}


def test_a_shift_moves_pixels_and_leaves_nan_behind():
    stamps = np.ones((200, 1, 9, 9), np.float32)
    stamps[:, 0, 4, 4] = 5
    moved = turn_about(stamps, Recipe(random_crop=2, flips=False, rotations=False), np.random.default_rng(0))
    at = np.array([np.argwhere(stamp[0] == 5)[0] for stamp in moved]) - 4
    assert at.min() == -2
    assert at.max() == 2
    assert (np.isnan(moved).sum(axis=(1, 2, 3)) == 81 - (9 - np.abs(at)).prod(axis=1)).all()


@pytest.mark.parametrize(
    ("losses", "converged", "word"),
    [
        ([0.6, 0.3, 0.2, 0.15, 0.149, 0.149, 0.148, 0.148, 0.148, 0.148], True, "Converged"),
        ([0.69, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4, 0.35, 0.3, 0.25], False, "still fell"),
        ([0.693] * 10, False, "constant answer"),
        ([0.6, 0.2, 0.3, 0.4, 0.5], True, "epoch 2 of 5, 3 before the last"),
        ([0.5, 0.4], False, "as far as 2 epochs can tell"),
    ],
)
def test_the_verdict_on_the_curves(losses, converged, word):
    history = [Epoch(i + 1, i, loss, 0.9, loss, 0.9) for i, loss in enumerate(losses)]
    found = verdict(history, 0.693, 0, 10_000, 5000)
    assert found.converged is converged
    assert word in found.words


@pytest.mark.parametrize(
    ("gap", "word"), [(0.0, "small"), (0.03, "some is learned by heart"), (0.2, "wide"), (-0.2, "parts differ")]
)
def test_the_verdict_on_the_gap(gap, word):
    found = verdict([Epoch(i, i, 0.1, 0.7, 0.1, 0.7 - gap) for i in range(1, 6)], 0.693, 0, 10_000, 5000)
    assert word in found.words
    assert found.gap == pytest.approx(gap)


def test_the_verdict_calls_no_gap_wide_that_few_stamps_give_by_chance_or_where_nothing_was_learned():
    few = verdict([Epoch(i, i, 0.1, 0.9, 0.1, 0.8) for i in range(1, 6)], 0.693, 0, 20, 10)
    assert "within what chance gives for 20 stamps" in few.words
    nothing = verdict([Epoch(i, i, 0.69, 0.9, 0.69, 0.5) for i in range(1, 6)], 0.693, 0, 10_000, 5000)
    assert "by heart" not in nothing.words


def test_the_verdict_on_soft_labels_measures_from_what_perfect_answers_cost(here, tmp_path):
    stamps, real = noise(300), np.arange(300) % 2
    stamps[real == 1, :, 8:13, 8:13] += 5
    data = data_set(tmp_path / "d", stamps, np.where(real, 0.6, 0.4))
    # The best that there is costs 0.673, a constant answer 0.693: 3% more.
    status, output, _ = here(
        "model", "train", data, "--arch", "fc", "--epochs", "30", "--set", "batch=16", "-o", "net.pt"
    )
    assert status == 0
    assert "constant answer" not in output


def test_a_million_stamps_train_for_a_thousand_steps_within_two_gib(tmp_path):
    stamps, label = noise(1000), np.arange(1000) % 2
    stamps[label == 1, :, 10, 10] += 10
    with DataWriter(tmp_path / "d", ("difference",), 21, "ztf", {}) as writer:
        for _ in range(1000):
            writer.add(stamps, label=label)
        writer.commit().close()
    measured = (
        "import resource, subprocess, sys; code = subprocess.run(sys.argv[1:]).returncode;"
        "print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [*RBSTREAM, "model", "train", tmp_path / "d", "--set", "max_steps=1000", "-o", tmp_path / "net.pt"]
    ended = subprocess.run(
        [RBSTREAM[0], "-c", measured, *map(str, command)], env=environment(), capture_output=True, text=True, check=True
    )
    shutil.rmtree(tmp_path / "d")  # 1.8 GB
    status, kibibytes = map(int, ended.stdout.splitlines()[-1].split())
    assert status == 0, ended.stderr
    assert kibibytes < 2 * 1024**2
    assert json.loads(json.dumps(read_bundle(tmp_path / "net.pt").manifest.provenance))["steps"] == 1000


def test_evaluate_warns_where_scenes_of_the_test_part_were_trained_on(here, spots, tmp_path):
    assert here("model", "train", str(spots), *QUICK, "-o", "net.pt")[0] == 0
    _, output, _ = here("model", "evaluate", "net.pt", str(spots), "--fpr", "0.1")
    assert "trained on" not in output
    assert here("data", "split", str(spots), "-o", "anew", "--split-seed", "5")[0] == 0
    write_spots(tmp_path / "more", rows=200, seed=8).close()
    assert here("data", "import", str(spots), "more", "-o", "joined", "--split-seed", "5")[0] == 0
    for name in ("anew", "joined"):
        status, output, _ = here("model", "evaluate", "net.pt", name, "--fpr", "0.1")
        assert status == 0
        assert "of the scenes of this test part" in " ".join(output.split())
    assert "of the scenes" not in here("model", "evaluate", "net.pt", "more", "--fpr", "0.2")[1]


@pytest.mark.parametrize(("trained", "tested", "seen"), [(500, 800, 500 / 800), (30_000, 40_000, 0.75), (30_000, 0, 0)])
def test_the_share_of_scenes_seen_is_known_from_a_sketch(trained, tested, seen):
    kept = sketch(f"ZTF{i}" for i in range(trained))
    assert len(kept) <= 1024
    assert share_seen(kept, (f"ZTF{i}" for i in range(tested))) == pytest.approx(seen, abs=0.05)


def test_the_verdict_sees_what_accuracy_hides():
    history = [Epoch(i, i, loss, 0.95, 0.2, 0.95) for i, loss in enumerate((0.2, 0.15, 0.1, 0.07, 0.05), 1)]
    assert (
        "the losses part (0.200 in validation, 0.050 in training at the end)"
        in verdict(history, 0.7, 0, 9999, 500).words
    )
    assert "surer of what it has seen" in verdict(history[1:2] * 3, 0.7, 0, 9999, 500).words
    assert "only 2 of the rarer class" in verdict(history, 0.7, 0, 9999, 2).words


def test_a_training_that_is_interrupted_says_where_it_goes_on(spots, tmp_path):
    command = [*RBSTREAM, "model", "train", spots, "--epochs", "2000", "--set", "checkpoint_seconds=0"]
    with subprocess.Popen(
        [*map(str, command), "-o", str(tmp_path / "net.pt")], env=environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None and not (tmp_path / "net.checkpoint").exists():
            pass
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "--resume goes on from" in errors


def test_channels_are_given_on_the_command_line_as_they_are_elsewhere(here, spots):
    assert "has no channel science" in refused(here, str(spots), "--set", "channels=science,difference", status=2)


def test_jitter_adds_noise_and_scale_to_the_image_but_not_to_masked_pixels_nor_their_channel():
    noise = torch.Generator().manual_seed(0)
    stamps = torch.ones(200, 3, 9, 9)
    stamps[:, :, :2] = 0
    noisy = jittered(stamps.clone(), 2, Recipe(jitter_noise=0.4), noise)
    scatter = noisy[:, :2, 2:].std(dim=(1, 2, 3))
    assert 0 < scatter.min() < 0.05
    assert 0.35 < scatter.max() < 0.5
    scaled = jittered(stamps.clone(), 2, Recipe(jitter_scale=0.1), noise)
    assert scaled[:, :2, 2:].log().std().item() == pytest.approx(0.1, rel=0.2)
    assert (scaled[:, :2, 2:].amax(dim=(2, 3)) == scaled[:, :2, 2:].amin(dim=(2, 3))).all()  # one for a channel
    for changed in (noisy, scaled):
        assert torch.equal(changed[:, 2], stamps[:, 2])
        assert (changed[:, :2, :2] == 0).all()
    assert torch.equal(jittered(stamps.clone(), 3, Recipe(), noise), stamps)
