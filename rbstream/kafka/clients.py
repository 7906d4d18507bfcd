"""The clients: librdkafka's configuration from the settings, and what the clients say while nobody calls them."""

import json
import logging
import math
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaError

from rbstream import __version__
from rbstream.kafka.faults import KafkaFailure
from rbstream.kafka.properties import TRANSACTION_TIMEOUT_MS
from rbstream.settings import Settings

Config = dict[str, Any]
logger = logging.getLogger(__name__)

# New nightly topics are found after this; the metadata of a cluster is some kB.
METADATA_REFRESH_MS = 10_000
# librdkafka waits a second before it fetches on once its queue was full: a stall at every 64 MiB.
FETCH_BACKOFF_MS = 20
# An answer of each broker comes on top of what is fetched ahead already: of four, as much again.
FETCHES_AHEAD = 4
# An answer is kept until its last packet is done with: larger ones take more memory for longer. Over 100 ms of network
# these are still 500 alerts/s of each broker.
LARGEST_FETCH_BYTES = 4 << 20
# The same complaint again and again tells nothing new: a broker that is away makes some a second.
SECONDS_BETWEEN_COMPLAINTS = 30.0
# How often a client tells what its brokers did: 6 kB of text, to know within seconds that they do nothing.
STATISTICS_MS = 5_000
# A client that has nothing to read hears from its brokers all the same: metadata every 10 s, and a heartbeat is at
# most 15 s away (group.consumer.max.heartbeat.interval.ms).
LEAST_SILENCE_SECONDS = 30.0


