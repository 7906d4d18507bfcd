"""Debian's Prometheus as a process that scrapes workers for tests."""

import json
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from broker import free_port
from needs import require
from waiting import wait_until


class Prometheus:
    """Scrapes ports of 127.0.0.1 once a second, whether or not somebody listens there.

    ports: by the label `job`. labels: of a job's target, beside it. rules: files of rules.
    """

    def __init__(
        self, folder: Path, labels: Mapping[str, dict[str, str]] | None = None, rules: Sequence[Path] = (), **ports: int
    ) -> None:
        program = shutil.which("prometheus")
        require("prometheus", program is not None, "prometheus is not installed")
        folder.mkdir(parents=True, exist_ok=True)
        jobs = [
            {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": (labels or {}).get(job)}]}
            for job, port in ports.items()
        ]
        settings = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "scrape_configs": jobs,
            "rule_files": [str(path.absolute()) for path in rules],
        }
        config = folder / "prometheus.yml"
        config.write_text(json.dumps(settings))  # JSON is YAML
        address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{address}"
        arguments = [f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
        with (folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", str(program), *arguments, f"--web.listen-address={address}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(self._answers, f"Prometheus answers, see {folder / 'prometheus.log'}")

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of every series that the expression gives now."""
        results = self._ask("query", query=expression)
        return [(result["metric"], float(result["value"][1])) for result in results]

    def history(self, expression: str, start: float, end: float, step: float = 1.0) -> list[tuple[dict[str, str], Any]]:
        """Labels, and (time, value) pairs, of every series between two times [s since 1970]."""
        results = self._ask("query_range", query=expression, start=start, end=end, step=step)
        return [(one["metric"], [(float(at), float(value)) for at, value in one["values"]]) for one in results]

    def _ask(self, what: str, **parameters: object) -> list[dict[str, Any]]:
        url = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                results: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            if error.code == HTTPStatus.SERVICE_UNAVAILABLE:  # it starts
                raise
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error
        return results

    def value(self, expression: str) -> float | None:
        """The value of an expression that gives one series; None where it gives none."""
        found = self.query(expression)
        assert len(found) < 2, f"{expression}: {found}"
        return found[0][1] if found else None

    def await_value(self, expression: str, expected: float, seconds: float = 60) -> None:
        """Wait until the expression has the value expected."""
        last: list[float | None] = [None]

        def there() -> bool:
            last[0] = self.value(expression)
            return last[0] == expected

        try:
            wait_until(there, f"{expression} is {expected:g}", seconds, pause=0.3)
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {last[0]}") from None

    def close(self) -> None:
        self._process.kill()
        self._process.wait(30)

    def _answers(self) -> bool:
        assert self._process.poll() is None, "Prometheus ended at once"
        try:
            return self.value("vector(1)") == 1
        except OSError:
            return False
