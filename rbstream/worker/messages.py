"""Outcomes to messages: annotated alerts, scores and dead letters, with headers that say where each came from."""

import hashlib
import io
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple, cast

import fastavro

from rbstream import __version__
from rbstream.errors import Rejection
from rbstream.files import data_path
from rbstream.packet.alert import Alert, Rejected
from rbstream.packet.annotate import annotate
from rbstream.packet.container import MAGIC, SYNC_BYTES, Header, encode_block, encode_header, read_blocks
from rbstream.pipeline import Outcome
from rbstream.settings import Limits
from rbstream.worker.batcher import Message

MAIN, SCORES, DEAD_LETTERS = "main", "scores", "dead_letters"
OURS = "rbstream."
JD = "jd"
# What a record costs beside its key, value and headers: 61 bytes of batch and at most 36 of record (Kafka's message
# format v2), and up to 10 for the two lengths of a header.
_RECORD_OVERHEAD_BYTES, _HEADER_OVERHEAD_BYTES = 61 + 36, 10
# A dead letter's detail is for a person; the longest of ours has some 500.
_DETAIL_CHARACTERS = 1000

Headers = list[tuple[str, bytes | None]]


class Outgoing(NamedTuple):
    """A message to write. route: main, a named route's, scores or dead_letters."""

    route: str
    topic: str
    key: bytes | None
    value: bytes
    headers: Headers
    timestamp: int


@dataclass(frozen=True)
class Destinations:
    """Where messages go. routes: topic by name of the route; limits: the largest message by topic [bytes]."""

    routes: Mapping[str, str]
    dead_letters: str
    scores: str | None
    limits: Mapping[str, int]


class Encoder:
    """Makes the messages that come of an outcome. version: of the model, as it is written into packets."""

    def __init__(self, destinations: Destinations, version: str) -> None:
        self._to = destinations
        self._version = version
        self._heads: dict[bytes, bytes] = {}

    def encode(self, message: Message, outcome: Outcome) -> tuple[Outcome, list[Outgoing]]:
        """The messages, and the outcome: another where the annotated alert is larger than a topic takes."""
        item = outcome.item
        record = item.origin.record
        headers = _source_headers(message, record)
        messages: list[Outgoing] = []
        if outcome.routes and isinstance(item, Alert):
            try:
                messages = self._annotated(message, headers, outcome, item)
            except Rejection as rejection:
                item = Rejected(rejection, item.origin, item.original())
                outcome = Outcome("rejected", item, rejection.reason)
        if isinstance(item, Rejected):
            messages = [self._dead_letter(message, headers, item)]
        if self._to.scores is not None:
            messages.append(self._score(self._to.scores, message, outcome, record))
        return outcome, messages

    def _annotated(self, message: Message, headers: Headers, outcome: Outcome, alert: Alert) -> list[Outgoing]:
        value = annotate(alert, outcome.drb, self._version, self._head(alert))
        headers = [
            *headers,
            ("rbstream.model", self._version.encode()),
            ("rbstream.drb", f"{outcome.drb:.9g}".encode()),  # nine digits tell any two float32 apart
            ("rbstream.processed", _now()),
        ]
        key, timestamp = alert.object_id.encode(), _timestamp(message)
        made = []
        for route in outcome.routes:
            topic = self._to.routes[route]
            out = Outgoing(route, topic, key, value, headers, timestamp)
            self._check_size(out)
            made.append(out)
        return made

    def _head(self, alert: Alert) -> bytes:
        layout = alert.layout
        head = self._heads.get(layout.sync)
        if head is None:
            if len(self._heads) == _KEPT_HEADS:
                self._heads.clear()
            head = self._heads[layout.sync] = encode_header(layout.output_schema, layout.sync)
        return head

    def _check_size(self, message: Outgoing) -> None:
        size, limit = wire_bytes(message), self._to.limits[message.topic]
        if size > limit:
            detail = f"the annotated alert has {size} bytes; topic {message.topic} takes {limit} (max.message.bytes)"
            raise Rejection("output", "too_large", detail)

    def _dead_letter(self, message: Message, headers: Headers, item: Rejected) -> Outgoing:
        rejection = item.rejection
        error = type(rejection.__cause__ or rejection).__name__
        detail = rejection.detail[:_DETAIL_CHARACTERS]
        headers = [
            *headers,
            ("rbstream.stage", rejection.stage.encode()),
            ("rbstream.reason", rejection.reason.encode()),
            ("rbstream.error", error.encode()),
            ("rbstream.detail", detail.encode("utf-8", "replace")),
            ("rbstream.version", __version__.encode()),
            ("rbstream.processed", _now()),
        ]
        # Of a container with several records this one alone, so that what is injected again doubles no other.
        body = item.packet if message.value.startswith(MAGIC) else message.value
        topic = self._to.dead_letters
        out = Outgoing(DEAD_LETTERS, topic, message.key, body, headers, _timestamp(message))
        return out if wire_bytes(out) <= self._to.limits[topic] else _without_body(out, message, item.origin.record)

    def _score(self, topic: str, message: Message, outcome: Outcome, record: int) -> Outgoing:
        alert = outcome.item if isinstance(outcome.item, Alert) else None
        # A name without end would make a score that no topic takes, and stop the stream.
        named = alert is not None and len(alert.object_id) <= _LARGEST_HEADER_BYTES // 4
        object_id = alert.object_id if alert is not None and named else None
        value = encode_score(
            {
                "candid": alert.candid if alert else None,
                "objectId": object_id,
                "jd": _number(alert.value(f"candidate.{JD}")) if alert else None,
                "drb": outcome.drb if alert else None,
                "model": self._version,
                "verdict": outcome.verdict,
                "reason": outcome.reason or None,
                "topic": message.topic,
                "partition": message.partition,
                "offset": message.offset,
                "record": record,
            }
        )
        key = object_id.encode() if object_id is not None else _short_key(message.key)
        return Outgoing(SCORES, topic, key, value, [], _timestamp(message))


