"""Alerts to explain, of a data set or of packets: scored one after the other, and chosen without keeping the rest."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rbstream.assembly import make_pipeline
from rbstream.errors import UsageError
from rbstream.lab.dataset import DataError, DataSet, Stamps
from rbstream.lab.evaluate.scores import check_fits
from rbstream.lab.truth import truth_beside
from rbstream.packet.alert import Rejected
from rbstream.pipeline import Scorer
from rbstream.progress import Progress
from rbstream.replay.chunk import cut_chunks
from rbstream.replay.sources import Inputs, find_inputs, load
from rbstream.settings import Limits

CONFIDENT = 0.01
"""Closer to 0 or 1 than this a network is confident: the issue's confident subset (below 0.01, above 0.99)."""

_BATCH = 32  # alerts scored at once, as many as replay does


@dataclass(frozen=True, slots=True)
class Example:
    """An alert and its score. stamps: float32 (channels, size, size), NaN where there is no data.

    number: row of the data set, or place among all alerts of the packets, counted from 0. label: as in a data set.
    """

    number: int
    candid: int
    object_id: str
    label: float
    kind: str
    score: float
    stamps: Stamps

    @property
    def labelled(self) -> bool:
        return self.label == self.label

    @property
    def real(self) -> bool:
        """Whether its label says so."""
        return self.label >= 0.5

    def misclassified(self, threshold: float) -> bool:
        """On the wrong side of the threshold; an alert passes from it on."""
        return self.labelled and self.real != (self.score >= threshold)

    @property
    def confident_wrong(self) -> bool:
        return self.labelled and (self.score < CONFIDENT if self.real else self.score > 1 - CONFIDENT)


class Examples(Protocol):
    """Where alerts come from. identity: of a data set, None of packets. rejected: packets that were, by reason."""

    identity: str | None
    rejected: Counter[str]

    def labelled(self) -> Iterator[Example]:
        """All that have a label; stamps are good until the next."""
        ...

    def numbered(self, numbers: Sequence[int]) -> list[Example]:
        """Those of the numbers, in that order. Raises UsageError for one that isn't there."""
        ...

    def sample(self, limit: int) -> list[Example]:
        """Some of them."""
        ...


class Selection(NamedTuple):
    """Which alerts are explained: what `by` says; `numbers` in the order given."""

    by: Literal["sample", "misclassified", "confident-wrong", "numbers"] = "sample"
    numbers: tuple[int, ...] = ()


class Chosen(NamedTuple):
    """The examples, the most wrong first where wrong ones were asked for; of how many wrong, of how many labelled."""

    examples: list[Example]
    found: int
    labelled: int | None = None


def choose(source: Examples, selection: Selection, threshold: float, limit: int) -> Chosen:
    """At most `limit` examples. Raises UsageError where wrong ones are asked for and nothing has a label."""
    if selection.by == "sample":
        examples = source.sample(limit)
        return Chosen(examples, len(examples))
    if selection.by == "numbers":
        return Chosen(source.numbered(selection.numbers[:limit]), len(selection.numbers))
    counts: Counter[str] = Counter()

    def found() -> Iterator[Example]:
        for example in source.labelled():
            counts["labelled"] += 1
            if example.confident_wrong if selection.by == "confident-wrong" else example.misclassified(threshold):
                counts["wrong"] += 1
                yield replace(example, stamps=example.stamps.copy())

    worst = heapq.nlargest(limit, found(), key=lambda e: (abs(e.score - e.label), -e.number))
    if not counts["labelled"]:
        raise UsageError(
            f"--select {selection.by}: no alert here has a label, so nobody knows which are wrong; import them with "
            "--labels (`rbstream data import`), or leave --select out"
        )
    return Chosen(worst, counts["wrong"], counts["labelled"])


