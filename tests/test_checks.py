"""Settings that are fine each, and don't go together."""

import pytest

from rbstream.checks import problems
from rbstream.config import load_settings
from rbstream.errors import UsageError

pytestmark = pytest.mark.usefixtures("bare")

GIVEN = {"source.topics": ["^ztf_.*_in$", "more"], "sink.topic": "out", "sink.dead_letters": "dead"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sink.topic": "ztf_1_in"}, "sink.topic: ztf_1_in is among source.topics"),
        ({"routes.r.topic": "more"}, "routes.r.topic: more is among source.topics"),
        ({"sink.scores": "more", "sink.bootstrap_servers": "B:1, a:1", "source.bootstrap_servers": "b:1"}, "for ever"),
        ({"sink.dead_letters": "out"}, "sink.dead_letters: out is sink.topic already"),
        ({"sink.scores": "dead"}, "sink.scores: dead is sink.dead_letters already"),
        ({"routes.r.topic": "out"}, "routes.r.topic: out is sink.topic already"),
        ({"routes.r.topic": "x", "routes.s.topic": "x"}, "routes.s.topic: x is routes.r.topic already"),
        ({"routes.main.topic": "x"}, "call it otherwise"),
        ({"sink.topic": "^out$"}, "sink.topic: ^out$: no name for a topic"),
        ({"sink.progress_prefix": "a b"}, "sink.progress_prefix: a b: no name for a topic"),
        ({"source.topics": "^a"}, "source.topics: ^a: a pattern has to end in $"),
        ({"shutdown.drain": "5min"}, "shutdown.drain: 300 s is not less than max.poll.interval.ms, 300000 ms"),
        ({"source.properties.max.poll.interval.ms": "20000"}, "25 s is not less than max.poll.interval.ms, 20000 ms"),
        ({"shutdown.drain": "1s", "batch.max_delay": "1s"}, "batch.max_delay: 1 s is not less than shutdown.drain"),
        ({"sink.properties.message.timeout.ms": "40000"}, "more than transaction.timeout.ms, 30000 ms"),
        ({"sink.properties.acks": "1", "source.group_protocol": "classic"}, "sink.properties.acks: results that only"),
        ({"source.group_protocol": "consumer", "source.properties.session.timeout.ms": "1"}, "the broker decides it"),
        ({"source.schema_registry": "registry:8081"}, "has to begin with http"),
        ({"source.schema_registry": "http://r", "source.schemas": "."}, "come from one of them"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(given: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError) as raised:
        load_settings({**GIVEN, **given})
    assert words in str(raised.value)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"sink.topic": "more", "source.bootstrap_servers": "a:1", "sink.bootstrap_servers": "b:1"},
        {"sink.scores": "ztf_in"},
        {"shutdown.drain": "10min", "source.properties.max.poll.interval.ms": "900000"},
        {"sink.properties.message.timeout.ms": "40000", "sink.properties.transaction.timeout.ms": "60000"},
        {"sink.properties.message.timeout.ms": "40000", "delivery": "at-least-once"},
        {"source.properties.session.timeout.ms": "6000"},
    ],
)
def test_settings_that_go_together_pass(given: dict[str, str]) -> None:
    assert problems(load_settings({**GIVEN, **given})) == []
