"""What must hold between what was published, what `replay` says of it, and what a read_committed consumer finds."""

import csv
import hashlib
import io
import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import fastavro
from cluster import Cluster, headers
from confluent_kafka import Message
from tiny import rbstream

# As far as scores of the same packet may be apart: batches of another size add up in another order.
DRB_TOLERANCE = 1e-6
# Topic, partition and offset of a message of the input.
Place = tuple[str, int, int]


class Key(NamedTuple):
    """One alert of the input."""

    topic: str
    partition: int
    offset: int
    record: int


class Verdict(NamedTuple):
    """drb: None where rejected."""

    verdict: str
    drb: float | None


class Copy(NamedTuple):
    """What was found of one alert in the output or in the dead letters. drb: of the output's record; digest: of the
    dead letter's body."""

    key: Key
    drb: float | None = None
    digest: str | None = None


@dataclass
class Seen:
    """All there is to compare. published: acknowledged to the publisher. inputs: in the topic, with their digests.
    expected: what `replay` says."""

    published: list[Place] = field(default_factory=list)
    inputs: dict[Place, str] = field(default_factory=dict)
    expected: dict[Key, Verdict] = field(default_factory=dict)
    scores: list[tuple[Key, Verdict]] = field(default_factory=list)
    outputs: list[Copy] = field(default_factory=list)
    dead: list[Copy] = field(default_factory=list)


def differences(seen: Seen, repeats: bool = False) -> dict[str, list[Any]]:
    """What doesn't hold, by name, each with the alerts that it doesn't hold for; nothing where all does.

    repeats: an alert may have been taken more than once (at least once).
    """
    scores = dict(seen.scores)
    scored = [key for key, _ in seen.scores]
    passed, out = _with("passed", scores), [copy.key for copy in seen.outputs]
    rejected, dead = _with("rejected", scores), [copy.key for copy in seen.dead]
    found = {
        "published, and not in the topic": _less(seen.published, seen.inputs),
        "in the topic, and not published": _less(seen.inputs, seen.published),
        "in the topic, and replay knows nothing of it": _less(seen.inputs, {key[:3] for key in seen.expected}),
        "without a score": _less(seen.expected, scores),
        "scored, and not in the topic": _less(scores, seen.expected),
        "passed, and not in the output": _less(passed, out),
        "in the output, and not passed": _less(out, passed),
        "rejected, and not in the dead letters": _less(rejected, dead),
        "in the dead letters, and not rejected": _less(dead, rejected),
        "another verdict than replay's": _unlike(seen, lambda mine, theirs: mine.verdict == theirs.verdict),
        "another drb than replay's": _unlike(seen, lambda mine, theirs: _same(mine.drb, theirs.drb)),
        "another drb in the output than in the scores": [
            copy.key for copy in seen.outputs if copy.key in scores and not _same(copy.drb, scores[copy.key].drb)
        ],
        "dead letter with other bytes than the input": _changed(seen),
    }
    if not repeats:
        found |= {
            "scored more than once": _more_than_once(scored),
            "more than once in the output": _more_than_once(out),
            "more than once in the dead letters": _more_than_once(dead),
        }
    return {name: sorted(keys) for name, keys in found.items() if keys}


def _with(verdict: str, scores: dict[Key, Verdict]) -> set[Key]:
    return {key for key, mine in scores.items() if mine.verdict == verdict}


def _less(these: Iterable[Any], those: Iterable[Any]) -> list[Any]:
    return list(set(these) - set(those))


def _more_than_once(keys: Iterable[Hashable]) -> list[Any]:
    return [key for key, times in Counter(keys).items() if times > 1]


def _unlike(seen: Seen, alike: Any) -> list[Key]:
    return [key for key, mine in seen.scores if key in seen.expected and not alike(mine, seen.expected[key])]


def _same(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=0, abs_tol=DRB_TOLERANCE)


def _changed(seen: Seen) -> list[Key]:
    """Of messages of one record the dead letter is the message as it came."""
    records = Counter(key[:3] for key in seen.expected)
    whole = [copy for copy in seen.dead if records[copy.key[:3]] == 1]
    return [copy.key for copy in whole if copy.digest != seen.inputs.get(copy.key[:3])]


def gather(
    cluster: Cluster,
    names: dict[str, str],
    published: list[Place],
    bundle: Path,
    folder: Path,
    source: Cluster | None = None,
    inputs: Sequence[str] = (),
) -> Seen:
    """Read the topics `in` (or inputs), `out`, `dead` and `scores` to their ends, and replay the input from a folder.

    source: where the input is, if it is another cluster.
    """
    seen = Seen(published=published)
    night = folder / "night"
    night.mkdir()
    for message in (source or cluster).read(*(inputs or (names["in"],))):
        content = message.value() or b""
        seen.inputs[_place(message)] = _digest(content)
        (night / f"{message.topic()}-{message.partition()}-{message.offset()}.avro").write_bytes(content)
    seen.expected = replayed(night, bundle, folder / "scores.csv")
    seen.scores = [_score(message) for message in cluster.read(names["scores"])]
    seen.outputs = [
        Copy(_source(message), drb=_record(message)["candidate"]["drb"]) for message in cluster.read(names["out"])
    ]
    seen.dead = [
        Copy(_source(message), digest=_digest(message.value() or b"")) for message in cluster.read(names["dead"])
    ]
    return seen


def replayed(night: Path, bundle: Path, table: Path) -> dict[Key, Verdict]:
    """What `rbstream replay` says of packets that are named TOPIC-PARTITION-OFFSET.avro."""
    # However many are rejected: that is not what is asked here.
    done = rbstream(
        *("replay", night, "--model", bundle, "--device", "cpu", "--scores", table, "--max-reject-ratio", 1),
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    found = {}
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            topic, partition, offset = Path(row["file"]).stem.rsplit("-", 2)
            drb = float(row["drb"]) if row["drb"] else None
            found[Key(topic, int(partition), int(offset), int(row["record"]))] = Verdict(row["verdict"], drb)
    return found


def _place(message: Message) -> Place:
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None
    assert partition is not None
    assert offset is not None
    return topic, partition, offset


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _record(message: Message) -> Any:
    (record,) = fastavro.reader(io.BytesIO(message.value() or b""))
    return record


def _score(message: Message) -> tuple[Key, Verdict]:
    record = _record(message)
    key = Key(record["topic"], record["partition"], record["offset"], record["record"])
    return key, Verdict(record["verdict"], record["drb"])


def _source(message: Message) -> Key:
    found = headers(message)
    numbers = (int(found[f"rbstream.source.{name}"]) for name in ("partition", "offset", "record"))
    return Key(found["rbstream.source.topic"], *numbers)