def consumer_config(settings: Settings) -> Config:
    """For the consumer of `[source]`. Offsets are ours to commit, and to choose where there is none."""
    source = settings.source
    classic = {"partition.assignment.strategy": "cooperative-sticky"}
    config = {
        "bootstrap.servers": source.bootstrap_servers,
        "client.id": _client_id(),
        "group.id": source.group_id,
        "group.protocol": source.group_protocol,
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "enable.partition.eof": True,
        "topic.metadata.refresh.interval.ms": METADATA_REFRESH_MS,
        "queued.max.messages.kbytes": source.prefetch >> 10,
        "fetch.max.bytes": min(source.prefetch // FETCHES_AHEAD, LARGEST_FETCH_BYTES),
        "fetch.queue.backoff.ms": FETCH_BACKOFF_MS,
        **(classic if source.group_protocol == "classic" else {}),
        **source.properties,
    }
    return config if source.instance_id is None else {**config, "group.instance.id": source.instance_id}


def member_config(settings: Settings) -> Config:
    """For a member of the group where it lives at the sink: it reads nothing."""
    connection = admin_config(producer_config(settings))
    ours = {name: value for name, value in consumer_config(settings).items() if not name.startswith(_CONNECTION)}
    return {**ours, **connection, "enable.partition.eof": False}


def reader_config(settings: Settings) -> Config:
    """For a consumer of `[source]` that is told by hand what to read, as the group lives at the sink."""
    return without_membership(consumer_config(settings))


def without_membership(config: Config) -> Config:
    """A consumer's configuration for one that does not subscribe: without what only members of a group need."""
    return {name: value for name, value in config.items() if not name.startswith(_MEMBERSHIP)}


def progress_prefix(settings: Settings) -> str:
    """Of the sink's topics that stand for the source's, where the group lives at the sink; with the dot behind it."""
    return f"{settings.sink.progress_prefix or f'{settings.source.group_id}.progress'}."


def producer_config(settings: Settings) -> Config:
    """For the producer of `[sink]`, but for what only the topics tell (see `with_limits`)."""
    sink = settings.sink
    timeouts = {"transaction.timeout.ms": TRANSACTION_TIMEOUT_MS, "transactional.id": transactional_id(settings)}
    config = {
        "bootstrap.servers": sink_servers(settings),
        "client.id": _client_id(),
        "enable.idempotence": True,
        "acks": "all",
        # With the default, rebootstrap, adding offsets to a transaction never returns once the coordinator's broker was
        # away (librdkafka 2.16, issues 5511 and 5456).
        "metadata.recovery.strategy": "none",
        # Java's choice of a partition for a key, so that others who write or join by objectId agree with us.
        "partitioner": "murmur2_random",
        **(timeouts if settings.delivery == "exactly-once" else {}),
        **_shared_properties(settings),
        **sink.properties,
    }
    if "delivery.timeout.ms" not in config:  # its other name
        config.setdefault("message.timeout.ms", config.get("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS))
    return config


def with_limits(config: Config, largest: int, smallest: int, queue_bytes: int) -> Config:
    """A producer's configuration for topics that take messages of `smallest` to `largest` bytes at most.

    queue_bytes: what is handed to it before it is waited for.
    """
    limits = {
        "message.max.bytes": largest,
        # A batch that is larger than its topic takes would be refused whole.
        "batch.size": min(smallest, 1_000_000),
        "queue.buffering.max.kbytes": (queue_bytes >> 10) + 1,
    }
    return {**limits, **config}


def admin_config(config: Mapping[str, Any]) -> Config:
    """A client's configuration without what an admin client warns of."""
    return {name: value for name, value in config.items() if name.startswith(_CONNECTION)}


def sink_servers(settings: Settings) -> str | None:
    """Where results go: the sink's servers, or the source's."""
    return settings.sink.bootstrap_servers or settings.source.bootstrap_servers


def transactional_id(settings: Settings) -> str:
    """One a process and the same after a restart: as set, or group and instance (or host, a StatefulSet's ordinal)."""
    instance = settings.source.instance_id or socket.gethostname()
    return settings.sink.transactional_id or f"{settings.source.group_id}.{instance}"


def _shared_properties(settings: Settings) -> Mapping[str, str]:
    """How to get into the cluster, where source and sink are one: said once, meant for both."""
    if settings.sink.bootstrap_servers not in (None, settings.source.bootstrap_servers):
        return {}
    return {name: value for name, value in settings.source.properties.items() if name.startswith(_SECURITY)}


_SECURITY = ("security.", "sasl.", "ssl.", "enable.sasl", "enable.ssl", "https.", "client.dns", "broker.address")
_CONNECTION = (*_SECURITY, "bootstrap.servers", "client.id", "socket.", "reconnect.", "error_cb", "logger")
_MEMBERSHIP = (
    "group.protocol", "group.instance", "group.remote", "partition.assignment", "session.", "heartbeat.", "max.poll."
)  # fmt: skip


def _client_id() -> str:
    return f"rbstream-{__version__}"


class Complaints:
    """What a client tells outside of calls: logged, each code once in a while, the last one kept for error messages."""

    def __init__(self, client: str, count: Callable[[str, str], None] = lambda client, error: None) -> None:
        self._client = client
        self._count = count
        self._said: dict[str, float] = {}
        self._silence = _Silence()
        self._heard = time.monotonic()
        self.last: KafkaError | None = None

    def check(self, max_outage: float) -> None:
        """Raises KafkaFailure where no broker has answered for so long [s]."""
        silent = self._silence.seconds
        if silent > max(max_outage, LEAST_SILENCE_SECONDS):
            why = f": {self.last.str()}" if self.last is not None else ""
            raise KafkaFailure(f"{self._client}: no broker has answered for {silent:.0f} s{why}")

    def unheard(self) -> float:
        """Seconds since it was last known that a broker answers: those too in which nobody had time to listen."""
        return time.monotonic() - self._heard

    def count(self, error: KafkaError) -> None:
        """Count an error that somebody else tells of."""
        self._count(self._client, error.name())

    def on_statistics(self, statistics: str) -> None:
        """librdkafka's `stats_cb`."""
        self._silence.hear(statistics)
        if not self._silence.seconds:
            self._heard = time.monotonic()

    def on_error(self, error: KafkaError) -> None:
        """librdkafka's `error_cb`."""
        name = error.name()
        self.last = error
        self.count(error)
        now = time.monotonic()
        if now - self._said.get(name, -SECONDS_BETWEEN_COMPLAINTS) >= SECONDS_BETWEEN_COMPLAINTS:
            self._said[name] = now
            logger.warning("Kafka client: %s", error.str(), extra={"client": self._client, "error": name})


class _Silence:
    """For how long no broker has answered a client, by its statistics (librdkafka's STATISTICS.md: `ts`, `rx`).

    That all brokers are down it tells by an error too; but not always, and of one that is frozen minutes later.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._at = math.inf
        self._answers = 0

    def hear(self, statistics: str) -> None:
        told = json.loads(statistics)
        at, answers = told["ts"] / 1e6, sum(broker["rx"] for broker in told["brokers"].values())
        if answers > self._answers:
            self.seconds = 0.0
        else:  # who was halted in between, did not listen
            self.seconds += min(max(0.0, at - self._at), 2 * STATISTICS_MS / 1000)
        self._at, self._answers = at, answers


def with_voice(config: Config, complaints: Complaints) -> Config:
    """A configuration whose client complains through `complaints` and logs through rbstream's log."""
    return {**config, "error_cb": complaints.on_error, "logger": _librdkafka}


_librdkafka = logging.getLogger("rbstream.librdkafka")
# A connection that fails comes to `error_cb` as well, in the same words; a coordinator that is still loading is what a
# new transactional id always meets first.
_librdkafka.addFilter(lambda record: not record.getMessage().startswith(("FAIL ", "GETPID ")))


def make_consumer(config: Config, complaints: Complaints, polled: bool = False) -> confluent_kafka.Consumer:
    """A consumer that does not read yet. polled: whether it is all the time, and can tell what its brokers do."""
    statistics = {"stats_cb": complaints.on_statistics, "statistics.interval.ms": STATISTICS_MS} if polled else {}
    return confluent_kafka.Consumer(with_voice({**config, **statistics}, complaints))


def make_producer(config: Config, complaints: Complaints) -> confluent_kafka.Producer:
    """A producer; a transactional one has yet to call `init_transactions`."""
    return confluent_kafka.Producer(with_voice(config, complaints))
