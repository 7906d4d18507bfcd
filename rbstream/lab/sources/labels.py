"""A table of labels, by candid: what a person says, which wins over what any source says."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rbstream.errors import UsageError
from rbstream.lab.dataset import DataError
from rbstream.lab.sources.source import Columns
from rbstream.output import utf8

_WORDS = {"real": 1.0, "bogus": 0.0}


class LabelTable:
    """A CSV with the columns candid, label (0 to 1, or real, bogus) and perhaps source, kind; or a night's truth table.

    Raises UsageError for another table, DataError where it can't be read.
    """

    def __init__(self, path: Path) -> None:
        self.name = utf8(path.name)
        rows: dict[int, tuple[float, str, str]] = {}
        try:
            with path.open(newline="", encoding="utf-8") as text:
                reader = csv.DictReader(text)
                names = set(reader.fieldnames or ())
                column = "real" if "real" in names and "label" not in names else "label"  # as `night.truth.csv` has it
                if missing := {"candid", column} - names:
                    raise UsageError(f"{path}: has no column {', '.join(sorted(missing))} in its first line")
                for row in reader:
                    candid, label = self._parsed(row["candid"], row[column], f"{path}, line {reader.line_num}")
                    said = label, row.get("source") or self.name, row.get("kind") or ""
                    if rows.setdefault(candid, said) != said:
                        raise UsageError(f"{path}, line {reader.line_num}: candid {candid} has another label above")
        except (OSError, ValueError, csv.Error) as error:
            raise DataError(f"{path}: can't be read: {error}") from error
        if not rows:
            raise UsageError(f"{path}: no label in it")
        self._candid = np.array(sorted(rows), np.int64)
        ordered = [rows[candid] for candid in self._candid.tolist()]
        self._label = np.array([label for label, _, _ in ordered], np.float32)
        self._source = np.array([source for _, source, _ in ordered], object)
        self._kind = np.array([kind for _, _, kind in ordered], object)
        self._matched = np.zeros(len(rows), bool)

    def _parsed(self, candid_text: str, label_text: str | None, where: str) -> tuple[int, float]:
        try:
            label = (label_text or "").strip().lower()
            candid, value = int(candid_text), _WORDS[label] if label in _WORDS else float(label)
        except (ValueError, TypeError) as error:
            raise UsageError(f"{where}: expected candid,label with a label from 0 to 1, or real or bogus") from error
        if not (0 <= value <= 1 and -(1 << 63) <= candid < 1 << 63):
            raise UsageError(f"{where}: label {value:g} of candid {candid}: labels have to be in [0, 1]")
        return candid, value

    def applied(self, columns: Columns, candid: NDArray[np.int64]) -> Columns:
        """The columns with the labels, sources and kinds of those (n,) that the table has."""
        at = np.searchsorted(self._candid, candid).clip(max=len(self._candid) - 1)
        found = self._candid[at] == candid
        at = at[found]
        self._matched[at] = True
        result = dict(columns)
        kind = self._kind[at]
        for name, values in (("label", self._label[at]), ("label_source", self._source[at])):
            result[name] = columns[name].copy()
            result[name][found] = values
        if kind.any():
            result["kind"] = columns["kind"].copy()
            result["kind"][found] = np.where(kind != "", kind, result["kind"][found])
        return result

    def note(self) -> list[str]:
        """How many of its candids were met nowhere. Raises UsageError where none was met."""
        missed, rows = int((~self._matched).sum()), len(self._matched)
        if missed == rows:
            raise UsageError(f"{self.name}: none of its {rows:,} candids is in the sources; is it another night's?")
        return [f"{self.name}: {missed:,} of its {rows:,} candids are in no source"] if missed else []
