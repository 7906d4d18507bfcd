"""What settings have to say of each other: each one may be fine, and the tree still be none to run with."""

from collections import Counter
from collections.abc import Iterator

from rbstream.kafka import patterns
from rbstream.kafka.properties import MAX_POLL_INTERVAL_MS, TRANSACTION_TIMEOUT_MS, refused
from rbstream.settings import Settings

Problem = tuple[str, str]
# What the worker calls its other ways out.
_TAKEN = {"main", "scores", "dead_letters"}


def problems(settings: Settings) -> list[tuple[str, str]]:
    """Each thing that is wrong: the setting's name, and what is wrong with it; none where all is well."""
    return [
        *_properties(settings),
        *_topics(settings),
        *_loops(settings),
        *_times(settings),
        *_rejects(settings),
        *_schemas(settings),
    ]


def results(settings: Settings) -> dict[str, str]:
    """The topics that are written, by the setting that names them."""
    sink = settings.sink
    named = {"sink.topic": sink.topic, "sink.dead_letters": sink.dead_letters, "sink.scores": sink.scores}
    named |= {f"routes.{name}.topic": route.topic for name, route in settings.routes.items()}
    return {name: topic for name, topic in named.items() if topic is not None}


def _properties(settings: Settings) -> Iterator[Problem]:
    source, sink = settings.source, settings.sink
    for name, reason in refused("source", source.properties, source.group_protocol).items():
        yield f"source.properties.{name}", reason
    for name, reason in refused("sink", sink.properties, source.group_protocol).items():
        yield f"sink.properties.{name}", reason


def _topics(settings: Settings) -> Iterator[Problem]:
    for topic in settings.source.topics:
        if said := patterns.problem(topic):
            yield "source.topics", f"{topic}: {said}"
    written = results(settings)
    for name, topic in written.items():
        if said := patterns.name_problem(topic):
            yield name, f"{topic}: {said}"
    prefix = settings.sink.progress_prefix
    if prefix is not None and (said := patterns.name_problem(prefix)):
        yield "sink.progress_prefix", f"{prefix}: {said}"
    for name in _TAKEN.intersection(settings.routes):
        yield f"routes.{name}", "counts and logs have that name for something else; call it otherwise"
    for topic, times in Counter(written.values()).items():
        if times > 1:
            first, *others = (name for name, each in written.items() if each == topic)
            yield (
                " and ".join(others),
                f"{topic} is {first} already: an alert would be there twice, or as what it isn't",
            )


def _loops(settings: Settings) -> Iterator[Problem]:
    """A topic that is read and written feeds itself for ever."""
    if not _same_servers(settings) or any(map(patterns.problem, settings.source.topics)):
        return
    for name, topic in results(settings).items():
        if patterns.matches(settings.source.topics, topic):
            yield name, f"{topic} is among source.topics: what is written there would be read again, for ever"


def _same_servers(settings: Settings) -> bool:
    ours, theirs = settings.source.bootstrap_servers, settings.sink.bootstrap_servers
    return theirs is None or (ours is not None and not _servers(ours).isdisjoint(_servers(theirs)))


def _servers(listed: str) -> set[str]:
    return {server.strip().lower() for server in listed.split(",") if server.strip()}


def _times(settings: Settings) -> Iterator[Problem]:
    drain, delay = settings.shutdown.drain, settings.batch.max_delay
    longest = _milliseconds(settings.source.properties, "max.poll.interval.ms", default=MAX_POLL_INTERVAL_MS)
    if longest is not None and drain * 1000 >= longest:
        yield (
            "shutdown.drain",
            (
                f"{drain:g} s is not less than max.poll.interval.ms, {longest} ms: the group would take partitions "
                "away while they are drained; set a shorter drain, or source.properties.max.poll.interval.ms"
            ),
        )
    if delay >= drain:
        yield "batch.max_delay", f"{delay:g} s is not less than shutdown.drain, {drain:g} s"
    if settings.delivery == "exactly-once":
        yield from _timeouts(settings)


def _timeouts(settings: Settings) -> Iterator[Problem]:
    properties = settings.sink.properties
    transaction = _milliseconds(properties, "transaction.timeout.ms", default=TRANSACTION_TIMEOUT_MS)
    message = _milliseconds(properties, "message.timeout.ms", "delivery.timeout.ms", default=0)
    if transaction is not None and message is not None and message > transaction:
        yield (
            "sink.properties.message.timeout.ms",
            (
                f"{message} ms is more than transaction.timeout.ms, {transaction} ms: a message would "
                "outlive its transaction"
            ),
        )


def _milliseconds(properties: dict[str, str], *names: str, default: int) -> int | None:
    """None for what is no number: librdkafka says so in its own words."""
    text = next((properties[name] for name in names if name in properties), str(default))
    return int(text) if text.strip().isdecimal() else None


def _rejects(settings: Settings) -> Iterator[Problem]:
    limits = settings.rejects
    if limits.in_a_row > limits.window:
        yield "rejects.in_a_row", f"{limits.in_a_row} is more than rejects.window, {limits.window}, remembers"


def _schemas(settings: Settings) -> Iterator[Problem]:
    url = settings.source.schema_registry
    if url is not None and not url.startswith(("http://", "https://")):
        yield "source.schema_registry", "no URL: it has to begin with http:// or https://"
    if url is not None and settings.source.schemas is not None:
        yield "source.schemas", "source.schema_registry is set too; schemas come from one of them"
