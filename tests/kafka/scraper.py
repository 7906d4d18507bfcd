"""Debian's Prometheus as a process that scrapes workers for tests."""

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from broker import free_port
from cluster import wait_until
from needs import require


class Prometheus:
    """Scrapes ports of 127.0.0.1 once a second, whether or not somebody listens there. ports: by the label `job`."""

    def __init__(self, folder: Path, **ports: int) -> None:
        program = shutil.which("prometheus")
        require("prometheus", program is not None, "prometheus is not installed")
        folder.mkdir(parents=True, exist_ok=True)
        jobs = [
            {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]} for job, port in ports.items()
        ]
        intervals = {"scrape_interval": "1s", "scrape_timeout": "1s"}
        config = folder / "prometheus.yml"
        config.write_text(json.dumps({"global": intervals, "scrape_configs": jobs}))  # JSON is YAML
        address = f"127.0.0.1:{free_port()}"
        self._url = f"http://{address}/api/v1/query"
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
        with urllib.request.urlopen(
            f"{self._url}?{urllib.parse.urlencode({'query': expression})}", timeout=10
        ) as answer:
            results: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return [(result["metric"], float(result["value"][1])) for result in results]

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
