"""Which of librdkafka's properties can be passed through, decided without Kafka and without its client."""

import pytest

from rbstream.kafka.properties import RULES, Client, refused

REFUSED: list[tuple[Client, str, str, str]] = [
    ("source", "bootstrap.servers", "a:9092", "set source.bootstrap_servers"),
    ("sink", "metadata.broker.list", "a:9092", "set sink.bootstrap_servers"),
    ("source", "group.id", "a", "set source.group_id"),
    ("source", "group.instance.id", "a", "set source.instance_id"),
    ("source", "queued.max.messages.kbytes", "1", "set source.prefetch"),
    ("sink", "transactional.id", "a", "set sink.transactional_id"),
    ("source", "enable.auto.commit", "true", "alerts be lost"),
    ("source", "enable.auto.commit", "1", "alerts be lost"),
    ("source", "enable.auto.commit", "T", "alerts be lost"),
    ("source", "auto.commit.enable", "true", "alerts be lost"),
    ("source", "enable.auto.offset.store", "true", "alerts be lost"),
    ("source", "auto.offset.reset", "latest", "begins at the earliest"),
    ("source", "auto.offset.reset", "earliest", "halts where what was is gone"),
    ("source", "isolation.level", "read_uncommitted", "took back"),
    ("source", "enable.partition.eof", "false", "transaction markers"),
    ("source", "offset.store.method", "file", "transaction"),
    ("source", "partition.assignment.strategy", "range", "rebalance"),
    ("source", "partition.assignment.strategy", "cooperative-sticky,range", "rebalance"),
    ("source", "topic.metadata.refresh.interval.ms", "-1", "within a minute"),
    ("source", "topic.metadata.refresh.interval.ms", "300000", "within a minute"),
    ("source", "topic.metadata.refresh.interval.ms", "soon", "within a minute"),
    ("source", "topic.blacklist", "^ztf_2024", "source.topics"),
    ("source", "statistics.interval.ms", "0", "no broker has answered"),
    ("source", "allow.auto.create.topics", "true", "spelled wrong"),
    ("sink", "enable.idempotence", "false", "twice"),
    ("sink", "acks", "1", "lost with their broker"),
    ("sink", "request.required.acks", "0", "lost with their broker"),
    ("sink", "retries", "0", "hiccup"),
    ("sink", "message.send.max.retries", "0", "hiccup"),
    ("sink", "max.in.flight", "6", "last five"),
    ("sink", "max.in.flight.requests.per.connection", "1000", "last five"),
    ("sink", "queuing.strategy", "lifo", "out of order"),
    ("sink", "enable.gapless.guarantee", "true", "end the worker"),
    ("sink", "delivery.report.only.error", "true", "reports of success"),
    ("sink", "message.timeout.ms", "0", "never gives up"),
    ("sink", "delivery.timeout.ms", "0", "never gives up"),
    ("sink", "message.max.bytes", "1000", "76 kB"),
    ("sink", "partitioner", "random", "one partition"),
    ("source", "api.version.request", "false", "what the broker can do"),
    ("sink", "api.version.request", "0", "what the broker can do"),
    ("source", "test.mock.num.brokers", "3", "keeps nothing"),
    ("sink", "dr_cb", "x", "a function"),
    ("source", "rebalance_cb", "x", "a function"),
    ("source", "logger", "x", "a function"),
    ("sink", "opaque", "x", "a function"),
    ("source", "default.topic.config", "x", "a function"),
]

FREE: list[tuple[Client, str, str]] = [
    ("source", "enable.auto.commit", "false"),
    ("source", "enable.auto.commit", "False"),
    ("source", "isolation.level", "read_committed"),
    ("source", "partition.assignment.strategy", "cooperative-sticky"),
    ("source", "session.timeout.ms", "6000"),
    ("source", "heartbeat.interval.ms", "2000"),
    ("source", "max.poll.interval.ms", "600000"),
    ("source", "topic.metadata.refresh.interval.ms", "2000"),
    ("source", "fetch.max.bytes", "52428800"),
    ("source", "security.protocol", "SASL_SSL"),
    ("source", "sasl.mechanism", "OAUTHBEARER"),
    ("source", "sasl.oauthbearer.client.secret", "x"),
    ("source", "ssl.ca.location", "/x"),
    ("source", "debug", "cgrp"),
    ("source", "client.rack", "b"),
    ("sink", "acks", "all"),
    ("sink", "acks", "-1"),
    ("sink", "enable.idempotence", "true"),
    ("sink", "compression.type", "zstd"),
    ("sink", "linger.ms", "20"),
    ("sink", "transaction.timeout.ms", "60000"),
    ("sink", "message.timeout.ms", "20000"),
    ("sink", "message.max.bytes", "10000000"),
    ("sink", "partitioner", "murmur2"),
    ("sink", "max.in.flight", "1"),
    # Whose promise is the other client's.
    ("sink", "auto.offset.reset", "latest"),
    ("source", "acks", "1"),
]


@pytest.mark.parametrize(("client", "name", "value", "reason"), REFUSED)
def test_what_would_break_a_promise_is_refused_with_the_reason(
    client: Client, name: str, value: str, reason: str
) -> None:
    said = refused(client, {name: value}, "classic")
    assert list(said) == [name]
    assert reason in said[name]


@pytest.mark.parametrize(("client", "name", "value"), FREE)
def test_all_else_passes(client: Client, name: str, value: str) -> None:
    assert refused(client, {name: value}, "classic") == {}


@pytest.mark.parametrize(
    "name", ["session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy", "group.protocol.type"]
)
def test_the_newer_group_protocol_leaves_the_group_to_the_broker(name: str) -> None:
    assert "the broker decides" in refused("source", {name: "cooperative-sticky"}, "consumer")[name]
    assert refused("sink", {name: "1"}, "consumer") == {}


def test_every_rule_has_a_value_that_it_refuses_in_this_table() -> None:
    tried = {(client, name) for client, name, _, _ in REFUSED}
    for rule in RULES:
        assert {(client, name) for client in rule.clients for name in rule.names} & tried, rule.names


def test_a_rule_says_which_values_do_no_harm() -> None:
    assert refused("sink", {"acks": "1"}, "classic")["acks"].endswith("(allowed: all)")


def test_several_are_told_at_once() -> None:
    assert set(refused("sink", {"acks": "1", "retries": "0", "linger.ms": "1"}, "classic")) == {"acks", "retries"}
