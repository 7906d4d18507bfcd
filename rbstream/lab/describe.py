"""A data set, described: how much of what is in it, what a network could learn that it shouldn't, and how it looks."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbstream.lab.dataset import SPLITS, DataError, DataSet
from rbstream.lab.plot import STAMP, new_figure, save
from rbstream.output import utf8
from rbstream.progress import Progress
from rbstream.report.stamps import GAP, GAP_WIDTH, LEVELS, stretch

CLASSES = ("real", "bogus", "soft", "unknown")
"""By label: 1, 0, between, none."""

_FEW = 100  # of a class: fewer, and each alert moves its rate by more than a point
_TOO_FEW = 10  # of a class in a part: fewer, and a rate there is a guess
_NAN_DIFFERENCE = 0.05  # between the classes' shares with NaN: more, and a mask tells something of the class
_STAMPS_IN_A_ROW = 15  # of the picture: five triplets, or fifteen single stamps; what a screen shows at once
_LINES = 9  # of the picture, shared out to the groups where they are fewer
_PANEL = 0.85  # inch a stamp: 93 px at the lab's resolution, so that one of 63 px is not shrunk


def describe(data: DataSet) -> dict[str, Any]:
    """Counts, shares, ranges and warnings, ready for JSON. Reads all stamps once.

    Raises DataError where there are none, or not those that were written.
    """
    if not len(data):
        raise DataError(f"{data.path}: there is nothing in it")
    label, split = data.column("label"), data.column("split")
    classes = class_of(label)
    nan, truncated = data.column("masked") > 0, data.column("truncated").astype(bool)
    groups = {name: classes == i for i, name in enumerate(CLASSES)}
    labelled, real = int(np.isfinite(label).sum()), int((label >= 0.5).sum())
    result: dict[str, Any] = {
        "data": utf8(data.path.resolve().name),
        "identity": data.identity,
        "rows": len(data),
        "channels": list(data.about.channels),
        "size": data.about.size,
        "survey": data.about.survey,
        "classes": {name: int(group.sum()) for name, group in groups.items()},
        "real_share": _share(real, labelled),
        "label_sources": _counted(data.column("label_source"), classes),
        "kinds": _counted(data.column("kind"), classes),
        "nan_share": {name: _share(nan[group].sum(), group.sum()) for name, group in groups.items()},
        "truncated_share": {name: _share(truncated[group].sum(), group.sum()) for name, group in groups.items()},
        "splits": {
            name: {c: int((group & (split == i)).sum()) for c, group in groups.items()} for i, name in enumerate(SPLITS)
        },
        "split": data.about.split,
        "objects": len(set(data.column("object").tolist())),
        "nights": len(np.unique(data.column("night")[data.column("night") >= 0])),
        "ranges": {name: _range(data.column(name)) for name in ("magpsf", "fwhm", "snr")},
        "source": data.about.source,
    }
    hashes = _hashes(data)
    return result | {"warnings": list(_warnings(data, result, nan, hashes))}


def class_of(label: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """Index into `CLASSES` of each label (n,)."""
    return np.select([label == 1, label == 0, np.isfinite(label)], [0, 1, 2], 3)


def _share(part: Any, whole: Any) -> float | None:
    return round(float(part) / float(whole), 4) if whole else None


def _counted(values: NDArray[Any], classes: NDArray[np.int64]) -> dict[str, dict[str, int]]:
    """How many there are of each value and class; of what has no value, nothing."""
    pairs = Counter(zip(values.tolist(), classes.tolist(), strict=True))
    names = sorted({name for name, _ in pairs if name})
    return {name: {c: pairs[name, i] for i, c in enumerate(CLASSES) if pairs[name, i]} for name in names}


def _range(values: NDArray[np.floating[Any]]) -> dict[str, float | int] | None:
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    low, middle, high = (round(float(v), 3) for v in (known.min(), np.median(known), known.max()))
    return {"known": len(known), "min": low, "median": middle, "max": high}


def _hashes(data: DataSet) -> NDArray[np.uint64]:
    """64 bits of each stamp's bytes: 8 MB for a million. Two different ones agree once in 10^7 such data sets."""
    hashes = np.empty(len(data), np.uint64)
    whole = hashlib.sha256()
    with Progress("describing", len(data)) as progress:
        for rows, stamps in data.batches(np.arange(len(data))):
            for row, stamp in zip(rows.tolist(), stamps, strict=True):
                digest = hashlib.blake2b(stamp.data, digest_size=8).digest()
                hashes[row] = int.from_bytes(digest, "little")
            whole.update(stamps.data)
            progress.show(int(rows[-1]) + 1, int(rows[-1]) + 1)
    if whole.hexdigest() != data.about.stamps_sha256:
        raise DataError(f"{data.path}: its stamps were changed since it was made (another SHA-256); make it anew")
    return hashes


