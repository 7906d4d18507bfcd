"""From a bundle and alerts to a folder of pictures, and the numbers that they show."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbstream.errors import UsageError
from rbstream.lab.dataset import ABOUT, DataSet, Stamps
from rbstream.lab.explain.examples import Chosen, DataExamples, Example, Examples, PacketExamples, Selection, choose
from rbstream.lab.explain.examples import classes as classes_of
from rbstream.lab.explain.figures import Maps, alert_figure, mean_figure
from rbstream.lab.explain.occlusion import Fill, occlusion
from rbstream.lab.explain.saliency import Saliency
from rbstream.lab.folder import new_folder
from rbstream.lab.plot import save
from rbstream.model.bundle import Scorer, choose_device, load_scorer
from rbstream.model.manifest import Bundle, read_bundle
from rbstream.progress import Progress
from rbstream.settings import Limits

NUMBERS, MEAN = "explain.json", "mean.png"

SAMPLE = Selection()

LIMIT = 12
"""Alerts explained where nobody says how many: a minute of full triplets on one core (13,467 scores each)."""


@dataclass(frozen=True)
class Request:
    """What to explain, and how. limit: None is `LIMIT`, or all that were named. threshold: None is the bundle's."""

    selection: Selection = SAMPLE
    part: str = "test"
    limit: int | None = None
    threshold: float | None = None
    kernel: int = 5
    stride: int = 1
    fill: Fill = "zero"


@dataclass
class Summary:
    """What was explained. numbers: what explain.json holds; no alerts in it: no folder was written."""

    chosen: Chosen
    numbers: dict[str, Any]
    rejected: dict[str, int] = field(default_factory=dict)


class Explainer:
    """Maps of alerts, of one network on one device, with one kernel. Raises UsageError for a kernel that can't be."""

    def __init__(self, bundle: Bundle, scorer: Scorer, kernel: int = 5, stride: int = 1, fill: Fill = "zero") -> None:
        size = bundle.manifest.size
        if not 1 <= kernel <= size:
            raise UsageError(f"--kernel {kernel}: the stamps are {size}x{size}; from 1 to {size} pixels")
        if not 1 <= stride <= kernel:
            raise UsageError(f"--stride {stride}: from 1 to the kernel's {kernel}, or pixels between were never hidden")
        self._scorer = scorer
        self._saliency = Saliency(bundle, str(scorer.device))
        self._patches: tuple[int, int, Fill] = (kernel, stride, fill)

    def __call__(self, stamps: Stamps) -> Maps:
        """Of one alert's raw stamps (channels, size, size)."""
        return Maps(occlusion(self._scorer, stamps, *self._patches), self._saliency(stamps))


def explain(
    bundle_path: str | Path,
    paths: Sequence[str | Path],
    output: str | Path,
    request: Request = Request(),
    device: str = "auto",
    limits: Limits | None = None,
) -> Summary:
    """Explain alerts of a data set, or of packets (as replay takes them), into a new folder.

    It holds a picture an alert, `MEAN` (mean maps by label, and by what the network says) and `NUMBERS`: the same
    bytes for the same input. Where nothing was chosen no folder is written.
    Raises UsageError for what can't be done as asked, DataError and ModelError for data and bundles.
    """
    if Path(output).exists():
        raise UsageError(f"{output}: is there already; name a folder that isn't")
    bundle = read_bundle(bundle_path)
    scorer = load_scorer(bundle, choose_device(device))
    explainer = Explainer(bundle, scorer, request.kernel, request.stride, request.fill)
    threshold = bundle.manifest.threshold if request.threshold is None else request.threshold
    limit = request.limit or len(request.selection.numbers) or LIMIT
    with ExitStack() as stack:
        source = _source(paths, request.part, scorer, limits or Limits(), stack)
        chosen = choose(source, request.selection, threshold, limit)
    numbers = {
        "model": bundle.manifest.version,
        "data": source.identity,
        "threshold": threshold,
        **{name: value for name, value in asdict(request).items() if name not in ("threshold", "limit")},
        "labelled": chosen.labelled,
        "found": chosen.found,
        "alerts": [],
        "means": {},
    }
    if chosen.examples:
        _write(Path(output), chosen.examples, explainer, bundle.manifest.channels, threshold, numbers)
    return Summary(chosen, numbers, dict(source.rejected))


