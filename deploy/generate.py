"""Writes the dashboards and the alert rules: `make docs`. A test says when they drift."""

from pathlib import Path

import yaml
from monitoring.alerts import RUNBOOK, rules, site
from monitoring.model import MODEL
from monitoring.night import NIGHT
from monitoring.worker import WORKER

DASHBOARDS = (NIGHT, WORKER, MODEL)
HERE = Path(__file__).parent
_RULES_HEAD = f"""# Made by deploy/generate.py from deploy/monitoring/alerts.py. Goes with site.yaml beside it.
# runbook_url begins with {RUNBOOK}: put in its place where you keep that, for whoever is woken.
"""
_SITE_HEAD = """# Made by deploy/generate.py from deploy/monitoring/alerts.py.
# What is your site's own; the chart writes this group from its values. Without the chart: a copy of this file for each
# consumer group, with
#   - a name for the source's Kafka where "kafka" stands, and that of the group (source.group_id) for "rbstream", in the
#     labels too: those that the scrape sets,
#   - a regular expression of the topics that it reads for "ztf_[0-9]+_programid1",
#   - half of their retention for 84h, which is half of Kafka's usual 7 days,
#   - your hours of observing [UTC] in rbstream:observing; without it nobody is told of a source that is silent.
# kafka_* are series of kafka-exporter (github.com/danielqsj/kafka_exporter) at the source's Kafka, scraped with the
# same label `cluster` as the workers. Where the sink is another Kafka they need source.report_progress.
"""


def files() -> dict[str, str]:
    """By path below this folder, all that is made."""
    pages = {f"grafana/{page.name.lower()}.json": page.json() for page in DASHBOARDS}
    written = {"prometheus/rules.yaml": (_RULES_HEAD, rules()), "prometheus/site.yaml": (_SITE_HEAD, site())}
    return pages | {
        name: head + yaml.safe_dump(content, sort_keys=False, width=10_000) for name, (head, content) in written.items()
    }


def main() -> None:
    """Write them all."""
    for name, text in files().items():
        (HERE / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
