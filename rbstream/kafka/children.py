"""Processes that the bench starts, watches and ends: worker, publisher, copy."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from rbstream.dotted import leaves
from rbstream.errors import RbstreamError
from rbstream.settings import PREFIX, Settings

# A worker that drains or a publisher that flushes is done long before.
END_SECONDS = 40.0
# Enough for an error message, and for the traceback before it.
QUOTED_CHARACTERS = 2000


class Usage(NamedTuple):
    """Of a whole process, all its threads. cpu: user and system since it started [s]; rss: resident memory [bytes]."""

    cpu: float
    rss: int


class Child:
    """A process that runs Python with some arguments, from the moment it is made. name: for messages.

    folder: for what it says on standard error, and for files that have secrets in them.
    As a context it is asked to end on the way out, and made to where it doesn't.
    """

    def __init__(self, name: str, folder: Path, arguments: list[str]) -> None:
        self._name = name
        self._log = folder / f"{name}.log"
        environment = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}
        environment[f"{PREFIX}SECRETS"] = str(_empty(folder))  # what is in the usual place is in the settings already
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*_leash(), sys.executable, *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
            )  # fmt: skip

    def __enter__(self) -> "Child":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ask_to_end()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def check(self) -> None:
        """Raises RbstreamError, with what it said last, where it ended."""
        if not self.running:
            said = self._log.read_text(encoding="utf-8", errors="replace").strip()[-QUOTED_CHARACTERS:]
            raise RbstreamError(f"the bench's {self._name} ended with status {self._process.returncode}: {said}")

    def usage(self) -> Usage:
        """What it has used so far. Raises RbstreamError where it ended."""
        self.check()
        # proc(5): the fields behind the name begin with the third.
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        user, system, pages = (int(fields[number - 3]) for number in (14, 15, 24))
        return Usage((user + system) / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE"))

    def hold(self) -> None:
        """Halt it until `go_on`."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it run, if it was halted."""
        self._process.send_signal(signal.SIGCONT)

    def ask_to_end(self) -> None:
        """SIGTERM; it may take a while."""
        self.go_on()
        self._process.terminate()


def write_settings(path: Path, settings: Settings) -> Path:
    """Settings as a file for `--config`, for our eyes only: secrets are in it."""
    written = leaves(settings.model_dump(mode="json", exclude_none=True))
    # A JSON string, number or list of strings is TOML too.
    return _write(path, "".join(f"{name} = {_text(value)}\n" for name, value in written.items()))


def write_json(path: Path, values: Mapping[str, Any]) -> Path:
    """The same for a plain mapping."""
    return _write(path, json.dumps(values))


def _leash() -> list[str]:
    """Should the bench be killed, its children go too: a publisher would go on for ever. Where util-linux is."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig=KILL"] if setpriv else []


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _write(path: Path, text: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
    return path


def _empty(folder: Path) -> Path:
    empty = folder / "no-secrets"
    empty.mkdir(exist_ok=True)
    return empty
