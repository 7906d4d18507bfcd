"""librdkafka's properties: all can be passed through, but for what breaks a promise or has a setting of its own."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Client = Literal["source", "sink"]
SOURCE: tuple[Client, ...] = ("source",)
SINK: tuple[Client, ...] = ("sink",)
BOTH: tuple[Client, ...] = ("source", "sink")

# rbstream's own, in place of librdkafka's 60 s: how long a killed worker that does not come back holds up those who
# read what it wrote, and those who take its partitions over; a healthy transaction takes milliseconds, one across a
# broker's restart some seconds.
TRANSACTION_TIMEOUT_MS = 30_000
MAX_POLL_INTERVAL_MS = 300_000  # librdkafka's own

_TRUE, _FALSE = {"true", "t", "1"}, {"false", "f", "0"}  # as librdkafka reads them


@dataclass(frozen=True, slots=True)
class Rule:
    """A property that is not free, or free within bounds.

    names: the property and its other names, for the clients it is refused for. allows: which values do no harm, in
    `allowed` in words; None is none. reason: what the others would break, or what to set instead.
    """

    names: tuple[str, ...]
    clients: tuple[Client, ...]
    reason: str
    allowed: str = ""
    allows: Callable[[str], bool] | None = None


def _one_of(*values: str) -> Callable[[str], bool]:
    return lambda value: value.strip().lower() in values


def _between(least: int, most: int) -> Callable[[str], bool]:
    def allows(value: str) -> bool:
        number = _number(value)
        return number is not None and least <= number <= most

    return allows


def _number(value: str) -> int | None:
    try:
        return int(value)
    except ValueError:
        return None


def _not(*values: str) -> Callable[[str], bool]:
    return lambda value: value.strip().lower() not in values


RULES = (
    # What has a setting of its own.
    Rule(("bootstrap.servers", "metadata.broker.list"), SOURCE, "set source.bootstrap_servers"),
    Rule(("bootstrap.servers", "metadata.broker.list"), SINK, "set sink.bootstrap_servers"),
    Rule(("group.id",), SOURCE, "set source.group_id"),
    Rule(("group.instance.id",), SOURCE, "set source.instance_id"),
    Rule(("queued.max.messages.kbytes",), SOURCE, "set source.prefetch, which the bound on memory counts with"),
    Rule(("transactional.id",), SINK, "set sink.transactional_id"),
    # Nothing lost, nothing twice: reading.
    Rule(
        ("enable.auto.commit", "auto.commit.enable"), SOURCE,
        "offsets are committed with the results they belong to; on a timer they would run ahead, and alerts be lost",
        "false", _one_of(*_FALSE),
    ),
    Rule(
        ("enable.auto.offset.store",), SOURCE,
        "only offsets of alerts that went out are stored; stored on arrival they would run ahead, and alerts be lost",
        "false", _one_of(*_FALSE),
    ),
    Rule(
        ("auto.offset.reset",), SOURCE,
        "rbstream begins at the earliest alert where nothing is committed, and halts where what was is gone",
    ),
    Rule(
        ("isolation.level",), SOURCE, "what a transaction wrote and then took back would be scored",
        "read_committed", _one_of("read_committed"),
    ),
    Rule(
        ("enable.partition.eof",), SOURCE,
        "the end of a partition tells when a committed offset may step over transaction markers",
        "true", _one_of(*_TRUE),
    ),
    Rule(
        ("offset.store.method",), SOURCE, "offsets belong into the transaction, not into a file of their own",
        "broker", _one_of("broker"),
    ),
    Rule(
        ("partition.assignment.strategy",), SOURCE,
        "a rebalance would take every partition from every worker, and end what is under way",
        "cooperative-sticky", _one_of("cooperative-sticky"),
    ),
    Rule(
        ("topic.metadata.refresh.interval.ms",), SOURCE, "a new nightly topic has to be found within a minute",
        "1 to 60000", _between(1, 60_000),
    ),
    Rule(
        ("allow.auto.create.topics",), SOURCE, "a name that is spelled wrong would become a topic that stays empty",
        "false", _one_of(*_FALSE),
    ),
    Rule(("topic.blacklist",), SOURCE, "set source.topics to those that are meant"),
    Rule(("statistics.interval.ms",), SOURCE, "by them rbstream tells for how long no broker has answered"),
    # Nothing lost, nothing twice: writing.
    Rule(
        ("enable.idempotence",), SINK, "messages that are sent again would arrive twice, or out of order",
        "true", _one_of(*_TRUE),
    ),
    Rule(
        ("acks", "request.required.acks"), SINK, "results that only some replicas have are lost with their broker",
        "all", _one_of("all", "-1"),
    ),
    Rule(
        ("retries", "message.send.max.retries"), SINK, "a broker's hiccup would lose results",
        "1 or more", _between(1, (1 << 31) - 1),
    ),
    Rule(
        ("max.in.flight.requests.per.connection", "max.in.flight"), SINK,
        "brokers recognise what they have had already among the last five requests", "1 to 5", _between(1, 5),
    ),
    Rule(("queuing.strategy",), SINK, "results would leave out of order", "fifo", _one_of("fifo")),
    Rule(
        ("enable.gapless.guarantee",), SINK, "one message that is refused would end the worker",
        "false", _one_of(*_FALSE),
    ),
    Rule(("delivery.report.only.error",), SINK, "offsets are committed on the reports of success"),
    Rule(
        ("message.timeout.ms", "delivery.timeout.ms"), SINK,
        "a message that never gives up holds up all behind it; sink.max_outage says how long Kafka may be away",
        "1 or more", _between(1, (1 << 31) - 1),
    ),
    Rule(
        ("message.max.bytes",), SINK, "an alert of 76 kB has to fit, or every one would be rejected",
        "131072 or more", _between(1 << 17, 1_000_000_000),
    ),
    Rule(
        ("partitioner",), SINK, "alerts of one object have to stay in one partition", "any but random",
        _not("random"),
    ),
    # Either.
    Rule(
        ("api.version.request",), BOTH, "transactions and headers need to know what the broker can do", "true",
        _one_of(*_TRUE),
    ),
    Rule(("test.mock.num.brokers",), BOTH, "a mock cluster keeps nothing of what it acknowledges"),
)  # fmt: skip

CALLBACK = "takes a function or an object of a program, which a setting can't hold"
_CALLBACKS = {
    "opaque", "interceptors", "default_topic_conf", "default.topic.config", "enabled_events", "logger", "on_commit",
    "on_delivery", "ssl_engine_callback_data", "msg_order_cmp",
}  # fmt: skip
KIP_848 = 'under group_protocol = "consumer" the broker decides it, and the client refuses it'
BROKER_DECIDES = {
    "session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy", "group.protocol.type"
}  # fmt: skip


def refused(client: Client, properties: Mapping[str, str], group_protocol: str) -> dict[str, str]:
    """The properties that can't be passed through, with the reason for each. A pure function.

    client: whose properties they are. group_protocol: classic or consumer.
    """
    return dict(_refused(client, properties, group_protocol))


def _refused(client: Client, properties: Mapping[str, str], group_protocol: str) -> Iterator[tuple[str, str]]:
    rules = {name: rule for rule in RULES if client in rule.clients for name in rule.names}
    for name, value in properties.items():
        rule = rules.get(name)
        if name in _CALLBACKS or name.endswith("_cb"):
            yield name, CALLBACK
        elif client == "source" and group_protocol == "consumer" and name in BROKER_DECIDES:
            yield name, KIP_848
        elif rule is not None and (rule.allows is None or not rule.allows(value)):
            yield name, f"{rule.reason} (allowed: {rule.allowed})" if rule.allowed else rule.reason
