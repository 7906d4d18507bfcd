"""`rbstream run` as a process that tests can stop, kill, halt, and ask how it does."""

import json
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from broker import free_port
from tiny import RBSTREAM, environment
from waiting import wait_until


class Worker:
    """A worker that runs from the moment it is made, and dies with the process that made it.

    folder: its working directory; what it says on standard error is kept there, over all workers of one name.
    settings: by dotted name, e.g. `{"source.topics": ["in"]}`; given by the environment.
    command: what to run, without `run` and its arguments.
    """

    def __init__(
        self,
        folder: Path,
        settings: dict[str, Any],
        *arguments: object,
        name: str = "worker",
        command: Sequence[object] = RBSTREAM,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.port = int(settings.get("metrics.port", 0))
        self.log = folder / f"{name}.log"
        self._from = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", *map(str, command), "run", *map(str, arguments)],
                cwd=folder,
                env=environment(**variables({"log.format": "json"} | settings)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def text(self) -> str:
        """What this process has written so far."""
        with self.log.open("rb") as log:
            log.seek(self._from)
            return log.read().decode("utf-8", "replace")

    def lines(self) -> list[dict[str, Any]]:
        """The same, line by line as JSON; a line that is none as `{"message": line}`."""
        return [_parsed(line) for line in self.text().splitlines()]

    def await_log(self, part: str, seconds: float = 60) -> dict[str, Any]:
        """The first line of the log whose text has `part` in it."""

        def found() -> dict[str, Any] | None:
            hit = next((line for line in self.text().splitlines() if part in line), None)
            assert hit or self.running, f"{self.name} ended with {self.status} without {part!r}:\n{self.text()[-4000:]}"
            return _parsed(hit) if hit else None

        line = wait_until(found, f"{part!r} in {self.log}", seconds)
        assert line is not None
        return line

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a page of its health server; status 0 where nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def await_ready(self, seconds: float = 60) -> None:
        """Wait until /readyz says 200. `metrics.port` must be among the settings."""

        def ready() -> bool:
            assert self.running, f"{self.name} ended with {self.status}:\n{self.text()[-4000:]}"
            return self.get("/readyz")[0] == 200

        wait_until(ready, f"{self.name} ready, see {self.log}", seconds)

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    @property
    def status(self) -> int | None:
        """Exit status, None while it runs; minus the signal that killed it."""
        return self.process.poll()

    def wait(self, seconds: float = 60) -> int:
        """Its exit status, once it has ended by itself."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"{self.name} did not end within {seconds:g} s:\n{self.text()[-4000:]}") from error

    def stop(self, seconds: float = 60) -> int:
        """SIGTERM; its exit status."""
        self.send(signal.SIGTERM)
        return self.wait(seconds)

    def kill(self) -> None:
        """SIGKILL."""
        self.send(signal.SIGKILL)
        self.wait(30)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def halted(self) -> bool:
        """Whether SIGSTOP has reached it."""
        return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def worker_settings(servers: str, bundle: Path, names: dict[str, str], **more: Any) -> dict[str, Any]:
    """The settings of a worker that reads `in` and writes `out`, `dead` and `scores`: topics by these words in `names`,
    where `group` and `id` are its group and transactional id. more: settings, a double underscore for the dot."""
    settings = {
        "source.bootstrap_servers": servers,
        "source.group_id": names["group"],
        "source.topics": [names["in"]],
        "sink.topic": names["out"],
        "sink.dead_letters": names["dead"],
        "sink.scores": names["scores"],
        "sink.transactional_id": names["id"],
        "model.bundle": bundle,
        "model.device": "cpu",
        "metrics.host": "127.0.0.1",
        "metrics.port": free_port(),
    }
    return settings | {name.replace("__", "."): value for name, value in more.items()}


def variables(settings: dict[str, Any]) -> dict[str, str]:
    """Settings by dotted name as environment variables; librdkafka's own dots are underscores there."""
    return {_variable(name): _text(value) for name, value in settings.items()}


def _variable(name: str) -> str:
    group, _, field = name.partition(".")
    if field.startswith("properties."):
        field = "properties__" + field.removeprefix("properties.").replace(".", "_")
    return f"RBSTREAM_{group}__{field}".removesuffix("__").replace(".", "__").upper()


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, (list, dict)) else str(value)


def _parsed(line: str) -> dict[str, Any]:
    try:
        parsed = json.loads(line)
    except ValueError:
        return {"message": line}
    return parsed if isinstance(parsed, dict) else {"message": line}
