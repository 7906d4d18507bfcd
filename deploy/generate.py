"""Writes the dashboards and the alert rules: `make docs`. A test says when they drift."""

from pathlib import Path

import yaml
from monitoring.alerts import rules
from monitoring.model import MODEL
from monitoring.night import NIGHT
from monitoring.worker import WORKER

DASHBOARDS = (NIGHT, WORKER, MODEL)
HERE = Path(__file__).parent
_RULES_HEAD = (
    "# Made by deploy/generate.py from deploy/monitoring/alerts.py; edit that. Goes with site.yaml beside it.\n"
)


def files() -> dict[str, str]:
    """By path below this folder, all that is made."""
    pages = {f"grafana/{page.name.lower()}.json": page.json() for page in DASHBOARDS}
    return pages | {"prometheus/rules.yaml": _RULES_HEAD + yaml.safe_dump(rules(), sort_keys=False, width=10_000)}


def main() -> None:
    """Write them all."""
    for name, text in files().items():
        (HERE / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