def _source(paths: Sequence[str | Path], part: str, scorer: Scorer, limits: Limits, stack: ExitStack) -> Examples:
    """What the paths lead to, open until the stack is left."""
    sets = [path for path in paths if (Path(path) / ABOUT).exists()]
    for path in paths:
        if Path(path).suffix in (".npy", ".npz"):
            raise UsageError(f"{path}: a stack has to be a data set first; `rbstream data import` makes one")
    if not sets:
        return PacketExamples([str(path) for path in paths], scorer, limits)
    if len(paths) > 1:
        raise UsageError(f"{sets[0]}: is a data set; one alone, or packets (`rbstream data import` joins data sets)")
    return DataExamples(stack.enter_context(DataSet(sets[0])), part, scorer)


def _write(
    output: Path,
    examples: list[Example],
    explainer: Explainer,
    channels: tuple[str, ...],
    threshold: float,
    numbers: dict[str, Any],
) -> None:
    means = Means(classes_of(examples, threshold))
    with new_folder(output) as folder, Progress("explaining", len(examples)) as progress:
        for index, example in enumerate(examples):
            maps = explainer(example.stamps)
            means.add(index, maps)
            save(alert_figure(example, maps, channels), folder / _picture(example))
            numbers["alerts"].append(_described(example, maps, channels))
            progress.show(index + 1, index + 1)
        found = means.maps()
        numbers["means"] = {name: {"alerts": n, **_peaks(maps, channels)} for name, (n, maps) in found.items()}
        save(mean_figure(found, channels), folder / MEAN)
        (folder / NUMBERS).write_text(json.dumps(numbers, indent=1) + "\n")


class Means:
    """Mean maps of classes, summed alert by alert. classes: indices of the alerts by the class's name."""

    def __init__(self, classes: dict[str, list[int]]) -> None:
        self._classes = {name: set(members) for name, members in classes.items()}
        self._sums: dict[str, list[NDArray[np.float64]]] = {}

    def add(self, index: int, maps: Maps) -> None:
        """The maps of the alert with this index. Where there was no slope there is nothing to add."""
        values = [np.nan_to_num(each.astype(np.float64)) for each in maps]
        for name, members in self._classes.items():
            if index in members:
                so_far = self._sums.get(name)
                self._sums[name] = values if so_far is None else [a + b for a, b in zip(so_far, values, strict=True)]

    def maps(self) -> dict[str, tuple[int, Maps]]:
        """How many alerts each class has, and their mean maps."""
        return {
            name: (len(members), Maps(*((total / len(members)).astype(np.float32) for total in self._sums[name])))
            for name, members in self._classes.items()
        }


def _picture(example: Example) -> str:
    return f"alert-{example.number:06d}.png"


def _described(example: Example, maps: Maps, channels: tuple[str, ...]) -> dict[str, Any]:
    return {
        "number": example.number,
        "candid": example.candid,
        "object": example.object_id,
        "label": example.label if example.labelled else None,
        "kind": example.kind,
        "score": example.score,
        "picture": _picture(example),
        **_peaks(maps, channels),
        "pixels_without_slope": int(np.isnan(maps.saliency).sum()),
    }


def _peaks(maps: Maps, channels: tuple[str, ...]) -> dict[str, Any]:
    return {
        "occlusion": {
            name: {"highest": _peak(values, np.nanmax), "lowest": _peak(values, np.nanmin)}
            for name, values in zip(channels, maps.occlusion, strict=True)
        },
        "saliency": {
            name: {"highest": _peak(np.nan_to_num(values), np.nanmax)}
            for name, values in zip(channels, maps.saliency, strict=True)
        },
    }


def _peak(values: NDArray[np.float32], extreme: Callable[[Any], Any]) -> dict[str, float]:
    """The extreme value and its pixel, x along rows and y up, from 0; the middle of all pixels that share it."""
    value = extreme(values)
    rows, columns = np.nonzero(values == value)
    return {"x": float(columns.mean()), "y": float(rows.mean()), "value": float(value)}
