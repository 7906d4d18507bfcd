"""The simulator as a source: alerts from nothing, and events in the stamps of other sources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbstream.errors import UsageError
from rbstream.lab.dataset import UNKNOWN, Stamps
from rbstream.lab.sources.cores import on_all_cores
from rbstream.lab.sources.source import Part, Source
from rbstream.packet.survey import ZTF
from rbstream.simulate.alerts import alerts
from rbstream.simulate.detect import SIZE
from rbstream.simulate.inject import Receivers, injections, receivers
from rbstream.simulate.kinds import BOGUS, REAL

MOST_RECEIVERS = 2000
"""Stamps that events are put into: 95 MB, and 25 events in each make 50,000."""

_INHERITED = ("object", "night")


def chosen_kinds(only: Sequence[str], without: Sequence[str]) -> list[str] | None:
    """Kinds of events to draw, None for all. Raises UsageError for a name that is none, or where none is left."""
    everything = [*REAL, *BOGUS]
    if unknown := [name for name in [*only, *without] if name not in everything]:
        raise UsageError(f"kind {', '.join(unknown)}: not known; there are {', '.join(everything)}")
    kinds = [name for name in everything if (not only or name in only) and name not in without]
    if not kinds:
        raise UsageError("no kind is left; choose others with --kinds, or leave out fewer with --without")
    return None if len(kinds) == len(everything) else kinds


class _Simulator:
    """What both have in common: ZTF's stamps, so many of them."""

    channels: tuple[str, ...] | None = tuple(ZTF.cutouts)
    count, side, survey = len(ZTF.cutouts), SIZE, ZTF.name

    def __init__(self, name: str, n: int, seed: int, kinds: list[str] | None) -> None:
        if n < 1 or seed < 0:
            raise UsageError(f"{name}: {n} with seed {seed}: at least 1, and a seed of at least 0")
        self.name, self.total = name, n
        self._n, self._seed, self._kinds, self._done = n, seed, kinds, 0
        self.origin: dict[str, Any] = {name: n, "seed": seed, "kinds": kinds or "all"}

    @property
    def position(self) -> int:
        return self._done


class Simulated(_Simulator):
    """Alerts from nothing; the same for the same seed, and a longer set begins with the shorter one."""

    def __init__(self, n: int, seed: int, kinds: list[str] | None) -> None:
        super().__init__("simulated", n, seed, kinds)

    def parts(self) -> Iterator[Part]:
        self._done = 0
        for batch in alerts(self._n, self._seed, self._kinds, on_all_cores):
            rows = len(batch.real)
            numbers = range(self._done, self._done + rows)
            columns = {
                "object": np.array([f"simulated {self._seed}/{number}" for number in numbers], object),
                "label": batch.real.astype(np.float32),
                "label_source": np.full(rows, "simulated", object),
                "kind": batch.kind.astype(object),
                "magpsf": batch.measured["magpsf"],
                "fwhm": batch.measured["fwhm"],
                "snr": batch.found.snr,
                "positive": batch.found.positive.astype(np.int8),
            }
            self._done += rows
            yield Part(batch.found.stamps, batch.shape.astype(np.int64), columns)

    def notes(self) -> list[str]:
        return []


class Injected(_Simulator):
    """Events in the stamps of other sources, of which at most `most` are drawn; each inherits object and night.

    Raises UsageError where these are not science, template and difference of ZTF's size.
    """

    def __init__(self, sources: Sequence[Source], n: int, seed: int, kinds: list[str] | None, most: int) -> None:
        super().__init__("injected", n, seed, kinds)
        if most < 1:
            raise UsageError(f"{most} receivers: at least 1")
        for source in sources:
            if (source.count, source.side) != (self.count, SIZE):
                raise UsageError(
                    f"{source.name}: has {source.count} channels of {source.side} pixels; events are injected into "
                    f"{', '.join(ZTF.cutouts)} of {SIZE}"
                )
        self._sources, self._most, self._notes = sources, most, list[str]()
        self.origin["into"] = [source.origin for source in sources]

    def parts(self) -> Iterator[Part]:
        self._done = 0
        stamps, columns = self._receivers()
        prepared = self._prepared(stamps, columns["positive"])
        for batch in injections(prepared, self._n, self._seed, self._kinds, on_all_cores):
            rows = len(batch.real)
            said = {name: columns[name][batch.receiver] for name in _INHERITED} | {
                "label": batch.real.astype(np.float32),
                "label_source": np.full(rows, "injected", object),
                "kind": batch.kind.astype(object),
                "magpsf": batch.magpsf,
                "fwhm": batch.fwhm,
                "snr": batch.snr,
            }
            self._done += rows
            yield Part(batch.stamps, np.full((rows, 2), SIZE, np.int64), said)

    def notes(self) -> list[str]:
        return self._notes + [note for source in self._sources for note in source.notes()]

    def _prepared(self, stamps: Stamps, positive: NDArray[np.int8]) -> Receivers:
        unknown = int((positive < 0).sum())
        if unknown:
            said = f"{unknown:,} of {len(stamps):,} receivers don't tell whether their detection is positive"
            self._notes = [f"{said}: they count as positive"]
        prepared = receivers(stamps, positive != 0)
        if not len(prepared.noise):
            raise UsageError("no stamp here can receive an event: all lack data in the middle, or noise")
        return prepared

    def _receivers(self) -> tuple[Stamps, dict[str, NDArray[Any]]]:
        """Stamps drawn at random from all, each as likely (Vitter's algorithm R), and what they hand down."""
        rng = np.random.default_rng([self._seed, 1])
        stamps = np.empty((self._most, self.count, SIZE, SIZE), np.float32)
        columns = {name: np.full(self._most, UNKNOWN[name]) for name in ("night", "positive")}
        columns["object"] = np.full(self._most, "", object)
        seen = 0
        for part in (part for source in self._sources for part in source.parts()):
            numbers = np.arange(seen, seen + len(part.stamps))
            slots = np.where(numbers < self._most, numbers, rng.integers(0, numbers + 1))
            for row in np.flatnonzero(slots < self._most).tolist():
                slot = slots[row]
                stamps[slot] = part.stamps[row]
                for name, column in columns.items():
                    column[slot] = part.columns[name][row] if name in part.columns else UNKNOWN[name]
                columns["object"][slot] = columns["object"][slot] or f"row {numbers[row]}"
            seen += len(part.stamps)
        kept = min(seen, self._most)
        return stamps[:kept], {name: column[:kept] for name, column in columns.items()}
