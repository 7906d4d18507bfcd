"""What is evaluated: the labelled alerts of a data set's part, and a network's scores of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rbstream.errors import UsageError
from rbstream.lab.dataset import DataError, DataSet
from rbstream.lab.evaluate.resample import Array
from rbstream.lab.overlap import share_seen
from rbstream.model.manifest import Manifest

if TYPE_CHECKING:
    from rbstream.model.bundle import Scorer

UNDECIDED = (0.1, 0.9)
"""Labels between these are nobody's truth, only another network's doubt: no error can be told by them."""

# What networks score fastest: 32 on a CPU core (its cache), enough to fill a GPU there.
_BATCH = {"cpu": 32, "cuda": 512}


@dataclass(frozen=True)
class Part:
    """The alerts of one part of a data set that can be counted right or wrong; all arrays are (n,)."""

    name: str
    rows: NDArray[np.int64]
    real: NDArray[np.bool_]
    scene: Array
    """Object names: what intervals are drawn by."""
    kind: Array
    """Of event or artefact, '' where unknown."""
    about: dict[str, NDArray[np.float32]]
    """magpsf [mag], fwhm [px] and edge [px], NaN where unknown."""
    undecided: int
    """Labelled alerts left out, whose soft label is inside of `UNDECIDED`."""
    unseen: int
    """Alerts whose stamps hold no data at all."""
    sources: dict[str, int]
    """Alerts by who labelled them."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def reals(self) -> int:
        return int(self.real.sum())

    @property
    def boguses(self) -> int:
        return len(self) - self.reals


def read_part(data: DataSet, split: str) -> Part:
    """The labelled alerts of a part. Raises DataError where there are none, or of one class only."""
    labelled = data.rows(split)
    label = data.column("label")[labelled]
    decided = (label <= UNDECIDED[0]) | (label >= UNDECIDED[1])
    rows, undecided = labelled[decided], int((~decided).sum())
    real = label[decided] >= 0.5
    if not len(rows):
        why = f"all {undecided} labels there are between {UNDECIDED[0]} and {UNDECIDED[1]}" if undecided else "no label"
        raise DataError(
            f"{data.path}: the {split} part has nothing to evaluate ({why}); label it, or split the data anew with "
            "`rbstream data split`"
        )
    if real.all() or not real.any():
        raise DataError(
            f"{data.path}: all {len(rows)} labelled alerts of the {split} part are {'real' if real[0] else 'bogus'}; "
            "both classes are needed to tell them apart"
        )
    names, counts = np.unique(data.column("label_source")[rows].astype(str), return_counts=True)
    unseen = int((data.column("masked")[rows] >= 1).sum())
    sources = dict(zip(names.tolist(), counts.tolist(), strict=True))
    return Part(
        split, rows, real, data.column("object")[rows], data.column("kind")[rows].astype(str),
        {name: data.column(name)[rows] for name in ("magpsf", "fwhm", "edge")},
        undecided, unseen, sources,
    )  # fmt: skip


def check_fits(manifest: Manifest, data: DataSet) -> None:
    """Raises UsageError where the network takes other channels or another size than the data set has."""
    if manifest.channels != data.about.channels or manifest.size != data.about.size:
        raise UsageError(
            f"{manifest.version} takes {_stamps(manifest.channels, manifest.size)}, and {data.path} holds "
            f"{_stamps(data.about.channels, data.about.size)}; give a bundle and data of one shape"
        )


def seen_in_training(manifest: Manifest, data: DataSet, part: Part) -> list[str]:
    """A warning where the network was trained on scenes of this part, as far as its bundle tells."""
    trained = manifest.provenance.get("data")
    scenes = trained.get("scenes") if isinstance(trained, dict) else None
    if not isinstance(scenes, list):
        return []
    seen = share_seen(scenes, data.scenes()[part.rows].tolist())
    if not seen:
        return []
    return [
        f"trained on about {seen:.0%} of the scenes of this {part.name} part: what it knows by heart is measured here. "
        "Evaluate on the data set that it was trained with, or on other scenes."
    ]


def _stamps(channels: tuple[str, ...], size: int) -> str:
    return f"{'/'.join(channels)} of {size}x{size}"


def score_rows(
    scorer: Scorer, data: DataSet, rows: NDArray[np.int64], show: Callable[[int], None] = lambda more: None
) -> NDArray[np.float32]:
    """Probabilities of being real (n,), in batches. show: told of each batch how many it has. Raises ModelError."""
    scores = np.empty(len(rows), np.float32)
    done = 0
    for part, stamps in data.batches(rows, _BATCH[scorer.device.type]):
        scores[done : done + len(part)] = scorer.score(stamps)
        done += len(part)
        show(len(part))
    return scores
