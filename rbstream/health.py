"""`/metrics`, `/livez` and `/readyz`; and the watchdog that writes a stuck loop's stacks to the log.

All of it lives in threads of its own. What goes wrong there is never the loop's concern.
"""

import io
import logging
import math
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from http import HTTPStatus
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import make_wsgi_app

from rbstream.errors import ExitStatus, UsageError
from rbstream.metrics import Metrics

logger = logging.getLogger(__name__)

# A probe or a scrape sends its request at once, and takes the answer at once [s].
CLIENT_TIMEOUT = 5.0

# Many more than the kubelet and a few Prometheus open at a time; each costs a thread.
MAX_CLIENTS = 64

# How long `close` may take until the server notices [s]: it comes out of the time for draining.
CLOSE_WITHIN = 0.1

# Looks at the loop before it counts as stuck: the stacks are written at most a tenth later than they could be.
LOOKS = 10

Answer = tuple[str, list[tuple[str, str]], bytes]
"""Status, headers, body."""


class Health:
    """What the loop says of itself, and the server that passes it on. No method called by the loop raises or waits.

    stuck_after: seconds without a tick after which the loop counts as stuck; making a Health counts as a tick.
    give_up_after: and after which the process ends, for its supervisor: calls may never return (librdkafka issue 5456).
    """

    def __init__(
        self,
        metrics: Metrics,
        stuck_after: float,
        give_up_after: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics_app = make_wsgi_app(metrics.registry)
        self._stuck_after = stuck_after
        self._give_up_after = give_up_after
        self._clock = clock
        self._last_tick = clock()
        self._model_ready = False
        self._assigned = False
        self._stopping = False
        self._told = False
        self._closed = threading.Event()
        self._server: _Server | None = None
        metrics.ready.set_function(lambda: float(self.unready() is None))

    def tick(self) -> None:
        """The loop made progress."""
        self._last_tick = self._clock()

    def set_model_ready(self) -> None:
        """The model is verified on its device."""
        self._model_ready = True

    def set_assigned(self, assigned: bool) -> None:
        """Whether the group has given this worker its partitions, which may be none."""
        self._assigned = assigned

    def stopping(self) -> None:
        """The worker drains and leaves: not ready from here on."""
        self._stopping = True

    def start(self, host: str, port: int) -> int:
        """Serve in the background; returns the port, which is any free one where `port` is 0.

        Raises UsageError where it can't listen there.
        """
        try:
            family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
            self._server = _Server(family, (str(address[0]), port), self._app)
        except OSError as error:
            raise UsageError(
                f"can't serve metrics on {host} port {port}: {error.strerror or error}; choose another "
                "`metrics.host` or `metrics.port`"
            ) from error
        threading.Thread(target=self._server.serve_forever, args=[CLOSE_WITHIN], name="health", daemon=True).start()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return int(self._server.server_port)

    def close(self) -> None:
        """Stop serving and watching. Once is enough, twice does no harm."""
        self._closed.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def stuck_for(self) -> float | None:
        """Seconds since the last tick where they are too many, else None."""
        silence = self._clock() - self._last_tick
        return silence if silence > self._stuck_after else None

    def unready(self) -> str | None:
        """Why the worker is not ready; None where it is."""
        if self._stopping:
            return "stopping"
        if not self._model_ready:
            return "the model is not verified on its device yet"
        if not self._assigned:
            return "no assignment of partitions seen yet"
        return self.stuck()

    def stuck(self) -> str | None:
        """In words where the loop is."""
        silence = self.stuck_for()
        return None if silence is None else f"the loop made no progress for {silence:.0f} s"

    def look(self) -> None:
        """Log the stacks of all threads if the loop is stuck, once until it ticks again; end the process in the end."""
        silence = self.stuck_for()
        if silence is None:
            if self._told:
                logger.warning("the loop goes on")
            self._told = False
        elif not self._told:
            self._told = True
            logger.error("the loop made no progress for %.0f s", silence, extra={"stacks": _stacks()})
        if silence is not None and silence > self._give_up_after:
            logger.critical("the loop made no progress for %.0f s; giving up", silence)
            os._exit(ExitStatus.FAILED)

    def _watch(self) -> None:
        while not self._closed.wait(self._stuck_after / LOOKS):
            self.look()

    def _app(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        try:
            status, headers, body = self._answer(environ)
        except Exception:
            logger.exception("could not answer %s", environ["PATH_INFO"])
            status, headers, body = _line(HTTPStatus.INTERNAL_SERVER_ERROR, "see the log")
        start_response(status, [*headers, ("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _answer(self, environ: WSGIEnvironment) -> Answer:
        match environ["PATH_INFO"]:
            case "/metrics":
                return self._metrics(environ)
            case "/livez":
                trouble = self.stuck()
            case "/readyz":
                trouble = self.unready()
            case _:
                return _line(HTTPStatus.NOT_FOUND, "there are /metrics, /livez and /readyz")
        return _line(HTTPStatus.OK, "ok") if trouble is None else _line(HTTPStatus.SERVICE_UNAVAILABLE, trouble)

    def _metrics(self, environ: WSGIEnvironment) -> Answer:
        """What prometheus_client answers: the format and compression that the client asked for."""
        heads: list[tuple[str, list[tuple[str, str]]]] = []
        method = environ["REQUEST_METHOD"].replace("HEAD", "GET")
        body = self._metrics_app({**environ, "REQUEST_METHOD": method}, lambda *head: heads.append(head))
        return *heads[0], b"".join(body)


def _line(status: HTTPStatus, text: str) -> Answer:
    return f"{status.value} {status.phrase}", [("Content-Type", "text/plain; charset=utf-8")], f"{text}\n".encode()


def _stacks() -> str:
    """Every thread's stack, innermost call last, under the thread's name."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"{names.get(ident, 'unknown')} ({ident}):\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()
    )


class _Handler(WSGIRequestHandler):
    timeout = CLIENT_TIMEOUT

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a probe every few seconds is no news."""

    def get_stderr(self) -> io.StringIO:
        """Where wsgiref writes of a client that went away: nowhere. Our own faults are logged in `Health`."""
        return io.StringIO()


class _Server(ThreadingMixIn, WSGIServer):
    """One thread a client, so that a slow one keeps nobody waiting; of too many, the oldest is dropped."""

    daemon_threads = True
    request_queue_size = MAX_CLIENTS  # who knocks while five others wait would be told to come again in a second

    def __init__(self, family: int, address: tuple[str, int], app: Callable[..., Iterable[bytes]]) -> None:
        self.address_family = family
        self._clients: dict[Any, None] = {}
        self._clients_lock = threading.Lock()
        super().__init__(address, _Handler)
        self.set_app(app)

    def server_bind(self) -> None:
        """As HTTPServer does, but for asking the DNS what our name is: that can take as long as it likes."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._clients_lock:
            self._clients[request] = None
            oldest = next(iter(self._clients)) if len(self._clients) > MAX_CLIENTS else None
            if oldest is not None:
                del self._clients[oldest]
        if oldest is not None:
            with suppress(OSError):  # it just went by itself
                oldest.shutdown(socket.SHUT_RDWR)  # wakes its thread, which closes it
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._clients_lock:
            self._clients.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.debug("a client of the health server was lost", exc_info=True)
