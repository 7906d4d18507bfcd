"""A data set as a source of another: to join some, to repeat, to inject into."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rbstream.errors import UsageError
from rbstream.lab.dataset import UNKNOWN, DataSet
from rbstream.lab.sources.source import ROWS_AT_ONCE, Part, Reading
from rbstream.output import utf8


class Stored:
    """All rows of a data set, those without a label and those of no split among them."""

    def __init__(self, path: str, reading: Reading) -> None:
        self._data = DataSet(path)
        about = self._data.about
        self.name = utf8(self._data.path.resolve().name)
        self.channels = reading.chosen(about.channels, self.name)
        self.count, self.side, self.survey = len(self.channels), about.size, about.survey
        self._chosen = [about.channels.index(channel) for channel in self.channels]
        self._soft = reading.soft
        if self._soft not in ((), ("drb",)):
            raise UsageError(f"{self.name}: of a data set, only drb can be a label; not {', '.join(self._soft)}")
        self.total = len(self._data)
        self.origin = {"data": self.name, "identity": self._data.identity}
        self._done = 0

    @property
    def position(self) -> int:
        return self._done

    def parts(self) -> Iterator[Part]:
        self._done, scenes = 0, self._data.scenes()
        for rows, stamps in self._data.batches(np.arange(len(self._data)), ROWS_AT_ONCE):
            columns = {name: self._data.column(name)[rows] for name in UNKNOWN}
            if self._soft:
                unknown = np.isnan(columns["label"]) & ~np.isnan(columns["drb"])
                columns["label"] = np.where(unknown, columns["drb"], columns["label"])
                columns["label_source"] = np.where(unknown, "drb", columns["label_source"])
            columns["object"] = scenes[rows]
            shape = np.full((len(rows), 2), self.side, np.int64)
            self._done += len(rows)
            yield Part(stamps[:, self._chosen], shape, columns)

    def notes(self) -> list[str]:
        return []