class DataExamples:
    """Rows of a data set. part: of the split; numbers are rows of the whole.

    Raises UsageError where the network takes other stamps, DataError where the part is empty.
    """

    def __init__(self, data: DataSet, part: str, scorer: Scorer) -> None:
        check_fits(scorer.manifest, data)
        self.identity: str | None = data.identity
        self.rejected: Counter[str] = Counter()
        self._data = data
        self._part = part
        self._scorer = scorer

    def labelled(self) -> Iterator[Example]:
        return self._scored(self._rows(labelled=True))

    def numbered(self, numbers: Sequence[int]) -> list[Example]:
        for number in numbers:
            if number >= len(self._data):
                raise UsageError(f"--select {number}: {self._data.path} has rows 0 to {len(self._data) - 1}")
        return list(self._scored(np.array(numbers, np.int64)))

    def sample(self, limit: int) -> list[Example]:
        """Spread evenly over the part: classes that came one after the other are both there."""
        rows = self._rows(labelled=False)
        places = np.linspace(0, len(rows) - 1, min(limit, len(rows))).round().astype(np.int64)
        return list(self._scored(rows[places]))

    def _rows(self, labelled: bool) -> NDArray[np.int64]:
        if not len(self._data.rows(self._part, labelled=False)):
            raise DataError(f"{self._data.path}: its part {self._part} is empty; choose another with --part")
        return self._data.rows(self._part, labelled=labelled)

    def _scored(self, rows: NDArray[np.int64]) -> Iterator[Example]:
        column = self._data.column
        with Progress("scoring", len(rows)) as progress:
            for done, (numbers, stamps) in enumerate(self._data.batches(rows, _BATCH)):
                scores = self._scorer.score(stamps).tolist()
                for i, stamp, score in zip(numbers.tolist(), stamps, scores, strict=True):
                    label = float(column("label")[i])
                    yield Example(
                        i, int(column("candid")[i]), column("object")[i], label, column("kind")[i], score, stamp
                    )
                progress.show(done * _BATCH + len(numbers), done * _BATCH + len(numbers))


class PacketExamples:
    """Alerts in packets: files, folders and nights, as replay takes them. Truth that lies beside a simulated night is
    its label.

    Raises UsageError where a path leads to nothing, or the bundle's survey is not known.
    """

    def __init__(self, paths: list[str], scorer: Scorer, limits: Limits) -> None:
        self.identity: str | None = None
        self.rejected: Counter[str] = Counter()
        self._inputs = Inputs(find_inputs(paths), limits)
        self._limits = limits
        self._truth = lru_cache(maxsize=2)(truth_beside)  # nights are read one after the other
        self._pipeline = make_pipeline(scorer, {}, limits, _BATCH)

    def labelled(self) -> Iterator[Example]:
        return (each for each in self._all() if isinstance(each, Example) and each.labelled)

    def numbered(self, numbers: Sequence[int]) -> list[Example]:
        wanted, found = set(numbers), dict[int, Example]()
        seen = 0
        with closing(self._all()) as alerts:
            for seen, each in enumerate(islice(alerts, max(numbers) + 1), start=1):
                if seen - 1 not in wanted:
                    continue
                if isinstance(each, Rejected):
                    raise UsageError(f"--select {seen - 1}: {each.origin.label} was rejected: {each.rejection.detail}")
                found[each.number] = replace(each, stamps=each.stamps.copy())
        if missing := wanted - found.keys():
            raise UsageError(f"--select {min(missing)}: there are {seen} alerts in the packets, counted from 0")
        return [found[number] for number in numbers]

    def sample(self, limit: int) -> list[Example]:
        """The first: how many follow is not known."""
        with closing(self._all()) as alerts:
            scored = (each for each in alerts if isinstance(each, Example))
            return [replace(each, stamps=each.stamps.copy()) for each in islice(scored, limit)]

    def _all(self) -> Generator[Example | Rejected, None, None]:
        chunks = ((load(source, self._limits) for source in chunk) for chunk in cut_chunks(self._inputs))
        number = 0
        with Progress("scoring", self._inputs.total) as progress:
            for batch in self._pipeline.run(chunks):
                for outcome in batch.outcomes:
                    if isinstance(outcome.item, Rejected):
                        self.rejected[outcome.reason] += 1
                        yield outcome.item
                    else:
                        alert = outcome.item
                        assert outcome.triplet is not None  # every scored alert has one
                        label, kind, _ = (self._truth(alert.origin.file) or {}).get(alert.candid, (np.nan, "", np.nan))
                        yield Example(number, alert.candid, alert.object_id, label, kind, outcome.drb, outcome.triplet)
                    number += 1
                progress.show(number, self._inputs.position)


def classes(examples: Iterable[Example], threshold: float) -> dict[str, list[int]]:
    """Indices into the examples by class: what the label says, and what the network says. Empty classes are absent."""
    groups: dict[str, list[int]] = {"labelled real": [], "labelled bogus": [], "called real": [], "called bogus": []}
    for index, example in enumerate(examples):
        if example.labelled:
            groups["labelled real" if example.real else "labelled bogus"].append(index)
        groups["called real" if example.score >= threshold else "called bogus"].append(index)
    return {name: members for name, members in groups.items() if members}
