"""Sources into a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbstream.errors import UsageError
from rbstream.lab.dataset import UNKNOWN, DataError, DataSet, DataWriter
from rbstream.lab.sources.find import Input
from rbstream.lab.sources.labels import LabelTable
from rbstream.lab.sources.source import Columns, Part, cropped
from rbstream.lab.split import rule_of
from rbstream.output import utf8
from rbstream.packet.survey import ZTF
from rbstream.progress import Progress

_DEFAULT_CHANNELS = {1: ("difference",), 3: tuple(ZTF.cutouts)}


@dataclass(frozen=True)
class Wanted:
    """What a data set is to be, as far as a person says so.

    crop: side of the middle that is kept. split: as `rbstream.lab.split.SplitRule` has it. repeat: how often all is
    taken; what is taken again is of the same object. drop_empty: leave out stamps without data in any pixel.
    """

    channels: tuple[str, ...] | None = None
    survey: str | None = None
    crop: int | None = None
    labels: Path | None = None
    split: dict[str, Any] = field(default_factory=dict)
    repeat: int = 1
    drop_empty: bool = False


def write(inputs: Sequence[Input], output: Path, wanted: Wanted, doing: str) -> tuple[DataSet, list[str]]:
    """A data set of all inputs, in order, and what a person should know of how it came about.

    Raises UsageError where the inputs don't go together, DataError where one can't be read or none has a stamp,
    OutputError where the data set can't be written.
    """
    if wanted.repeat < 1:
        raise UsageError(f"--repeat {wanted.repeat}: at least 1")
    rule_of(wanted.split)
    channels, side = _agreed_channels(inputs, wanted.channels), _agreed_side(inputs, wanted.crop)
    survey = wanted.survey or _agreed_survey(inputs)
    table = None if wanted.labels is None else LabelTable(wanted.labels)
    with (
        DataWriter(output, channels, side, survey, _origin(inputs, wanted)) as writer,
        Progress(doing, _total(inputs, wanted.repeat)) as progress,
    ):
        behind = dropped = 0
        for _ in range(wanted.repeat):
            first = 0  # rows of what is taken again have the names that they had
            for each in inputs:
                for part in each.source.parts():
                    part = part if wanted.crop is None else cropped(part, side)
                    columns = _columns(each, part, first, table)
                    kept = np.isfinite(part.stamps).any(axis=(1, 2, 3)) | (not wanted.drop_empty)
                    writer.add(part.stamps[kept], **{name: values[kept] for name, values in columns.items()})
                    dropped += int((~kept).sum())
                    first += len(part.stamps)
                    progress.show(len(writer), behind + each.source.position)
                behind += each.source.position
        if not len(writer):
            raise DataError(f"{', '.join(each.source.name for each in inputs)}: not one stamp in it")
        notes = [note for each in inputs for note in each.source.notes()] + (table.note() if table else [])
        notes += [f"{dropped:,} stamps without data in any pixel were left out"] if dropped else []
        return writer.commit(wanted.split), notes


def _columns(given: Input, part: Part, first: int, table: LabelTable | None) -> Columns:
    """All columns, with the label that wins. first: number of the first row, for those without a name."""
    rows = len(part.stamps)
    columns = {name: np.asarray(part.columns.get(name, _unknown(name, rows))) for name in UNKNOWN}
    numbers = np.arange(first, first + rows)
    columns["candid"] = np.where(columns["candid"] == UNKNOWN["candid"], numbers, columns["candid"])
    _check_labels(given.source.name, columns["label"], first)
    if given.label is not None:
        columns["label"] = np.full(rows, given.label, np.float32)
        columns["label_source"] = np.full(rows, given.label_source, object)
    if table is not None:
        columns = table.applied(columns, columns["candid"])
    alone = columns["object"] == ""
    columns["object"] = np.where(alone, [f"row {number}" for number in numbers], columns["object"])
    return columns


def _unknown(name: str, rows: int) -> NDArray[Any]:
    value = UNKNOWN[name]
    return np.full(rows, value, object if isinstance(value, str) else None)


def _check_labels(name: str, label: NDArray[Any], first: int) -> None:
    wrong = np.flatnonzero((label < 0) | (label > 1))
    if len(wrong):
        at = int(wrong[0])
        raise DataError(f"{name}: label {label[at]:g} of row {first + at}: labels have to be in [0, 1]")


def _agreed_channels(inputs: Sequence[Input], wanted: tuple[str, ...] | None) -> tuple[str, ...]:
    counts = {each.source.count: each.source.name for each in inputs}
    if len(counts) > 1:
        raise UsageError(f"not all have as many channels: {_each(counts)}; choose some with --channels")
    (count,) = counts
    if wanted is not None:
        if len(wanted) != count or len(set(wanted)) != count:
            raise UsageError(f"--channels {','.join(wanted)}: {counts[count]} has {count} channels; name each, once")
        return wanted
    named = {each.source.channels: each.source.name for each in inputs if each.source.channels is not None}
    if len(named) > 1:
        said = {", ".join(channels): name for channels, name in named.items()}
        raise UsageError(f"not all have the same channels: {_each(said)}; choose some with --channels")
    if named:
        return next(iter(named))
    if count not in _DEFAULT_CHANNELS:
        raise UsageError(f"{counts[count]}: has {count} channels; name them with --channels, e.g. science,difference")
    return _DEFAULT_CHANNELS[count]


def _agreed_side(inputs: Sequence[Input], crop: int | None) -> int:
    sides = {each.source.side: each.source.name for each in inputs}
    if crop is not None:
        if crop < 1 or crop > min(sides):
            smallest = f"{sides[min(sides)]} has {min(sides)} pixels"
            raise UsageError(f"--crop {crop}: at least 1, and at most the smallest stamps: {smallest}")
        return crop
    if len(sides) > 1:
        raise UsageError(f"not all have the same size: {_each(sides)}; --crop {min(sides)} keeps the middle of each")
    return next(iter(sides))


def _agreed_survey(inputs: Sequence[Input]) -> str:
    surveys = {each.source.survey: each.source.name for each in inputs if each.source.survey}
    if len(surveys) > 1:
        raise UsageError(f"not all are of one survey: {_each(surveys)}; say which it is to be with --survey")
    return next(iter(surveys), "unknown")


def _each(found: dict[Any, str]) -> str:
    return ", ".join(f"{name} has {value}" for value, name in found.items())


def _total(inputs: Sequence[Input], repeat: int) -> int | None:
    totals = [each.source.total for each in inputs]
    known = [total for total in totals if total is not None]
    return repeat * sum(known) if len(known) == len(totals) else None


def _origin(inputs: Sequence[Input], wanted: Wanted) -> dict[str, Any]:
    """What the data set remembers: names, no places and no times, so that the same input gives the same bytes."""
    sources = [each.source.origin | ({} if each.label is None else {"label": each.label}) for each in inputs]
    said = {"crop": wanted.crop, "labels": wanted.labels and utf8(wanted.labels.name), "repeat": wanted.repeat}
    return {"sources": sources, **{name: value for name, value in said.items() if value not in (None, 1)}}
