"""What came in against what went out, alert by alert: counts, and every difference by name. Knows no Kafka."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

Partition = tuple[str, int]

# A score is written once as double, once as float, once with nine digits.
DRB_TOLERANCE = 1e-6


class Key(NamedTuple):
    """One alert: the coordinates of its message at the source, and the number of the record in there."""

    topic: str
    partition: int
    offset: int
    record: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}[{self.record}]"


class Difference(NamedTuple):
    """Something that should not be. what: the kind, where: the alert or the message, detail: for a person."""

    what: str
    where: str
    detail: str = ""


class Score(NamedTuple):
    """What a message of the scores topic says of an alert."""

    verdict: str
    drb: float | None
    candid: int | None


class Output(NamedTuple):
    """What an annotated alert says of itself. said: its header `rbstream.drb`; drb, candid: what is in the packet."""

    topic: str
    said: float | None
    drb: float | None
    candid: int | None


@dataclass(slots=True)
class _Trace:
    """All that was found of one alert."""

    scores: list[Score] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    dead: int = 0


class Receipt:
    """Takes in what the sink's topics hold, and says what does not agree.

    stretch: the offsets of the source that are looked at, by partition: all are committed. repeats: whether an alert
    may have gone out more than once (at least once).
    """

    def __init__(self, stretch: Mapping[Partition, range], repeats: bool) -> None:
        self._stretch = stretch
        self._repeats = repeats
        self._traces: defaultdict[Key, _Trace] = defaultdict(_Trace)
        self._beyond: list[tuple[Key, str]] = []
        self._strange: list[Difference] = []
        self._absent: list[Difference] = []

    def scored(self, key: Key, score: Score) -> None:
        """A message of the scores topic."""
        if self._looked_at(key, "scores"):
            self._traces[key].scores.append(score)

    def published(self, key: Key, output: Output) -> None:
        """A message of an output topic."""
        if self._looked_at(key, output.topic):
            self._traces[key].outputs.append(output)

    def buried(self, key: Key, topic: str) -> None:
        """A dead letter."""
        if self._looked_at(key, topic):
            self._traces[key].dead += 1

    def strange(self, topic: str, where: str, detail: str) -> None:
        """A message that can't be rbstream's."""
        self._strange.append(Difference(f"in {topic}, and not as rbstream writes it", where, detail))

    def _looked_at(self, key: Key, topic: str) -> bool:
        offsets = self._stretch.get((key.topic, key.partition))
        if offsets is None:  # of another stretch, or forged: there is a score of it, or not
            return True
        if key.offset >= offsets.stop:
            self._beyond.append((key, topic))
        return key.offset in offsets

    def unscored(self) -> dict[Partition, list[int]]:
        """The offsets of the stretch that no score tells of: a message may be there, or a transaction's marker."""
        scored: defaultdict[Partition, set[int]] = defaultdict(set)
        for key, trace in self._traces.items():
            if trace.scores:
                scored[key.topic, key.partition].add(key.offset)
        return {
            partition: [offset for offset in offsets if offset not in scored[partition]]
            for partition, offsets in self._stretch.items()
        }

    def absent(self, partition: Partition, offset: int, deleted: bool) -> None:
        """A message of the stretch that no score tells of. deleted: it may be one, as the source has it no more."""
        detail = "the source has deleted what was there" if deleted else "its message is at the source"
        self._absent.append(Difference("without a score", "{}/{}/{}".format(*partition, offset), detail))

    def differences(self, ends: Mapping[Partition, int]) -> list[Difference]:
        """All of them, in order. ends: of the source's partitions, asked for after everything else was read."""
        found = [*self._absent, *self._strange, *self._unknown_records()]
        for key, trace in self._traces.items():
            inside = (key.topic, key.partition) in self._stretch
            found += [Difference(what, str(key), detail) for what, detail in self._of(trace, inside)]
        for key, topic in self._beyond:
            end = ends[key.topic, key.partition]
            if key.offset >= end:
                found.append(Difference(f"in {topic}, of an offset that is not there", str(key), f"it ends at {end}"))
        return sorted(found)

    def _of(self, trace: _Trace, inside: bool) -> Iterator[tuple[str, str]]:
        outputs = Counter(output.topic for output in trace.outputs)
        if not trace.scores:
            for topic in outputs:
                yield f"in {topic}, and not scored", "" if inside else "nor of a topic that is looked at"
            if trace.dead:
                yield "in the dead letters, and not scored", "" if inside else "nor of a topic that is looked at"
            return
        score = trace.scores[0]
        if not inside:
            return
        passed, rejected = score.verdict == "passed", score.verdict == "rejected"
        if passed and not outputs:
            yield "passed, and in no output", ""
        if rejected and not trace.dead:
            yield "rejected, and not in the dead letters", ""
        for topic, times in outputs.items():
            if not passed:
                yield f"in {topic}, and not passed", f"it was {score.verdict}"
            if times > 1 and not self._repeats:
                yield f"more than once in {topic}", f"{times} times"
        if trace.dead and not rejected:
            yield "in the dead letters, and not rejected", f"it was {score.verdict}"
        if trace.dead > 1 and not self._repeats:
            yield "more than once in the dead letters", f"{trace.dead} times"
        if len(trace.scores) > 1 and not self._repeats:
            yield "scored more than once", f"{len(trace.scores)} times"
        if any(not _alike(each, score) for each in trace.scores):
            yield "scored differently", ", ".join(f"{each.verdict} {each.drb}" for each in trace.scores)
        for output in trace.outputs:
            yield from _compared(score, output)

    def _unknown_records(self) -> Iterator[Difference]:
        """Records of messages of which a later one was scored."""
        records: defaultdict[tuple[str, int, int], set[int]] = defaultdict(set)
        for key, trace in self._traces.items():
            if trace.scores:
                records[key[:3]].add(key.record)
        for place, scored in records.items():
            for record in set(range(max(scored))) - scored:
                yield Difference("without a score", str(Key(*place, record)), "a later record of its message has one")

    def counts(self) -> dict[str, int]:
        """Alerts of the stretch by what became of them, and messages by where they are."""
        traces = [trace for key, trace in self._traces.items() if (key.topic, key.partition) in self._stretch]
        scored = [trace for trace in traces if trace.scores]
        verdicts = Counter(trace.scores[0].verdict for trace in scored)
        outputs = Counter(output.topic for trace in traces for output in trace.outputs)
        return {
            "messages": len({key[:3] for key, trace in self._traces.items() if trace.scores and self._in(key)})
            + len(self._absent),
            "alerts": len(scored),
            **{verdict: verdicts[verdict] for verdict in ("passed", "filtered", "rejected")},
            **{f"in {topic}": count for topic, count in sorted(outputs.items())},
            "in the dead letters": sum(trace.dead for trace in traces),
        }

    def _in(self, key: Key) -> bool:
        return (key.topic, key.partition) in self._stretch


def _compared(score: Score, output: Output) -> Iterator[tuple[str, str]]:
    if not (_same(output.said, score.drb) and _same(output.drb, score.drb)):
        detail = f"header {output.said}, packet {output.drb}, score {score.drb}"
        yield f"another drb in {output.topic} than in the scores", detail
    if output.candid != score.candid:
        yield f"another candid in {output.topic} than in the scores", f"{output.candid}, not {score.candid}"


def _alike(one: Score, other: Score) -> bool:
    return one.verdict == other.verdict and _same(one.drb, other.drb)


def _same(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=0, abs_tol=DRB_TOLERANCE)
