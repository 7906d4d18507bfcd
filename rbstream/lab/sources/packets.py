"""Packets and nights of them as a source: whatever `rbstream replay` takes, read by the same reader."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbstream.cutout import decode_cutout
from rbstream.errors import Rejection, UsageError
from rbstream.filter import ztf_fields
from rbstream.lab.dataset import DataError
from rbstream.lab.sources.candidate import KNOWN_ASTEROID, ZTF_FIELDS, of_candidate
from rbstream.lab.sources.source import ROWS_AT_ONCE, Opinion, Part, Reading, first_known, stacked, table
from rbstream.lab.truth import truth_beside
from rbstream.output import utf8
from rbstream.packet.alert import Alert, Rejected
from rbstream.packet.reader import PacketReader
from rbstream.packet.survey import ZTF
from rbstream.replay.sources import STDIN, Inputs, find_inputs, load
from rbstream.simulate.night import truth_path

Images = list[NDArray[np.float32]]
_Read = tuple[Alert, Images]


class Packets:
    """The alerts in the files behind a path. What can't be read is counted, and said in `notes`.

    The side is that of the largest stamp in the first part; larger ones later can't be read.
    Raises UsageError where the path leads to nothing, DataError where nothing in it can be read.
    """

    def __init__(self, path: str, reading: Reading) -> None:
        self._files = find_inputs([path])
        self._path, self._reading = path, reading
        self.name = path if path == STDIN else utf8(Path(path).name)
        self.channels = reading.chosen(tuple(ZTF.cutouts), self.name)
        self.count, self.survey, self.origin = len(self.channels), ZTF.name, {"packets": self.name}
        if unknown := [name for name in reading.soft if ztf_fields().get(name) not in ("float", "double")]:
            raise UsageError(f"{self.name}: packets have no number {', '.join(unknown)} to be a label; drb is one")
        self._truth = lru_cache(maxsize=2)(truth_beside)  # nights are read one after the other
        self._read = 0
        self._rejected: Counter[str] = Counter()
        self._first = ""
        self._inputs = Inputs(self._files, reading.limits)
        self.total = self._inputs.total
        alerts = self._alerts(self._inputs)
        begun = list(islice(alerts, ROWS_AT_ONCE))
        if not begun:
            raise DataError(self._complaint() if self._rejected else f"{self.name}: no packet in it")
        self.side = max(max(image.shape) for _, images in begun for image in images)
        self._begun: Iterator[_Read] | None = chain(begun, alerts)

    @property
    def position(self) -> int:
        return self._inputs.position

    def parts(self) -> Iterator[Part]:
        alerts, self._begun = self._begun, None
        if alerts is None:
            if self._path == STDIN:
                raise UsageError("-: standard input can be read only once")
            self._read, self._rejected = 0, Counter()
            self._inputs = Inputs(self._files, self._reading.limits)
            alerts = self._alerts(self._inputs)
        while group := list(islice(alerts, ROWS_AT_ONCE)):
            fitting = [(alert, images) for alert, images in group if self._fits(alert, images)]
            if fitting:
                yield self._part(fitting)

    def notes(self) -> list[str]:
        return [self._complaint()] if self._rejected else []

    def _complaint(self) -> str:
        rejected, read = self._rejected.total(), self._read
        share = rejected / (rejected + read)
        loud = f", more than rejects.max_ratio ({self._reading.max_rejected:.0%}) of them"
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in self._rejected.most_common())
        return (
            f"{self.name}: {rejected:,} of {rejected + read:,} packets can't be read"
            f"{loud if share > self._reading.max_rejected else ''}: {reasons}. First: {self._first}"
        )

    def _alerts(self, inputs: Inputs) -> Iterator[_Read]:
        """Alerts with their images; the others are counted."""
        reader = PacketReader(ZTF, self.channels, ZTF_FIELDS.union(self._reading.soft), self._reading.limits)
        for source in inputs:
            packet = load(source, self._reading.limits)
            for item in [packet] if isinstance(packet, Rejected) else reader.read(packet):
                if isinstance(item, Rejected):
                    self._reject(item.rejection, item.origin.label)
                    continue
                try:
                    images = _images(item, self._reading)
                except Rejection as rejection:
                    self._reject(rejection, item.origin.label)
                else:
                    self._read += 1
                    yield item, images

    def _fits(self, alert: Alert, images: Images) -> bool:
        side = max(max(image.shape) for image in images)
        if side <= self.side:
            return True
        self._read -= 1
        detail = f"a cutout of {side} pixels, where the first ones have {self.side}"
        self._reject(Rejection("cutout", "cutout_shape", detail), alert.origin.label)
        return False

    def _reject(self, rejection: Rejection, label: str) -> None:
        if not self._rejected:
            self._first = f"{label}: {rejection.reason}: {rejection.detail}"
        self._rejected[rejection.reason] += 1

    def _part(self, group: list[_Read]) -> Part:
        stamps, shape = stacked([images for _, images in group], self.side)
        said, truth, asteroid = [], [], []
        for alert, _ in group:
            row, known = of_candidate(_fields(alert))
            real, more = self._true(alert)
            said.append(row | more)
            truth.append(real)
            asteroid.append(1.0 if known else np.nan)
        opinions = [(np.array(truth), "simulated"), (np.array(asteroid), KNOWN_ASTEROID)]
        columns = table(said) | first_known(*opinions, *self._soft(group))
        return Part(stamps, shape, columns)

    def _true(self, alert: Alert) -> tuple[float, dict[str, Any]]:
        """Whether an alert is real, and columns, by the truth beside its file; NaN where there is none."""
        truth = self._truth(alert.origin.file)
        if truth is None:
            return np.nan, {}
        if alert.candid not in truth:
            beside = truth_path(Path(alert.origin.file))
            raise DataError(f"{beside}: lacks candid {alert.candid}: it was cut short, or is another night's")
        real, kind, snr = truth[alert.candid]
        return real, {"kind": kind, "snr": snr}

    def _soft(self, group: list[_Read]) -> list[Opinion]:
        if not self._reading.soft:
            return []
        values = [[_value(alert, name) for name in self._reading.soft] for alert, _ in group]
        return [(np.array(values, np.float64).mean(axis=1), "+".join(self._reading.soft))]


def _images(alert: Alert, reading: Reading) -> Images:
    """An alert's cutouts in the order of its channels. Raises Rejection."""
    images = []
    for path in alert.layout.cutouts:
        data = alert.cutout(path)
        if data is None:
            raise Rejection("cutout", "cutout_missing", f"{path} is null or empty")
        images.append(decode_cutout(data, reading.limits))
    return images


def _fields(alert: Alert) -> dict[str, Any]:
    fields = {name: alert.value(f"candidate.{name}") for name in ZTF_FIELDS}
    return fields | {"candid": alert.candid, "objectId": alert.object_id, "drb": alert.drb_upstream}


def _value(alert: Alert, name: str) -> float:
    """A score that the survey gave; `drb` is the survey's own also where rbstream has put its own there."""
    value = alert.drb_upstream if name == "drb" else alert.value(f"candidate.{name}")
    return np.nan if value is None else float(value)
