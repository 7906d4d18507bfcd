"""What `rbstream data describe` and `split` say."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.image import imread

from rbstream.lab.dataset import STAMPS, DataSet, DataWriter

Here = Callable[..., tuple[object, str, str]]


def write(stamps: np.ndarray, split: dict[str, Any] | None = None, **columns: Any) -> None:
    """A data set `data` in this folder."""
    channels = ("science", "template", "difference")[: stamps.shape[1]]
    with DataWriter("data", channels, stamps.shape[-1], "ztf", {}) as writer:
        writer.add(stamps.astype(np.float32), **columns)
        writer.commit(split)


def noise(rows: int, channels: int = 1, side: int = 11) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(rows, channels, side, side))


def described(here: Here, *arguments: str) -> dict[str, Any]:
    status, out, error = here("data", "describe", "data", "--json", *arguments)
    assert status == 0, error
    said: dict[str, Any] = json.loads(out)
    return said


def test_counts_are_those_of_the_columns(here: Here) -> None:
    label = np.array([1.0, 0, 0, 0.7, np.nan] * 60)
    stamps = noise(300, 2)
    stamps[label == 1, 0, 0, 0] = np.nan
    stamps[:15, :, -1] = np.nan
    write(
        stamps, label=label, kind=np.array(["a", "b", "c", "", ""] * 60), label_source=np.array(["A"] * 300),
        magpsf=np.arange(300.0), night=np.arange(300) % 4, object=np.array([f"o{i % 50}" for i in range(300)]),
    )  # fmt: skip
    said, data = described(here), DataSet("data")
    assert (said["rows"], said["channels"], said["size"]) == (300, ["science", "template"], 11)
    assert said["classes"] == {"real": 60, "bogus": 120, "soft": 60, "unknown": 60}
    assert said["real_share"] == 0.5
    assert said["label_sources"] == {"A": {"real": 60, "bogus": 120, "soft": 60, "unknown": 60}}
    assert said["kinds"] == {"a": {"real": 60}, "b": {"bogus": 60}, "c": {"bogus": 60}}
    assert said["nan_share"] == {"real": 1.0, "bogus": 0.05, "soft": 0.05, "unknown": 0.05}
    assert said["truncated_share"] == {"real": 0.05, "bogus": 0.05, "soft": 0.05, "unknown": 0.05}
    assert (said["objects"], said["nights"]) == (50, 4)
    assert said["ranges"]["magpsf"] == {"known": 300, "min": 0.0, "median": 149.5, "max": 299.0}
    assert said["ranges"]["fwhm"] is None
    sizes = {name: sum(counts.values()) for name, counts in said["splits"].items()}
    assert sum(sizes.values()) == 300
    assert abs(sizes["validation"] - 45) <= 6  # an object
    assert abs(sizes["test"] - 45) <= 6
    for name, counts in said["splits"].items():
        assert counts["real"] == (data.column("label")[data.rows(name)] == 1).sum()


def test_a_person_reads_the_same_numbers(here: Here) -> None:
    write(noise(300), label=np.arange(300) % 2)
    status, out, _ = here("data", "describe", "data")
    assert status == 0
    assert "300 alerts of 1 x 11 x 11 pixels (science), survey ztf" in out
    assert "50.0% of those with a label are real" in out
    assert out.split("all")[1].split()[:4] == ["150", "150", "0", "0"]
    assert "warning" not in out


def warnings(here: Here) -> str:
    return "\n".join(described(here)["warnings"])


def test_one_class_alone_is_warned_of(here: Here) -> None:
    write(noise(200), label=np.ones(200))
    assert "no alert is bogus" in warnings(here)


def test_classes_that_are_small_are_warned_of(here: Here) -> None:
    write(noise(320), label=np.arange(320) < 30)
    said = warnings(here)
    assert "only 30 alerts are real" in said
    assert "bogus: rates" not in said


def test_masks_that_tell_the_class_are_warned_of(here: Here) -> None:
    stamps, label = noise(400), np.arange(400) % 2
    stamps[np.flatnonzero(label)[:24], 0, 3, 3] = np.nan
    write(stamps, label=label)
    assert "12% of the real alerts have NaN and 0% of the bogus" in warnings(here)


def test_masks_that_do_not_tell_the_class_are_fine(here: Here) -> None:
    stamps = noise(400)
    stamps[:40, 0, 3, 3] = np.nan
    write(stamps, label=np.arange(400) % 2)
    assert warnings(here) == ""


def test_empty_parts_are_warned_of_unless_they_were_asked_to_be_empty(here: Here) -> None:
    names = np.where(np.arange(400) < 200, "one", "other")
    write(noise(400), label=np.arange(400) % 2, object=names, split={"validation": 0.0, "test": 0.5})
    assert warnings(here) == ""
    Path("data").rename("asked")
    write(noise(400), label=np.arange(400) % 2, object=names)
    assert "validation is empty" in warnings(here)
    assert "test is empty" in warnings(here)
    Path("data").rename("empty")
    write(noise(400), label=np.arange(400) < 200, object=names, split={"validation": 0.0, "test": 0.5})
    assert "test has no" in warnings(here)


def test_stamps_without_data_are_warned_of(here: Here) -> None:
    stamps = noise(400)
    stamps[[3, 4, 5]] = np.nan
    write(stamps, label=np.arange(400) % 2)
    assert "3 alerts are all NaN" in warnings(here)


def test_stamps_that_are_in_two_parts_are_warned_of(here: Here) -> None:
    write(np.tile(noise(200), (2, 1, 1, 1)), label=np.arange(400) % 2)
    data = DataSet("data")
    first, second = data.column("split")[:200], data.column("split")[200:]
    assert f"{(first != second).sum()} stamps are in two parts at once" in warnings(here)
    Path("data").rename("torn")
    write(
        np.tile(noise(200), (2, 1, 1, 1)),
        label=np.arange(400) % 2,
        object=np.array([f"o{i % 200}" for i in range(400)]),
    )
    assert warnings(here) == ""


def test_stamps_that_were_changed_are_refused(here: Here) -> None:
    write(noise(20))
    content = bytearray(Path("data", STAMPS).read_bytes())
    content[-1] ^= 1
    Path("data", STAMPS).write_bytes(content)
    status, _, error = here("data", "describe", "data")
    assert (status, "were changed" in error) == (1, True)


def test_the_picture_lies_beside_the_data_and_shows_every_channel(here: Here) -> None:
    stamps = noise(60, 3, 21)
    stamps[:, :, 8:13, 8:13] += 30
    write(stamps, label=np.arange(60) % 2, kind=np.array(["", "ghost"] * 30))
    described(here)
    image = imread("data.png")
    assert image.shape[1] > 5 * 3 * 50
    assert sorted(path.name for path in Path("data").iterdir()) == ["columns.parquet", "data.json", "stamps.npy"]
    described(here, "--picture", "again.png")
    assert Path("again.png").read_bytes() == Path("data.png").read_bytes()
    bright = image[..., :3].min(axis=2) > 0.9
    dark = image[..., :3].max(axis=2) < 0.6
    assert bright.any()
    assert dark.mean() > 0.2


def test_nothing_is_described_without_a_word(here: Here) -> None:
    status, _, error = here("data", "describe", "nowhere")
    assert (status, "no data set" in error) == (1, True)
    write(np.empty((0, 1, 5, 5)))
    status, _, error = here("data", "describe", "data")
    assert (status, "there is nothing in it" in error) == (1, True)


def test_a_split_is_drawn_anew_on_the_command_line(here: Here) -> None:
    write(noise(100), label=np.arange(100) % 2)
    status, out, _ = here("data", "split", "data", "-o", "new", "--split", "0.1,0.4", "--split-seed", "3")
    assert status == 0
    assert "50 train, 10 validation, 40 test" in out
    status, _, error = here("data", "split", "data", "-o", "new")
    assert (status, "is there already" in error) == (2, True)
    status, _, error = here("data", "split", "data", "-o", "x", "--split", "0.9,0.4")
    assert (status, "more than 1 together" in error) == (2, True)
    assert sorted(path.name for path in Path().iterdir()) == ["data", "new"]
