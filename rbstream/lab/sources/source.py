"""What every source gives: stamps in parts, with what is known of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rbstream.errors import UsageError
from rbstream.lab.dataset import UNKNOWN, Stamps
from rbstream.settings import Limits, Rejects

ROWS_AT_ONCE = 512
"""Stamps in a part, at most: 24 MB of triplets of 63 px."""

Columns = dict[str, NDArray[Any]]

_KINDS: Mapping[str, type] = {
    "candid": np.int64, "object": object, "night": np.int32, "label_source": object, "kind": object,
    "positive": np.int8,
}  # fmt: skip
"""Types of the columns that aren't float."""


class Part(NamedTuple):
    """Some stamps of a source: float32 (n, channels, side, side), NaN where there is nothing; rows and columns that
    each had, int (n, 2); and columns (n,) by the names of `rbstream.lab.dataset.UNKNOWN`, not all of them."""

    stamps: Stamps
    shape: NDArray[np.int64]
    columns: Columns


class Source(Protocol):
    """Stamps from somewhere. Everything here but `parts` and `notes` is known before the first stamp is read.

    channels: their names, None where the source doesn't say. count: how many. side: of the largest stamp [pixels].
    survey: empty where the source doesn't say. total, position: how much there is to read and was read, in stamps; in
    bytes of packets, which nobody counts before; None where that can't be known. origin: what the data set remembers.
    """

    @property
    def name(self) -> str: ...

    @property
    def channels(self) -> tuple[str, ...] | None: ...

    @property
    def count(self) -> int: ...

    @property
    def side(self) -> int: ...

    @property
    def survey(self) -> str: ...

    @property
    def origin(self) -> dict[str, Any]: ...

    @property
    def total(self) -> int | None: ...

    @property
    def position(self) -> int: ...

    def parts(self) -> Iterator[Part]:
        """Its stamps, from the first one at each call. Raises DataError where they can't be read."""
        ...

    def notes(self) -> list[str]:
        """What a person should know of how it was read, when it was."""
        ...


@dataclass(frozen=True)
class Reading:
    """How sources are read, as far as a person says so.

    channels: which, and their names; None for the source's own. soft: what gives a label to those that have none.
    layout: of the axes of stacks, where they don't tell. max_rejected: share of packets that are said loudly if more
    can't be read.
    """

    channels: tuple[str, ...] | None = None
    soft: tuple[str, ...] = ()
    layout: Literal["nchw", "nhwc"] | None = None
    limits: Limits = field(default_factory=Limits)
    max_rejected: float = Rejects().max_ratio

    def chosen(self, there: Sequence[str], name: str) -> tuple[str, ...]:
        """The channels to read of those that are there. Raises UsageError where one is not."""
        if missing := [channel for channel in self.channels or () if channel not in there]:
            raise UsageError(f"{name}: has no channel {', '.join(missing)}; it has {', '.join(there)}")
        return self.channels or tuple(there)


def table(rows: Sequence[Mapping[str, Any]]) -> Columns:
    """Columns of what is known of each row; what is absent or None is unknown."""
    names = [name for name in UNKNOWN if any(name in row for row in rows)]
    return {name: _column(name, [row.get(name) for row in rows]) for name in names}


def _column(name: str, values: list[Any]) -> NDArray[Any]:
    filled = [UNKNOWN[name] if value is None else value for value in values]
    return np.array(filled, _KINDS.get(name, np.float32))


def converted(name: str, values: NDArray[Any], where: str) -> NDArray[Any]:
    """An array as a column's type. Raises UsageError where it is of another kind."""
    wanted = _KINDS.get(name, np.float32)
    kinds = "Uiu" if wanted is object else "fiub" if wanted is np.float32 else "iub"
    if values.dtype.kind not in kinds:
        said = "text" if wanted is object else wanted.__name__
        raise UsageError(f"{where}: array {name!r} is {values.dtype}; as a column it has to be {said}")
    if wanted in (object, np.float32):
        return values.astype(str).astype(object) if wanted is object else values.astype(wanted)
    result: NDArray[Any] = values.astype(wanted)
    if (result != values).any():
        raise UsageError(f"{where}: array {name!r} has numbers that {wanted.__name__} can't hold")
    return result


Opinion = tuple[NDArray[Any], str]
"""Labels (n,), NaN where there is none; and whose they are."""


def first_known(*opinions: Opinion) -> Columns:
    """Labels and their sources, each from the first who has an opinion."""
    label = np.full(len(opinions[0][0]), np.nan, np.float32)
    source = np.full(len(label), "", object)
    for values, name in opinions:
        new = np.isnan(label) & ~np.isnan(values)
        label[new], source[new] = values[new], name
    return {"label": label, "label_source": source}


def stacked(images: Sequence[Sequence[NDArray[np.float32]]], side: int) -> tuple[Stamps, NDArray[np.int64]]:
    """Stamps and their shapes from lists of channels; short ones lie top left as in the pipeline, the rest is NaN."""
    stamps = np.full((len(images), len(images[0]), side, side), np.nan, np.float32)
    for stamp, channels in zip(stamps, images, strict=True):
        for target, image in zip(stamp, channels, strict=True):
            target[: image.shape[0], : image.shape[1]] = image
    shape = [np.max([image.shape for image in channels], axis=0) for channels in images]
    return stamps, np.array(shape, np.int64)


def padded(stamps: NDArray[Any]) -> Stamps:
    """Stamps (n, channels, height, width) as square ones, float32, NaN where there was nothing."""
    *_, height, width = stamps.shape
    side = max(height, width)
    with np.errstate(over="ignore", invalid="ignore"):  # what float32 can't hold becomes infinite, and then NaN
        if height == width:
            return np.asarray(stamps, np.float32)
        result = np.full((*stamps.shape[:2], side, side), np.nan, np.float32)
        result[:, :, :height, :width] = stamps
        return result


def cropped(part: Part, side: int) -> Part:
    """The middle of each stamp: pixel n // 2 of n becomes pixel side // 2.

    Whole stamps, which are square, are cut around their own middle; those cut short by a chip's edge around the
    middle of the square that they are in, as nobody says on which side they lack what.
    """
    full = part.stamps.shape[-1]
    square = (part.shape[:, 0] == part.shape[:, 1]) & (part.shape[:, 0] >= side)
    begins = np.where(square, part.shape[:, 0], full) // 2 - side // 2
    result = np.empty((*part.stamps.shape[:2], side, side), np.float32)
    for begin in np.unique(begins):
        cut = slice(begin, begin + side)
        result[begins == begin] = part.stamps[begins == begin, :, cut, cut]
    shape = np.clip(part.shape - begins[:, None], 0, side)
    return Part(result, shape, part.columns)
