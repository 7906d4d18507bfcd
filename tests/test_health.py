"""Health over real HTTP: what probes and Prometheus get, and what the log says of a loop that is stuck."""

import gzip
import http.client
import logging
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from prometheus_client.core import GaugeMetricFamily

from rbstream.errors import UsageError
from rbstream.health import MAX_CLIENTS, Health
from rbstream.metrics import Metrics

STUCK_AFTER = 120.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Served:
    """A Health that serves on the loopback."""

    health: Health
    metrics: Metrics
    clock: Clock
    port: int

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
        answer = connection.getresponse()
        result = answer.status, dict(answer.getheaders()), answer.read()
        connection.close()
        return result

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)


@pytest.fixture
def served() -> Iterator[Served]:
    metrics, clock = Metrics(), Clock()
    health = Health(metrics, STUCK_AFTER, clock=clock)
    yield Served(health, metrics, clock, health.start("127.0.0.1", 0))
    health.close()


@dataclass
class Log(logging.Handler):
    """What the health module logs, and an event for it."""

    records: list[logging.LogRecord] = field(default_factory=list)
    came: threading.Event = field(default_factory=threading.Event)

    __hash__ = logging.Handler.__hash__

    def __post_init__(self) -> None:
        super().__init__()

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.came.set()


@pytest.fixture
def log() -> Iterator[Log]:
    handler, logger = Log(), logging.getLogger("rbstream.health")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def test_alive_while_the_loop_ticks_and_again_when_it_goes_on(served: Served) -> None:
    assert served.ask("/livez")[0] == 200
    served.clock.now += STUCK_AFTER
    assert served.ask("/livez")[0] == 200
    served.clock.now += 1
    status, _, body = served.ask("/livez")
    assert (status, body) == (503, b"the loop made no progress for 121 s\n")
    served.health.tick()
    assert served.ask("/livez")[0] == 200


def test_ready_only_with_a_verified_model_and_an_assignment_and_not_when_stopping(served: Served) -> None:
    def answer() -> tuple[int, str, float | None]:
        status, _, body = served.ask("/readyz")
        return status, body.decode(), served.metrics.registry.get_sample_value("rbstream_ready")

    no_model = (503, "the model is not verified on its device yet\n", 0)
    no_partitions = (503, "no assignment of partitions seen yet\n", 0)
    assert answer() == no_model
    served.health.set_assigned(True)
    assert answer() == no_model
    served.health.set_model_ready()
    assert answer() == (200, "ok\n", 1)
    served.health.set_assigned(False)
    assert answer() == no_partitions
    served.health.set_assigned(True)
    assert answer() == (200, "ok\n", 1)
    served.clock.now += STUCK_AFTER + 1
    assert answer() == (503, "the loop made no progress for 121 s\n", 0)
    served.health.tick()
    assert answer() == (200, "ok\n", 1)
    served.health.stopping()
    assert answer() == (503, "stopping\n", 0)


def test_a_worker_that_stops_is_alive(served: Served) -> None:
    served.health.stopping()
    assert served.ask("/livez")[0] == 200