# As many as the reader keeps layouts (packet/reader.py).
_KEPT_HEADS = 32


def wire_bytes(message: Outgoing) -> int:
    """How large a message is for the broker, at most: uncompressed, alone in its batch [bytes]."""
    size = _RECORD_OVERHEAD_BYTES + len(message.value) + len(message.key or b"")
    for name, value in message.headers:
        size += _HEADER_OVERHEAD_BYTES + len(name) + len(value or b"")
    return size


def encode_score(score: Mapping[str, Any]) -> bytes:
    """A record of `schemas/rbstream.score.avsc` in a container of its own."""
    schema, head, sync = _score_schema()
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, schema, score)
    return head + encode_block([buffer.getvalue()], sync)


def decode_score(value: bytes) -> dict[str, Any]:
    """The one record of a message of the scores topic. Raises ValueError for anything else."""
    schema, head, sync = _score_schema()
    try:
        if value.startswith(head) and value.endswith(sync):
            (block,) = read_blocks(value, len(head), Header(b"", "null", sync, len(head)), Limits())
            buffer = io.BytesIO(value[block.start : block.end])
            return cast(dict[str, Any], fastavro.schemaless_reader(buffer, schema, schema))
        (record,) = fastavro.reader(io.BytesIO(value), schema)  # of another version
    except Exception as error:  # whatever a codec makes of bytes that are no score
        raise ValueError(f"no score: {error}") from error
    return cast(dict[str, Any], record)


@cache
def _score_schema() -> tuple[Any, bytes, bytes]:
    raw = json.loads(data_path("schemas/rbstream.score.avsc").read_text(encoding="utf-8"))
    text = json.dumps(_undocumented(raw), separators=(",", ":")).encode()
    sync = hashlib.sha256(text).digest()[:SYNC_BYTES]
    return fastavro.parse_schema(raw), encode_header(text, sync), sync


def _undocumented(schema: Any) -> Any:
    """A schema without its docs: it travels with every score."""
    if isinstance(schema, dict):
        return {key: _undocumented(value) for key, value in schema.items() if key != "doc"}
    return [_undocumented(part) for part in schema] if isinstance(schema, list) else schema


def _source_headers(message: Message, record: int) -> Headers:
    """The input's headers, but for those that another rbstream wrote of its own input; and where this one came from."""
    headers = [header for header in message.headers if not header[0].startswith(OURS)]
    headers += [
        ("rbstream.source.topic", message.topic.encode()),
        ("rbstream.source.partition", b"%d" % message.partition),
        ("rbstream.source.offset", b"%d" % message.offset),
        ("rbstream.source.record", b"%d" % record),
        ("rbstream.source.timestamp", b"%d" % message.timestamp),
    ]
    if message.key is not None:
        headers.append(("rbstream.source.key", message.key.decode("utf-8", "backslashreplace").encode()))
    return headers


def _without_body(letter: Outgoing, message: Message, record: int) -> Outgoing:
    """A dead letter that is too large for its topic: what was in it, and where it still is."""
    body = {
        "sha256": hashlib.sha256(letter.value).hexdigest(),
        "bytes": len(letter.value),
        "topic": message.topic,
        "partition": message.partition,
        "offset": message.offset,
        "record": record,
    }
    # The input's own headers may be what is too large.
    headers = [header for header in letter.headers if header[0].startswith(OURS)]
    headers.append(("rbstream.body", b"sha256"))
    short = [(name, value[:_LARGEST_HEADER_BYTES] if value else value) for name, value in headers]
    return letter._replace(value=json.dumps(body).encode(), headers=short, key=_short_key(letter.key))


# Some dozen of them, and a key, stay under the least that a topic must take (kafka/topics.py).
_LARGEST_HEADER_BYTES = 2048


def _number(value: object) -> float | None:
    """A number, whatever else a schema may have under its name."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


# Kafka refuses what is an hour ahead of its own clock (message.timestamp.after.max.ms), which may not be ours.
_FURTHEST_FUTURE_MS = 1_800_000


def _timestamp(message: Message) -> int:
    """The input's time [ms]; 0, which is now to Kafka, where it is so far ahead that Kafka would refuse it."""
    return message.timestamp if message.timestamp < time.time() * 1000 + _FURTHEST_FUTURE_MS else 0


def _short_key(key: bytes | None) -> bytes | None:
    return key if key is None or len(key) <= _LARGEST_HEADER_BYTES else None


def _now() -> bytes:
    return datetime.now(UTC).isoformat(timespec="milliseconds").encode()
