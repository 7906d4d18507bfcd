"""Data sets on disk, and how they are split."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbstream.errors import UsageError
from rbstream.lab.dataset import ABOUT, COLUMNS, SPLITS, STAMPS, DataError, DataSet, DataWriter, split_anew
from rbstream.lab.split import SplitRule, assign

TRAIN, VALIDATION, TEST, UNUSED = range(4)


def write(path: Path, rows: int = 40, split: dict[str, Any] | None = None, **columns: Any) -> DataSet:
    """A data set of noise."""
    stamps = np.random.default_rng(1).normal(size=(rows, 2, 9, 9)).astype(np.float32)
    with DataWriter(path, ["science", "difference"], 9, "ztf", {"made": "by a test"}) as writer:
        writer.add(stamps[: rows // 2], **{name: values[: rows // 2] for name, values in columns.items()})
        writer.add(stamps[rows // 2 :], **{name: values[rows // 2 :] for name, values in columns.items()})
        return writer.commit(split)


def test_a_data_set_is_read_in_this_thread_alone(tmp_path: Path) -> None:
    """A thread of Arrow's gives Python's buffers back when it likes, be it while Python ends."""
    write(tmp_path / "data")
    code = (
        "import os, sys; from rbstream.lab.dataset import DataSet;"
        "threads = lambda: len(os.listdir('/proc/self/task')); before = threads();"
        "DataSet(sys.argv[1]).column('label'); print(threads() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "data"], capture_output=True, text=True, check=True)
    assert int(done.stdout) == 0


# ---- splits

alerts = st.lists(st.tuples(st.integers(0, 30), st.integers(-1, 25)), min_size=1, max_size=200)
rules = st.builds(
    SplitRule,
    seed=st.integers(0, 5),
    validation=st.floats(0, 0.4),
    test=st.floats(0, 0.4),
    by=st.sampled_from(["auto", "night", "object"]),
)


def assigned(rows: list[tuple[int, int]], rule: SplitRule) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    objects, nights = np.array([f"o{o}" for o, _ in rows], object), np.array([night for _, night in rows])
    if (nights < 0).all():
        rule = rule.model_copy(update={"by": "auto"})  # by night is refused then
    return objects, nights, assign(objects, nights, rule)


@given(alerts, rules)
def test_no_object_is_in_two_parts(rows: list[tuple[int, int]], rule: SplitRule) -> None:
    objects, _, parts = assigned(rows, rule)
    for name in set(objects):
        assert len(set(parts[objects == name]) - {UNUSED}) <= 1


@given(alerts, rules)
def test_no_night_is_in_two_parts_where_nights_are_what_is_split_by(
    rows: list[tuple[int, int]], rule: SplitRule
) -> None:
    _, nights, parts = assigned(rows, rule.model_copy(update={"by": "night"}))
    for night in set(nights[nights >= 0]):
        assert len(set(parts[nights == night]) - {UNUSED}) <= 1


@given(alerts, rules)
def test_the_same_seed_gives_the_same_parts(rows: list[tuple[int, int]], rule: SplitRule) -> None:
    np.testing.assert_array_equal(assigned(rows, rule)[2], assigned(rows, rule)[2])


@given(alerts, rules)
def test_unused_are_only_alerts_whose_object_is_used_elsewhere(rows: list[tuple[int, int]], rule: SplitRule) -> None:
    objects, _, parts = assigned(rows, rule)
    assert set(objects[parts == UNUSED]) <= set(objects[parts != UNUSED])


@given(alerts, rules)
def test_a_part_whose_share_is_0_is_empty(rows: list[tuple[int, int]], rule: SplitRule) -> None:
    parts = assigned(rows, rule.model_copy(update={"validation": 0.0}))[2]
    assert not (parts == VALIDATION).any()


@given(st.integers(0, 20), st.floats(0, 0.5), st.floats(0, 0.5), st.integers(1, 5))
def test_shares_of_many_objects_are_what_was_asked_for(seed: int, validation: float, test: float, each: int) -> None:
    objects = np.array([f"o{i // each}" for i in range(600)], object)
    rule = SplitRule(seed=seed, validation=validation, test=test)
    shares = np.bincount(assign(objects, np.full(600, -1), rule), minlength=3) / 600
    np.testing.assert_allclose(shares, [1 - validation - test, validation, test], atol=each / 600 + 1e-9)


def test_shares_of_many_nights_are_near_what_was_asked_for() -> None:
    rng = np.random.default_rng(2)
    nights = rng.integers(0, 60, 3000)
    objects = np.array([f"o{i}" for i in range(3000)], object)
    parts = assign(objects, nights, SplitRule(validation=0.2, test=0.1))
    assert all(len(set(parts[nights == night])) == 1 for night in range(60))
    np.testing.assert_allclose(np.bincount(parts) / 3000, [0.7, 0.2, 0.1], atol=0.02)


def test_another_seed_gives_other_parts() -> None:
    objects = np.array([f"o{i}" for i in range(200)], object)
    first, second = (assign(objects, np.full(200, -1), SplitRule(seed=seed)) for seed in (0, 1))
    assert (first != second).any()


def test_few_nights_are_not_divided_unless_asked() -> None:
    objects, nights = np.array([f"o{i}" for i in range(90)], object), np.arange(90) % 9
    assert any(len(set(assign(objects, nights, SplitRule())[nights == night])) > 1 for night in range(9))
    by_night = assign(objects, nights, SplitRule(by="night"))
    assert all(len(set(by_night[nights == night])) == 1 for night in range(9))


def test_a_split_that_cannot_be_is_refused(tmp_path: Path) -> None:
    for rule, said in (
        ({"validation": 0.7, "test": 0.7}, "more than 1 together"),
        ({"test": -0.1}, "split test"),
        ({"by": "alert"}, "split by"),
        ({"by": "night"}, "nothing here has a night"),
    ):
        with pytest.raises(UsageError, match=said):
            write(tmp_path / "data", split=rule)
        assert not any(tmp_path.iterdir())


# ---- what is written is what is read


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 39), max_size=20))
def test_rows_are_read_in_any_order(tmp_path_factory: pytest.TempPathFactory, rows: list[int]) -> None:
    with write(tmp_path_factory.mktemp("any") / "data") as data:
        stamps = np.load(data.path / STAMPS)
        np.testing.assert_array_equal(data.stamps(np.array(rows, int)), stamps[rows])
        together = [part for _, part in data.batches(np.array(rows, int), 7)]
        np.testing.assert_array_equal(np.concatenate([*together, stamps[:0]]), stamps[rows])


def test_columns_are_what_was_added_and_what_was_not_is_unknown(tmp_path: Path) -> None:
    label = np.array([0, 1, 0.25, np.nan] * 10)
    data = write(tmp_path / "data", label=label, kind=np.array(["a", ""] * 20), night=np.arange(40))
    np.testing.assert_array_equal(data.column("label"), label)
    assert data.column("kind").tolist() == ["a", ""] * 20
    assert data.column("candid").tolist() == list(range(40))
    assert len(set(data.column("object"))) == 40
    assert set(data.column("positive")) == {-1}
    assert np.isnan(data.column("magpsf")).all()
    everywhere = np.sort(np.concatenate([data.rows(name, labelled=False) for name in SPLITS]))
    np.testing.assert_array_equal(everywhere, np.arange(40))
    assert len(data.rows()) == 30


def test_fills_and_infinities_are_no_data(tmp_path: Path) -> None:
    stamps = np.zeros((3, 1, 5, 5), np.float32)
    stamps[0, 0, 0] = -3.4e38  # a row of fill: truncated, as far as 2 px from the middle
    stamps[1, 0, 2, 3] = np.inf
    with DataWriter(tmp_path / "data", ["difference"], 5, "ztf", {}) as writer:
        writer.add(stamps)
        data = writer.commit()
    np.testing.assert_array_equal(np.isnan(data.stamps(np.arange(3))), np.abs(stamps) > 1e30)
    assert data.column("truncated").tolist() == [True, False, False]
    assert data.column("edge").tolist() == [2, 1, 2.5]
    np.testing.assert_allclose(data.column("masked"), [0.2, 0.04, 0])


@pytest.mark.parametrize(
    ("columns", "said"),
    [({"label": 1.5}, "labels"), ({"colour": 1}, "colour"), ({"kind": np.array(["a"])}, "shape")],
)
def test_a_writer_refuses_what_makes_no_sense(tmp_path: Path, columns: dict[str, Any], said: str) -> None:
    with DataWriter(tmp_path / "data", ["difference"], 5, "ztf", {}) as writer, pytest.raises(ValueError, match=said):
        writer.add(np.zeros((3, 1, 5, 5), np.float32), **columns)
    with DataWriter(tmp_path / "data", ["difference"], 5, "ztf", {}) as writer, pytest.raises(ValueError, match="not"):
        writer.add(np.zeros((3, 1, 5, 6), np.float32))
    assert not any(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    write(tmp_path / "data")
    with pytest.raises(UsageError, match="is there already"):
        write(tmp_path / "data")


# ---- split anew


def test_split_anew_changes_the_parts_alone_and_shares_the_stamps(tmp_path: Path) -> None:
    old = write(tmp_path / "old", label=np.arange(40) % 2, object=np.array([f"o{i // 2}" for i in range(40)]))
    before = {path.name: path.read_bytes() for path in old.path.iterdir()}
    new = split_anew(old, tmp_path / "new", {"validation": 0.25, "test": 0.5, "seed": 3})
    assert {path.name: path.read_bytes() for path in old.path.iterdir()} == before
    assert (tmp_path / "new" / STAMPS).samefile(tmp_path / "old" / STAMPS)
    for name in ("candid", "object", "label", "kind"):
        np.testing.assert_array_equal(new.column(name), old.column(name))
    assert np.bincount(new.column("split")).tolist() == [10, 10, 20]
    assert new.identity != old.identity
    again = split_anew(new, tmp_path / "again", old.about.split)
    assert again.identity == old.identity
    with pytest.raises(UsageError, match="is there already"):
        split_anew(old, tmp_path / "new", {})


def test_split_anew_copies_where_there_are_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    old = write(tmp_path / "old")
    monkeypatch.setattr("os.link", refuse)
    new = split_anew(old, tmp_path / "new", {"seed": 3})
    assert not (tmp_path / "new" / STAMPS).samefile(tmp_path / "old" / STAMPS)
    np.testing.assert_array_equal(new.stamps(np.arange(40)), old.stamps(np.arange(40)))


# ---- damage is refused with words


def cut(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])


def test_a_data_set_cut_short_or_changed_is_refused(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole").path

    def damaged(damage: Any) -> str:
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
        shutil.copytree(whole, tmp_path / "data")
        damage(tmp_path / "data")
        with pytest.raises(DataError) as error:
            DataSet(tmp_path / "data")
        return str(error.value)

    size = (whole / STAMPS).stat().st_size
    for length in (0, 60, 128, size // 2, size - 1):
        assert STAMPS in damaged(lambda data, length=length: cut(data / STAMPS, length))
    assert "cut short" in damaged(lambda data: cut(data / STAMPS, size - 1))
    assert STAMPS in damaged(lambda data: (data / STAMPS).write_bytes(b"\x93NUMPY\x01\x00\x76\x00" + b"(" * 118))
    assert "cut short or changed" in damaged(lambda data: cut(data / COLUMNS, 100))
    assert "cut short or changed" in damaged(lambda data: (data / COLUMNS).write_bytes(bytes(500)))
    for name in (ABOUT, STAMPS, COLUMNS):
        assert name in damaged(lambda data, name=name: (data / name).unlink())
    assert "can't be read" in damaged(lambda data: cut(data / ABOUT, 50))

    def about(**changes: Any) -> Any:
        return lambda data: (data / ABOUT).write_text(json.dumps(json.loads((data / ABOUT).read_text()) | changes))

    assert "has format 2" in damaged(about(format=2))
    assert "damaged" in damaged(about(rows="many"))
    assert "make the data set anew" in damaged(about(rows=39))
    assert "make the data set anew" in damaged(about(channels=["science"]))
    DataSet(whole)


def test_a_file_that_shrinks_while_it_is_read_is_said(tmp_path: Path) -> None:
    with write(tmp_path / "data") as data:
        cut(data.path / STAMPS, 1000)
        with pytest.raises(DataError, match="row 39"):
            data.stamps(np.array([39]))
        with pytest.raises(IndexError, match="row 40 of 40"):
            data.stamps(np.array([40]))