def _warnings(data: DataSet, said: dict[str, Any], nan: NDArray[np.bool_], hashes: NDArray[np.uint64]) -> Iterator[str]:
    label, split = data.column("label"), data.column("split")
    real, bogus = label >= 0.5, label < 0.5
    for name, group in (("real", real), ("bogus", bogus)):
        count = int(group.sum())
        if not count:
            yield f"no alert is {name}: nothing can be learned or measured of one class alone"
        elif count < _FEW:
            yield f"only {count:,} alerts are {name}: rates of fewer than {_FEW} are rough"
    if real.any() and bogus.any():
        shares = float(nan[real].mean()), float(nan[bogus].mean())
        if abs(shares[0] - shares[1]) > _NAN_DIFFERENCE:
            yield (
                f"{shares[0]:.0%} of the real alerts have NaN and {shares[1]:.0%} of the bogus: "
                "a network could learn that instead"
            )
        yield from _empty_splits(split, real, bogus, data.about.split)
    empty = int((data.column("masked") == 1).sum())
    if empty:
        yield f"{empty:,} alerts are all NaN: nobody can say what they are"
    opinions = int((data.column("label_source") == "consensus").sum())
    if opinions:
        yield f"{opinions:,} labels are a consensus of other networks, not truth: they can't judge those networks"
    candid = data.column("candid")
    twice = len(candid) - len(np.unique(candid))
    if twice:
        yield f"{twice:,} alerts have the candid of another: a table of labels by candid is for all of them"
    unused = int((split == SPLITS.index("unused")).sum())
    if unused:
        yield f"{unused:,} alerts are unused: their object is in nights of two parts"
    torn = _torn(hashes, split, data.column("masked") == 1)
    if torn:
        yield f"{torn:,} stamps are in two parts at once, byte for byte: what is learned is measured there"


def _empty_splits(
    split: NDArray[np.int8], real: NDArray[np.bool_], bogus: NDArray[np.bool_], rule: dict[str, Any]
) -> Iterator[str]:
    """Parts that lack a class, but for those that were asked to be empty."""
    wanted = {
        "train": rule["validation"] + rule["test"] < 1, "validation": rule["validation"] > 0, "test": rule["test"] > 0
    }  # fmt: skip
    for name in (name for name, share in wanted.items() if share):
        here = split == SPLITS.index(name)
        counts = {what: int((here & group).sum()) for what, group in (("real", real), ("bogus", bogus))}
        if not any(counts.values()):
            yield f"{name} is empty: no alert with a label; there may be too few nights or objects to divide"
            continue
        for what, count in counts.items():
            if count < _TOO_FEW:
                yield f"{name} has {count or 'no'} {what} alert{'s' * (count > 1)}; another --split-seed may have more"


def _torn(hashes: NDArray[np.uint64], split: NDArray[np.int8], empty: NDArray[np.bool_]) -> int:
    """Different stamps that are in more than one part."""
    used = (split != SPLITS.index("unused")) & ~empty
    pairs = np.unique(np.stack([hashes[used], split[used].astype(np.uint64)]), axis=1)
    _, parts = np.unique(pairs[0], return_counts=True)
    return int((parts > 1).sum())


def picture(data: DataSet, path: str | Path) -> None:
    """Some alerts of each class and kind, their channels side by side, as a PNG. Raises OutputError."""
    groups = list(_groups(data))
    channels = data.shape[0]
    columns, lines = max(1, _STAMPS_IN_A_ROW // channels), max(1, _LINES // len(groups))
    width, height = _PANEL * channels * columns + 0.3, (_PANEL * lines + 0.3) * len(groups) + 0.4
    figure, axes = new_figure(width, height, rows=len(groups))
    figure.suptitle(f"{utf8(data.path.resolve().name)}: {' | '.join(data.about.channels)}")
    rng = np.random.default_rng(0)  # which ones doesn't matter, but that they are the same each time
    for axis, (title, rows) in zip(np.atleast_1d(axes), groups, strict=True):
        chosen = np.sort(rng.choice(rows, min(columns * lines, len(rows)), replace=False))
        levels = _sheet(data.stamps(chosen), columns, lines)
        axis.imshow(np.ma.masked_equal(levels, GAP), STAMP, vmin=0, vmax=LEVELS - 1, interpolation="nearest")
        axis.set_title(title, loc="left", fontsize=9)
        axis.set_axis_off()
    save(figure, path)


def _groups(data: DataSet) -> Iterable[tuple[str, NDArray[np.int64]]]:
    """Rows of each class and kind, with a title."""
    classes, kinds = class_of(data.column("label")), data.column("kind")
    for index, name in enumerate(CLASSES):
        here = classes == index
        for kind in sorted(set(kinds[here].tolist())):
            rows = np.flatnonzero(here & (kinds == kind))
            yield f"{name}{f' · {kind}' if kind else ''} ({len(rows):,})", rows


def _sheet(stamps: NDArray[np.float32], columns: int, lines: int) -> NDArray[np.uint8]:
    """Levels of brightness of some alerts (n, channels, size, size) in lines and columns, first row at the bottom."""
    _, channels, size, _ = stamps.shape
    wide = 2 * GAP_WIDTH + size // 10  # between alerts, to be told from that between channels
    width, height = channels * (size + GAP_WIDTH) + wide, size + wide
    levels = np.full((lines * height - wide, columns * width - wide), GAP, np.uint8)
    for place, stamp in enumerate(stamps):
        top, left = place // columns * height, place % columns * width
        for channel, image in enumerate(stamp):
            begin = left + channel * (size + GAP_WIDTH)
            levels[top : top + size, begin : begin + size] = stretch(image)[::-1]
    return levels
