"""FITS cutouts: a channel a file, or all of them in one image of three axes."""

from __future__ import annotations

import gzip
import re
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from rbstream.cutout import decode_cutout
from rbstream.errors import Rejection, UsageError
from rbstream.lab.dataset import DataError
from rbstream.lab.sources.source import ROWS_AT_ONCE, Part, Reading, stacked, table
from rbstream.packet.survey import ZTF

FITS_SUFFIXES = (".fits", ".fits.gz", ".fit", ".fit.gz")

_CHANNELS = {
    "sci": "science", "science": "science", "scientific": "science",
    "ref": "template", "reference": "template", "template": "template",
    "diff": "difference", "difference": "difference",
}  # fmt: skip
_NAME = re.compile(rf"(?P<stem>.+?)(?:[_.-](?P<channel>{'|'.join(_CHANNELS)}))?\.fits?(?:\.gz)?", re.IGNORECASE)
# As ZTF names its cutouts, candid697252383015010006_pid..., or the number alone.
_CANDID = re.compile(r"(?:candid)?([0-9]{1,18})(?:_.*)?")

Group = dict[str, Path]
"""One alert's files by channel; by "" where the names don't tell one."""


class Images:
    """The cutouts in FITS files, in the order of their names. Each is an object of its own.

    Raises UsageError for files that don't go together, DataError for one that can't be read.
    """

    def __init__(self, name: str, files: Sequence[Path], reading: Reading) -> None:
        self.name, self._reading = name, reading
        groups = _grouped(files, name)
        there = next(iter(groups.values())).keys()
        self._groups = list(groups.items())
        self._by_name = "" not in there
        self.channels = reading.chosen([c for c in ZTF.cutouts if c in there], name) if self._by_name else None
        shapes = {}
        for stem, group in self._groups:
            read = [group[channel] for channel in self.channels] if self.channels else list(group.values())
            shapes[stem] = [_shape(path) for path in read]
        self.count = len(self.channels) if self.channels else _channels(shapes, name)
        self.side = max(max(shape[-2:]) for each in shapes.values() for shape in each)
        if self.side > reading.limits.cutout_side:
            raise UsageError(f"{name}: cutouts of {self.side} pixels are larger than limits.cutout_side")
        self.survey, self.total, self.origin = "", len(self._groups), {"images": name}
        self._done = 0

    @property
    def position(self) -> int:
        return self._done

    def parts(self) -> Iterator[Part]:
        self._done = 0
        while self._done < len(self._groups):
            groups = self._groups[self._done : self._done + ROWS_AT_ONCE]
            stamps, shape = stacked([self._stamp(group) for _, group in groups], self.side)
            self._done += len(groups)
            yield Part(stamps, shape, table([{"candid": _candid(stem)} for stem, _ in groups]))

    def notes(self) -> list[str]:
        return []

    def _stamp(self, group: Group) -> list[NDArray[np.float32]]:
        if self.channels:
            return [self._image(group[channel]) for channel in self.channels]
        return list(self._cube(group[""]))

    def _image(self, path: Path) -> NDArray[np.float32]:
        try:
            return decode_cutout(path.read_bytes(), self._reading.limits)
        except Rejection as rejection:
            raise DataError(f"{path}: {rejection.detail}") from rejection
        except OSError as error:
            raise _unreadable(path, error) from error

    def _cube(self, path: Path) -> NDArray[np.float32]:
        if self.count == 1 and len(_shape(path)) == 2:
            return self._image(path)[None]
        try:
            with warnings.catch_warnings(), fits.open(path, memmap=False) as hdus:
                warnings.simplefilter("ignore")  # astropy mends many small faults, and says so
                return np.asarray(hdus[0].data, np.float32)
        except _FITS_ERRORS as error:
            raise _unreadable(path, error) from error


_FITS_ERRORS = (OSError, ValueError, TypeError, KeyError, EOFError, zlib.error)


def _grouped(files: Sequence[Path], name: str) -> dict[str, Group]:
    """Files by alert and channel. Raises UsageError where one alert has other channels than another."""
    groups: dict[str, Group] = {}
    for path in files:
        match = _NAME.fullmatch(path.name)
        if match is None:
            raise UsageError(f"{path}: no name of a FITS file, such as 17_sci.fits")
        channel = _CHANNELS[match["channel"].lower()] if match["channel"] else ""
        group = groups.setdefault(str(path.parent / match["stem"]), {})
        if channel in group:
            raise UsageError(f"{path}: {group[channel].name} is its {channel or 'image'} already")
        group[channel] = path
    everything = {channel for group in groups.values() for channel in group}
    for stem, group in groups.items():
        if missing := everything - group.keys():
            lacks = ", ".join(sorted(channel or "image without a channel in its name" for channel in missing))
            raise UsageError(f"{name}: {Path(stem).name} has no {lacks}, which others have; all need the same channels")
    return groups


def _shape(path: Path) -> tuple[int, ...]:
    """Of the primary image, as its header says it, after what can be refused was."""
    try:
        with warnings.catch_warnings(), _opened(path) as file:
            warnings.simplefilter("ignore")
            header = fits.Header.fromfile(file)
            shape = tuple(int(header[f"NAXIS{axis}"]) for axis in range(int(header["NAXIS"]), 0, -1))
    except _FITS_ERRORS as error:
        raise _unreadable(path, error) from error
    if len(shape) not in (2, 3) or 0 in shape:
        said = " x ".join(map(str, shape)) or "empty"
        raise UsageError(f"{path}: the image is {said}; expected two axes (H x W), or three (C x H x W)")
    return shape


def _opened(path: Path) -> Any:
    return gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb")


def _channels(shapes: dict[str, list[tuple[int, ...]]], name: str) -> int:
    """Of images without channels in their names. Raises UsageError where not all have as many."""
    found = {1 if len(shape) == 2 else shape[0]: stem for stem, each in shapes.items() for shape in each}
    if len(found) > 1:
        said = ", ".join(f"{Path(stem).name} has {count}" for count, stem in sorted(found.items()))
        raise UsageError(f"{name}: not all images have as many channels: {said}")
    return next(iter(found))


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: can't be read, or was cut short: {error}")


def _candid(stem: str) -> int | None:
    match = _CANDID.fullmatch(Path(stem).name)
    return None if match is None else int(match[1])
