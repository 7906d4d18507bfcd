"""What a path leads to: packets, stacks, FITS cutouts, a data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rbstream.errors import UsageError
from rbstream.lab.dataset import ABOUT, COLUMNS
from rbstream.lab.sources.arrays import Arrays
from rbstream.lab.sources.images import FITS_SUFFIXES, Images
from rbstream.lab.sources.packets import Packets
from rbstream.lab.sources.source import Reading, Source
from rbstream.lab.sources.stored import Stored
from rbstream.output import utf8
from rbstream.replay.sources import STDIN, SUFFIXES

_ARRAYS = (".npy", ".npz")
_CLASSES = {"real": 1.0, "bogus": 0.0}


@dataclass(frozen=True)
class Input:
    """A source, and the label of all that is in it; None where it says that itself."""

    source: Source
    label: float | None = None
    label_source: str = ""


def open_inputs(
    paths: Sequence[str], reading: Reading, real: Sequence[str] = (), bogus: Sequence[str] = ()
) -> list[Input]:
    """What is behind the paths, in order: those whose stamps say what they are, then all real, then all bogus.

    Raises UsageError where a path leads to nothing, or is given twice; as the sources do.
    """
    given = [(path, None) for path in paths] + [(path, 1.0) for path in real] + [(path, 0.0) for path in bogus]
    places = [path if path == STDIN else str(Path(path).resolve()) for path, _ in given]
    if twice := next((path for (path, _), place in zip(given, places, strict=True) if places.count(place) > 1), None):
        raise UsageError(f"{twice}: given twice")
    return [each for path, label in given for each in _open(path, label, reading)]


def _open(path: str, label: float | None, reading: Reading) -> Iterator[Input]:
    folder = Path(path)
    classes = _classes(folder) if label is None and folder.is_dir() else {}
    if not classes:
        source = _source(path, reading)
        yield Input(source, label, source.name if label is not None else "")
    for name, inside in classes.items():
        yield Input(_source(str(inside), reading), _CLASSES[name], utf8(f"{folder.resolve().name}/{inside.name}"))


def _classes(folder: Path) -> dict[str, Path]:
    """Sub-folders named `real` and `bogus`. Raises UsageError where there is something beside them."""
    found = {path.name.lower(): path for path in sorted(folder.glob("*")) if path.is_dir()}
    classes = {name: found[name] for name in _CLASSES if name in found}
    if classes:
        inside = set(classes.values())
        for path in _files(folder, (*FITS_SUFFIXES, *SUFFIXES)):
            if not inside.intersection(path.parents):
                raise UsageError(f"{path}: lies beside {' and '.join(classes)}: of which class is it?")
    return classes


def _source(path: str, reading: Reading) -> Source:
    place = Path(path)
    lower = place.name.lower()
    if place.is_dir():
        return _folder(path, place, reading)
    if lower.endswith(_ARRAYS) and place.is_file():
        return Arrays(path, reading)
    if lower.endswith(FITS_SUFFIXES) and place.is_file():
        return Images(utf8(place.name), [place], reading)
    return Packets(path, reading)


def _folder(path: str, folder: Path, reading: Reading) -> Source:
    if (folder / ABOUT).exists() or (folder / COLUMNS).exists():
        return Stored(path, reading)
    images, packets = _files(folder, FITS_SUFFIXES), _files(folder, SUFFIXES)
    if images and packets:
        raise UsageError(f"{path}: holds FITS files and packets; give each in a folder of its own")
    if images:
        return Images(utf8(folder.resolve().name), images, reading)
    if packets:
        return Packets(path, reading)
    endings = ", ".join((*FITS_SUFFIXES, *SUFFIXES))
    raise UsageError(f"{path}: no data set, and nothing in it ends in {endings}; name .npy and .npz files themselves")


def _files(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.name.lower().endswith(endings) and path.is_file())
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))
