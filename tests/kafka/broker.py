"""A real Apache Kafka broker that tests can start, stop, kill and start again on its data."""

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from cluster import Cluster, headers, kafka_home, missing
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from waiting import wait_until

__all__ = ["Broker", "Cluster", "free_port", "headers", "kafka_home", "missing", "wait_until"]


def free_port() -> int:
    """A port that nobody listens on, outside the range of outgoing connections: one of those could take it
    while the broker is down."""
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(10_000, low)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port


class Broker(Cluster):
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
        super().__init__(f"127.0.0.1:{port}")
        self.sasl_servers = f"127.0.0.1:{sasl}"
        settings = _properties(port, controller, log_dir or self.folder / "data")
        settings |= _users(sasl, settings, users) if users else {}
        settings |= properties or {}
        self._settings = self.folder / "server.properties"
        self._settings.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        scram = [f"--add-scram=SCRAM-SHA-256=[name={name},password={word}]" for name, word in (users or {}).items()]
        self.tool("kafka-storage.sh", "format", "--standalone", "-t", _cluster_id(), "-c", self._settings, *scram)

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

    def send(self, number: signal.Signals) -> None:
        """A signal that it lives on with."""
        assert self._process is not None, "it doesn't run"
        self._process.send_signal(number)

    def _end(self, number: signal.Signals, seconds: float) -> None:
        assert self._process is not None, "it doesn't run"
        self._process.send_signal(number)
        self._process.wait(seconds)
        self._process = None

    def await_death(self, seconds: float) -> None:
        """Wait until it has ended by itself; one that has not by then is killed."""
        assert self._process is not None, "it doesn't run"
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        self.kill()

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
