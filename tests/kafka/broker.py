"""A real Apache Kafka broker that tests can start, stop, kill and start again on its data."""

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

# Groups of tests/kafka/broker.py's own consumers: they assign by hand and commit nothing.
READER = "reader"
T = TypeVar("T")


def kafka_home() -> Path | None:
    """The folder of a Kafka distribution: KAFKA_HOME, else the one in ../shared; None where there is none."""
    shared = Path(__file__).parents[3] / "shared/kafka/kafka_2.13-4.3.1"
    home = Path(os.environ.get("KAFKA_HOME", shared))
    return home if (home / "bin/kafka-server-start.sh").is_file() else None


def missing() -> str | None:
    """Why there can be no broker here, or None."""
    if kafka_home() is None:
        return "no Kafka broker: neither KAFKA_HOME nor ../shared/kafka has one"
    if shutil.which("java") is None:
        return "no Kafka broker: java is not installed"
    return None


def wait_until(condition: Callable[[], T], what: str, seconds: float = 30, pause: float = 0.1) -> T:
    """The first true value of a condition. Raises AssertionError that says `what` was awaited, after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(pause)
    return value


def free_port() -> int:
    """A port that nobody listens on, outside the range of outgoing connections: one of those could take it
    while the broker is down."""
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(10_000, low)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port


class Broker:
    """One broker that is its own controller, on 127.0.0.1, with a data folder that is removed with the process.

    properties: more of server.properties. users: name and password of those who may log in at `sasl_servers` by
    SASL PLAIN or SCRAM-SHA-256 (SASL_PLAINTEXT). log_dir: where the data lies, e.g. on a small file system; in the
    broker's own folder by default.
    """

    def __init__(
        self,
        properties: dict[str, Any] | None = None,
        users: dict[str, str] | None = None,
        log_dir: Path | None = None,
    ) -> None:
        home = kafka_home()
        assert home is not None
        self._bin = home / "bin"
        self._process: subprocess.Popen[bytes] | None = None
        self.folder = Path(tempfile.mkdtemp(prefix="rbstream-broker-"))
        # Outlives this process, however that ends, to remove the folder: its standard input ends then.
        self._remover = subprocess.Popen(
            ["sh", "-c", 'cat >/dev/null; sleep 1; rm -rf "$0"', self.folder],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        self.log = self.folder / "broker.log"
        port, controller, sasl = free_port(), free_port(), free_port()
        self.servers, self.sasl_servers = f"127.0.0.1:{port}", f"127.0.0.1:{sasl}"
        settings = _properties(port, controller, log_dir or self.folder / "data")
        settings |= _users(sasl, settings, users) if users else {}
        settings |= properties or {}
        self._settings = self.folder / "server.properties"
        self._settings.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        scram = [f"--add-scram=SCRAM-SHA-256=[name={name},password={word}]" for name, word in (users or {}).items()]
        self.tool("kafka-storage.sh", "format", "--standalone", "-t", _cluster_id(), "-c", self._settings, *scram)

    def tool(self, script: str, *arguments: object) -> str:
        """What one of Kafka's scripts prints."""
        environment = os.environ | {"KAFKA_HEAP_OPTS": "-Xmx256m -XX:TieredStopAtLevel=1"}
        done = subprocess.run(
            [self._bin / script, *map(str, arguments)], capture_output=True, text=True, timeout=120, env=environment
        )
        assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self, seconds: float = 60) -> "Broker":
        """Run it, and wait until it answers. From the main thread: the broker dies with the one that starts it."""
        assert self._process is None, "it runs already"
        environment = os.environ | {"KAFKA_HEAP_OPTS": "-Xms256m -Xmx512m"}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", self._bin / "kafka-server-start.sh", self._settings],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        wait_until(lambda: self._died() or self._answers(), f"broker started, see {self.log}", seconds)
        assert not self._died(), f"the broker ended at once: {self.log.read_text()[-4000:]}"
        return self

    def stop(self, seconds: float = 60) -> None:
        """SIGTERM, and wait for its end."""
        self._end(signal.SIGTERM, seconds)

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL, 30)

    def _end(self, number: signal.Signals, seconds: float) -> None:
        assert self._process is not None, "it doesn't run"
        self._process.send_signal(number)
        self._process.wait(seconds)
        self._process = None

    def close(self) -> None:
        """End it, and remove its folder."""
        if self._process is not None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        assert self._remover.stdin is not None
        self._remover.stdin.close()
        self._remover.wait(30)

    def _died(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def _answers(self) -> bool:
        try:
            return bool(AdminClient(self._client()).list_topics(timeout=2).brokers)
        except KafkaException:
            return False

    def _client(self, **more: Any) -> dict[str, Any]:
        # A broker that is stopped or killed is no news here: what matters is what the callers see of it.
        return {"bootstrap.servers": self.servers, "log_level": 0} | more

    @cached_property
    def admin(self) -> AdminClient:
        return AdminClient(self._client())

    def create(self, *topics: str, partitions: int = 1, **settings: Any) -> None:
        """Make topics. settings: of the topics, e.g. `max_message_bytes=2000`."""
        config = {name.replace("_", "."): str(value) for name, value in settings.items()}
        made = self.admin.create_topics([NewTopic(topic, partitions, 1, config=config) for topic in topics])
        for future in made.values():
            future.result(30)

    def delete(self, *topics: str) -> None:
        for future in self.admin.delete_topics(list(topics)).values():
            future.result(30)

    def partitions(self, topic: str) -> list[int]:
        """The partitions of a topic; none where it doesn't exist."""
        return sorted(self.admin.list_topics(topic, timeout=10).topics[topic].partitions)

    def ends(self, *topics: str) -> dict[tuple[str, int], int]:
        """The next offset of each partition."""
        wanted = [TopicPartition(topic, number) for topic in topics for number in self.partitions(topic)]
        futures = self.admin.list_offsets({partition: OffsetSpec.latest() for partition in wanted})
        return {(at.topic, at.partition): future.result(30).offset for at, future in futures.items()}

    def committed(self, group: str) -> dict[tuple[str, int], TopicPartition]:
        """What a group has committed, offset and metadata."""
        request = [ConsumerGroupTopicPartitions(group)]
        found = self.admin.list_consumer_group_offsets(request)[group].result(30).topic_partitions
        return {(at.topic, at.partition): at for at in found if at.offset >= 0}

    def lag(self, group: str, *topics: str) -> dict[tuple[str, int], int]:
        """How many offsets a group is behind the end of each partition; where it is 0, it is left out."""
        ends, committed = self.ends(*topics), self.committed(group)
        behind = {at: end - (committed[at].offset if at in committed else 0) for at, end in ends.items()}
        return {at: offsets for at, offsets in behind.items() if offsets}

    def read(self, *topics: str, isolation: str = "read_committed") -> Iterator[Message]:
        """Every message from the beginning to the end that the isolation level shows, one partition interleaved
        with another. With an open transaction that end lies before it."""
        consumer = Consumer(
            self._client(
                **{"group.id": READER, "isolation.level": isolation, "enable.auto.commit": False},
                **{"enable.partition.eof": True, "auto.offset.reset": "error"},
            )
        )
        beginning = [TopicPartition(topic, number, 0) for topic in topics for number in self.partitions(topic)]
        for partition in beginning:
            partition.offset = consumer.get_watermark_offsets(partition, timeout=30)[0]
        consumer.assign(beginning)
        unfinished = {(at.topic, at.partition) for at in beginning}
        try:
            while unfinished:
                for message in consumer.consume(500, 1):
                    error = message.error()
                    if error is None:
                        yield message
                    elif error.code() == KafkaError._PARTITION_EOF:
                        unfinished.discard((message.topic(), message.partition()))
                    elif not error.retriable():
                        raise KafkaException(error)
        finally:
            consumer.close()

    def read_all(self, *topics: str, isolation: str = "read_committed") -> list[Message]:
        """The same, all at once."""
        return list(self.read(*topics, isolation=isolation))

    def open_transactions(self) -> dict[str, str]:
        """State by transactional id, of those that are neither committed nor aborted (kafka-transactions.sh)."""
        rows = self.tool("kafka-transactions.sh", "--bootstrap-server", self.servers, "list").splitlines()[1:]
        states = {row.split()[0]: row.split()[-1] for row in rows if row.strip()}
        return {
            name: state for name, state in states.items() if state not in ("Empty", "CompleteCommit", "CompleteAbort")
        }


def headers(message: Message) -> dict[str, str]:
    """A message's headers as text."""
    return {name: value.decode("utf-8") for name, value in message.headers() or []}


def _cluster_id() -> str:
    return str(uuid.uuid4())


def _properties(port: int, controller: int, log_dir: Path) -> dict[str, Any]:
    return {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "log.dir": log_dir,
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 8,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 8,
        # Transactions that ran into their timeout are looked for every second, not every ten.
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
        "group.consumer.min.session.timeout.ms": 6000,
        "group.consumer.session.timeout.ms": 6000,
    }


def _users(port: int, settings: dict[str, Any], users: dict[str, str]) -> dict[str, Any]:
    """A second listener, for those who log in."""
    module = "org.apache.kafka.common.security"
    accounts = " ".join(f'user_{name}="{word}"' for name, word in users.items())
    return {
        "listeners": f"{settings['listeners']},SASL://127.0.0.1:{port}",
        "listener.security.protocol.map": f"{settings['listener.security.protocol.map']},SASL:SASL_PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.name.sasl.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256",
        "listener.name.sasl.plain.sasl.jaas.config": f"{module}.plain.PlainLoginModule required {accounts};",
        "listener.name.sasl.scram-sha-256.sasl.jaas.config": f"{module}.scram.ScramLoginModule required;",
    }
