"""deploy/compose.yaml, as far as it goes without Docker: every name in it is looked up where it means something."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from needs import require

from rbstream.cli import _parser
from rbstream.config import load_settings
from rbstream.settings import PREFIX, Settings

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
COMPOSE = DEPLOY / "compose.yaml"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
OURS = sorted(name for name, service in SERVICES.items() if service["image"] == "rbstream")
WORKERS = ["worker-0", "worker-1"]
PROMETHEUS = DEPLOY / "compose/prometheus.yml"


def mounts(service: str) -> dict[str, Path]:
    """Where files and folders of this repository are mounted."""
    volumes = (volume.split(":") for volume in SERVICES[service].get("volumes", []))
    return {target: DEPLOY / source for source, target, *_ in volumes if source.startswith(".")}


def script(service: str) -> list[str]:
    """The lines of a service's shell script, as its shell gets them."""
    assert SERVICES[service]["entrypoint"] == ["/bin/sh", "-euc"]
    (text,) = SERVICES[service]["command"]
    return str(text).replace("$$", "$").splitlines()


def test_it_is_what_the_compose_specification_says() -> None:
    check = shutil.which("check-jsonschema", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    require("check-jsonschema", check is not None, "check-jsonschema is not installed")
    line = [str(check), "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_it_says_that_it_was_not_run() -> None:
    head = COMPOSE.read_text().split("\nname:")[0]
    assert "not run here" in head


def test_every_path_of_this_machine_is_there() -> None:
    paths = [path for name in SERVICES for path in mounts(name).values()]
    for name in OURS:
        build = SERVICES[name]["build"]
        paths += [DEPLOY / build["context"] / build["dockerfile"]]
    assert {path.name for path in paths} == {"Dockerfile", "prometheus.yml", "prometheus", "grafana"}
    assert [path for path in paths if not path.exists()] == []


@pytest.mark.parametrize("name", SERVICES)
def test_containers_can_do_little(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service.get("read_only", False) is (name != "kafka")
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert service["image"] == "rbstream" or ":" in service["image"]
    assert "latest" not in service["image"]


def test_what_is_waited_for_can_come() -> None:
    for service in SERVICES.values():
        for name, how in service.get("depends_on", {}).items():
            has_check = "healthcheck" in SERVICES[name]
            assert how["condition"] == ("service_healthy" if has_check else "service_completed_successfully")
            assert has_check or "restart" not in SERVICES[name]


@pytest.mark.parametrize("name", OURS)
def test_rbstream_knows_every_variable(name: str, bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = SERVICES[name]["environment"]
    for variable, value in variables.items():
        monkeypatch.setenv(variable, str(value))
    assert all(variable.startswith(PREFIX) for variable in variables)
    assert load_settings({}).source.bootstrap_servers == "kafka:9092"


@pytest.mark.parametrize("name", WORKERS)
def test_the_workers_settings_are_enough(
    name: str, here: Callable[..., tuple[object, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in SERVICES[name]["environment"].items():
        monkeypatch.setenv(variable, str(value))
    status, out, error = here("config", "check")
    assert status == 0, out + error


@pytest.mark.parametrize("line", [line for line in script("publisher") if "rbstream" in line])
def test_rbstream_takes_every_command_line(line: str) -> None:
    program, *arguments = shlex.split(line.removeprefix("exec "))
    assert program == "rbstream"
    assert callable(_parser().parse_args(arguments).run)


def test_the_publisher_writes_where_the_workers_read() -> None:
    simulate, publish = (shlex.split(line.removeprefix("exec ")) for line in script("publisher"))
    written, options = _parser().parse_args(simulate[1:]), _parser().parse_args(publish[1:])
    assert options.paths == [str(written.path)]
    assert options.topic == SERVICES["worker-0"]["environment"]["RBSTREAM_SOURCE__TOPICS"]
    assert any(str(written.path).startswith(f"{folder}/") for folder in SERVICES["publisher"]["tmpfs"])


def test_all_topics_are_made() -> None:
    text = "\n".join(script("topics")).replace("/opt/kafka/bin/kafka-topics.sh", "echo")
    done = subprocess.run(["/bin/sh", "-euc", text], capture_output=True, text=True, check=True).stdout
    made = {words[words.index("--topic") + 1] for words in map(str.split, done.splitlines())}
    settings = SERVICES["worker-0"]["environment"]
    names = ("SOURCE__TOPICS", "SINK__TOPIC", "SINK__DEAD_LETTERS", "SINK__SCORES")
    assert made == {settings[f"{PREFIX}{name}"] for name in names}


def test_workers_differ_in_their_name_only() -> None:
    one, other = (SERVICES[name] for name in WORKERS)
    variable = f"{PREFIX}SOURCE__INSTANCE_ID"
    names = {worker["environment"][variable] for worker in (one, other)}
    assert names == {"rbstream-0", "rbstream-1"}
    assert one == other | {"environment": other["environment"] | {variable: "rbstream-0"}}


def test_a_worker_has_time_to_drain() -> None:
    for name in WORKERS:
        assert float(SERVICES[name]["stop_grace_period"].removesuffix("s")) > Settings().shutdown.drain


def test_prometheus_takes_its_configuration_and_the_rules(tmp_path: Path, promtool: str) -> None:
    inside = mounts("prometheus")
    for place, source in inside.items():
        copy = tmp_path / place.removeprefix("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, copy)
    config = tmp_path / "etc/prometheus/prometheus.yml"
    assert f"--config.file=/{config.relative_to(tmp_path)}" in SERVICES["prometheus"]["command"]
    done = subprocess.run([promtool, "check", "config", config], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("rules found") == 2


def test_prometheus_scrapes_all_that_export() -> None:
    jobs = {job["job_name"]: job["static_configs"] for job in yaml.safe_load(PROMETHEUS.read_text())["scrape_configs"]}
    (workers,), (exporter,) = jobs["rbstream"], jobs["kafka-exporter"]
    settings = Settings()
    assert workers["targets"] == [f"{name}:{settings.metrics.port}" for name in WORKERS]
    assert workers["labels"] == {"cluster": "kafka", "group": settings.source.group_id}
    assert exporter == {"targets": ["kafka-exporter:9308"], "labels": {"cluster": "kafka"}}
    assert "kafka-exporter" in SERVICES


def test_grafana_finds_prometheus_and_the_dashboards() -> None:
    inside = mounts("grafana")
    provisioned = inside["/etc/grafana/provisioning"]
    (source,) = yaml.safe_load((provisioned / "datasources/prometheus.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((provisioned / "dashboards/rbstream.yaml").read_text())["providers"]
    assert source["url"] == "http://prometheus:9090"
    assert source["jsonData"]["timeInterval"] == yaml.safe_load(PROMETHEUS.read_text())["global"]["scrape_interval"]
    dashboards = inside[provider["options"]["path"]]
    home = Path(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (dashboards / home.name).is_file()
    assert str(home.parent) == provider["options"]["path"]
