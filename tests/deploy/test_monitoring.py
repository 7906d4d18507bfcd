"""Dashboards, rules and runbook are what is declared, speak of what exists, and answer what they promise to."""

import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from generate import DASHBOARDS, HERE, files
from monitoring.alerts import ALERTS, RECORDED, RUNBOOK, SITE, Alert, Clock, expressions, rules
from monitoring.draw import filled_in
from monitoring.panels import Panel

from rbstream import dotted
from rbstream.metrics import Metrics

ROOT = HERE.parent
RULES_TESTS = sorted(Path(__file__).parent.glob("rules.*test.yaml"))
# Not ours: Prometheus' own, its client library's, kafka-exporter's and kube-state-metrics'.
FOREIGN = {
    "ALERTS",
    "process_cpu_seconds_total", "process_open_fds", "process_resident_memory_bytes", "process_start_time_seconds",
    "kafka_consumergroup_current_offset", "kafka_consumergroup_lag", "kafka_topic_partition_current_offset",
    "kafka_topic_partition_oldest_offset",
    "kube_pod_container_resource_requests",
}  # fmt: skip
PANELS = {f"{page.name}: {panel.title}": panel for page in DASHBOARDS for panel in page.panels}
HEADINGS = ["**What it means.**", "**Look at.**", "**Do.**", "**Don't.**"]


def test_nothing_changes_where_they_are_made_again() -> None:
    for name, text in files().items():
        assert (HERE / name).read_text(encoding="utf-8") == text, f"{name} has drifted: run `make docs`"


def test_promtool_accepts_the_rules(promtool: str) -> None:
    command = [promtool, "check", "rules", HERE / "prometheus/rules.yaml", HERE / "prometheus/site.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_when_it_should(promtool: str) -> None:
    done = subprocess.run([promtool, "test", "rules", *RULES_TESTS], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_each_alert_is_tested_for_firing_and_for_silence(alert: Alert) -> None:
    tests = [test for path in RULES_TESTS for test in yaml.safe_load(path.read_text())["tests"]]
    rows = [row for test in tests for row in test.get("alert_rule_test", ()) if row["alertname"] == alert.name]
    assert {bool(row["exp_alerts"]) for row in rows} == {True, False}


def series(expression: str) -> set[str]:
    """Names of the series that an expression asks for."""
    bare = re.sub(
        r'"[^"]*"|\{[^}]*\}|\[[^]]*\]|\b(?:by|on|without|group_left|group_right)\s*\([^)]*\)', " ", expression
    )
    return set(re.findall(r"\b(?:rbstream|process|kafka|kube)[_:][a-z0-9_:]+|\bALERTS\b", bare))


def every_expression() -> Iterator[str]:
    yield from expressions()
    for panel in PANELS.values():
        for query in panel.queries:
            yield query.expression


def test_every_series_that_is_asked_for_is_declared_somewhere() -> None:
    ours = set()
    for metric in Metrics().declared:
        parts = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
        ours |= {f"{metric.name}{part}" for part in parts}
    recorded = {each.name for each in (*RECORDED, *SITE)}
    asked = set().union(*map(series, every_expression()))
    assert asked - ours - recorded - FOREIGN == set()
    assert FOREIGN | recorded <= asked, "nobody asks for some"
    unseen = {metric.name for metric in Metrics().declared} - {
        re.sub("_(bucket|sum|count)$", "", name) for name in asked
    }
    assert unseen == set(), "a metric that no page and no rule looks at"


@pytest.mark.parametrize("panel", PANELS.values(), ids=PANELS)
def test_a_panel_says_its_unit_what_it_shows_and_what_to_do(panel: Panel) -> None:
    assert panel.unit
    assert panel.queries
    assert len(panel.shows) > 20
    assert len(panel.act) > 20
    for mentioned in re.findall(r"runbook,\s(Rbstream\w+)", panel.act):
        assert mentioned in {alert.name for alert in ALERTS}


def test_the_gpus_panels_which_no_live_test_sees_are_tried_on_recorded_series() -> None:
    tried = "".join(path.read_text() for path in RULES_TESTS)
    queries = [query for panel in PANELS.values() for query in panel.queries if "rbstream_gpu_" in query.expression]
    assert len(queries) == 2
    for query in queries:
        assert f"- expr: {filled_in(query.expression)}\n" in tried


def test_titles_are_said_once_a_page() -> None:
    for page in DASHBOARDS:
        titles = Counter(panel.title for panel in page.panels)
        assert titles.most_common(1)[0][1] == 1


def settings_named(text: str) -> set[str]:
    """Words in backticks that look like settings."""
    groups = "|".join({name.split(".")[0] for name in dotted.names() if "." in name})
    return set(re.findall(rf"`((?:{groups})\.[a-z_]+)[`:]", text))


def test_every_setting_that_is_named_exists() -> None:
    text = (ROOT / RUNBOOK).read_text() + " ".join(panel.description for panel in PANELS.values())
    named = settings_named(text)
    # The chart's own values.
    chart = {"rules.observing", "rules.overdue", "gpu.enabled", "autoscaling.maxReplicaCount"}
    assert {name for name in named - chart if not dotted.is_known(name)} == set()
    assert "rejects.max_ratio" in named


def sections() -> dict[str, str]:
    """The runbook's, by heading."""
    _, *parts = re.split(r"^## ", (ROOT / RUNBOOK).read_text(), flags=re.MULTILINE)
    return {part.partition("\n")[0].strip(): part for part in parts}


def test_the_runbook_has_a_section_for_every_alert_and_no_other() -> None:
    assert list(sections()) == [alert.name for alert in ALERTS]


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_a_section_says_what_it_means_what_to_look_at_to_do_and_not_to_do(alert: Alert) -> None:
    assert re.findall(r"^\*\*[A-Z][^*]+\.\*\*", sections()[alert.name], flags=re.MULTILINE) == HEADINGS


def test_panels_that_the_runbook_names_exist() -> None:
    titles = {panel.title for panel in PANELS.values()}
    named = set(re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", (ROOT / RUNBOOK).read_text().replace("\n", " ")))
    assert named - titles == set()
    assert named


def test_a_clock_changes_minutes_and_days_and_no_seconds() -> None:
    quick = rules(Clock(minute=1, day=60))["groups"][1]["rules"]
    usual = rules()["groups"][1]["rules"]
    lasts = {rule["alert"]: rule["for"] for rule in quick}
    assert lasts["RbstreamStalled"] == "10s"
    assert "[60s]" in next(rule["expr"] for rule in quick if rule["alert"] == "RbstreamNoReadyWorker")
    away = [rule["expr"] for rule in (*quick, *usual) if rule["alert"] == "RbstreamKafkaAway"]
    assert away[0] == away[1]
    growing = next(rule["expr"] for rule in usual if rule["alert"] == "RbstreamLagGrowing")
    assert "> 900 * " in growing