def test_metrics_in_the_format_and_compression_asked_for(served: Served) -> None:
    served.metrics.rewinds.inc(3)
    status, headers, body = served.ask("/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    assert b"\nrbstream_rewinds_total 3.0\n" in body
    _, headers, body = served.ask("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
    _, headers, body = served.ask("/metrics", Accept_Encoding="gzip")
    assert headers["Content-Encoding"] == "gzip"
    assert b"rbstream_rewinds_total 3.0" in gzip.decompress(body)


def test_head_answers_as_get_does_without_the_body(served: Served) -> None:
    for path in ("/livez", "/readyz", "/nowhere"):
        status, headers, body = served.ask(path)
        head = served.ask(path, "HEAD")
        assert (head[0], head[1]["Content-Length"], head[2]) == (status, str(len(body)), b"")
        assert head[1]["Content-Type"] == headers["Content-Type"]
    status, headers, body = served.ask("/metrics", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 1000


@pytest.mark.parametrize("path", ["/", "/metrics/", "/livez2", "/%2e%2e/etc/passwd", "/ready"])
def test_other_paths_are_not_found(served: Served, path: str) -> None:
    status, _, body = served.ask(path)
    assert (status, body) == (404, b"there are /metrics, /livez and /readyz\n")


def test_a_probe_may_bring_a_query(served: Served) -> None:
    assert served.ask("/livez?verbose=1")[0] == 200


def test_a_taken_port_is_told_with_the_settings_to_change(served: Served) -> None:
    with pytest.raises(UsageError, match=f"on 127.0.0.1 port {served.port}: Address already in use.*`metrics.port`"):
        Health(Metrics(), STUCK_AFTER).start("127.0.0.1", served.port)


def test_a_host_that_is_none_is_told() -> None:
    with pytest.raises(UsageError, match=r"can't serve metrics on no\.such\.host\.invalid port 0: .*`metrics.host`"):
        Health(Metrics(), STUCK_AFTER).start("no.such.host.invalid", 0)


def test_it_listens_on_ipv6_too() -> None:
    health = Health(Metrics(), STUCK_AFTER)
    try:
        port = health.start("::1", 0)
    except UsageError:
        pytest.skip("no IPv6 loopback here")
    try:
        connection = http.client.HTTPConnection("::1", port, timeout=30)
        connection.request("GET", "/livez")
        assert connection.getresponse().status == 200
        connection.close()
    finally:
        health.close()


def test_closing_frees_the_port_and_twice_does_no_harm(served: Served) -> None:
    served.health.close()
    served.health.close()
    with pytest.raises(ConnectionRefusedError):
        served.connect()
    again = Health(Metrics(), STUCK_AFTER)
    assert again.start("127.0.0.1", served.port) == served.port
    again.close()


def test_the_loop_may_go_on_talking_to_a_closed_one_and_to_one_never_started(served: Served) -> None:
    served.health.close()
    for health in (served.health, Health(Metrics(), STUCK_AFTER)):
        health.tick()
        health.set_model_ready()
        health.set_assigned(False)
        health.stopping()
        health.close()


def test_slow_clients_keep_nobody_waiting(served: Served) -> None:
    slow = [served.connect() for _ in range(10)]
    for client in slow[5:]:
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: ")
    assert served.ask("/livez")[0] == 200
    slow[-1].sendall(b"x\r\n\r\n")
    assert slow[-1].recv(15) == b"HTTP/1.0 200 OK"
    for client in slow:
        client.close()


def test_of_too_many_clients_the_oldest_is_dropped(served: Served) -> None:
    oldest = served.connect()
    others = [served.connect() for _ in range(MAX_CLIENTS)]
    assert served.ask("/livez")[0] == 200
    assert oldest.recv(1) == b"", "closed by the server"
    for client in (oldest, *others):
        client.close()


def test_broken_clients_leave_no_trace(served: Served, log: Log, capfd: pytest.CaptureFixture[str]) -> None:
    for request in (b"\x16\x03\x01 what\r\n\r\n", b"GET\r\n\r\n", b"GET " + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b""):
        with served.connect() as client:
            client.sendall(request)
            client.shutdown(socket.SHUT_WR)
            while client.recv(4096):
                pass
    for _ in range(5):  # reset as soon as the request is out
        with served.connect() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
    assert served.ask("/livez")[0] == 200
    for thread in threading.enumerate():
        if "process_request_thread" in thread.name:
            thread.join(30)
    assert capfd.readouterr() == ("", "")
    assert [record for record in log.records if record.levelno > logging.DEBUG] == []


def test_a_collector_that_fails_is_logged_and_only_metrics_suffer(served: Served, log: Log) -> None:
    class Failing:
        def collect(self) -> Iterator[GaugeMetricFamily]:
            raise RuntimeError("no such sensor")

    served.metrics.registry.register(Failing())
    assert served.ask("/metrics")[::2] == (500, b"see the log\n")
    assert "no such sensor" in str(log.records[0].exc_info)
    assert served.ask("/livez")[0] == 200


def test_a_stuck_loop_writes_all_stacks_once_until_it_goes_on(log: Log) -> None:
    clock = Clock()
    health = Health(Metrics(), STUCK_AFTER, clock=clock)
    health.look()
    assert log.records == []
    for _ in range(2):
        clock.now += STUCK_AFTER + 5
        stuck_here(health)
        clock.now += 500
        health.look()
        (record,) = log.records
        assert (record.levelname, record.getMessage()) == ("ERROR", "the loop made no progress for 125 s")
        stacks = record.stacks.split("\n\n")  # type: ignore[attr-defined]
        assert ["stuck_here" in each for each in stacks if each.startswith("MainThread (")] == [True]
        health.tick()
        health.look()
        assert log.records[1].getMessage() == "the loop goes on"
        health.look()
        assert len(log.records) == 2
        log.records.clear()


def stuck_here(health: Health) -> None:
    health.look()


def test_the_watchdog_needs_nobody_to_ask(log: Log) -> None:
    health = Health(Metrics(), stuck_after=0.01)  # by the real clock
    health.start("127.0.0.1", 0)
    try:
        assert log.came.wait(30), "the stacks of a loop that never ticked"
    finally:
        health.close()
    assert "stacks" in vars(log.records[0])


def test_the_watchdog_ends_with_the_health(served: Served) -> None:
    served.health.close()
    for thread in threading.enumerate():
        if thread.name in ("watchdog", "health"):
            thread.join(30)
            assert not thread.is_alive()


def test_a_loop_that_never_goes_on_ends_the_process_for_its_supervisor() -> None:
    program = (
        "import time; from rbstream.health import Health; from rbstream.metrics import Metrics;"
        "health = Health(Metrics(), 0.05, 0.1); health.start('127.0.0.1', 0); time.sleep(60)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50)
    assert done.returncode == 1
    assert "giving up" in done.stderr
