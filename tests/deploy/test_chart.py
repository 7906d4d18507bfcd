"""The chart: helm, Kubernetes' schemas, those of custom resources and rbstream itself look at what it makes."""

import importlib.util
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import certifi
import kubernetes_validate
import pytest
import yaml

from rbstream import __version__, dotted
from rbstream.cli import main
from rbstream.config import load_settings
from rbstream.kafka.clients import transactional_id
from rbstream.masking import MASK, masked
from rbstream.units import parse_duration
from rbstream.worker.run import memory_bound
from rbstream.worker.stop import GRACE_SECONDS

CHART = Path(__file__).parents[2] / "deploy" / "chart" / "rbstream"
RELEASE, NAMESPACE = "night", "alerts"
DEPLOY = CHART.parents[1]
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
# The least that can be rendered.
BASE = {
    "image": {"repository": "registry.example.org/rbstream"},
    "config": {
        "source": {"bootstrap_servers": "kafka:9092", "topics": ["^ztf_[0-9]+$"]},
        "sink": {"topic": "ztf_filtered", "dead_letters": "ztf_dead_letters"},
    },
}

every_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)

Values = dict[str, Any] | Path
"""Values of the chart, or a file of them."""


@dataclass(frozen=True)
class Rendered:
    """What helm made of values: its manifests, or why it refused."""

    text: str
    error: str | None

    @cached_property
    def manifests(self) -> list[dict[str, Any]]:
        assert self.error is None, self.error
        return [each for each in yaml.safe_load_all(self.text) if each]

    def all(self, kind: str) -> list[dict[str, Any]]:
        return [each for each in self.manifests if each["kind"] == kind]

    def one(self, kind: str) -> dict[str, Any]:
        (found,) = self.all(kind)
        return found

    @property
    def pod(self) -> dict[str, Any]:
        """The workers' pods."""
        spec: dict[str, Any] = self.one("StatefulSet")["spec"]["template"]["spec"]
        return spec

    @property
    def worker(self) -> dict[str, Any]:
        """Their container."""
        (container,) = self.pod["containers"]
        return dict(container)

    @property
    def toml(self) -> str:
        (found,) = (each for each in self.all("ConfigMap") if "rbstream.toml" in each["data"])
        return str(found["data"]["rbstream.toml"])


Template = Callable[..., Rendered]


@pytest.fixture(scope="session")
def call(helm: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Rendered]:
    """Calls helm with values, later ones on top; once for the same. chart: another one than ours."""
    folder, done = tmp_path_factory.mktemp("values"), dict[str, Rendered]()

    def run(command: str, *values: Values, chart: Path = CHART) -> Rendered:
        said = json.dumps([command, str(chart), *map(repr, values)])
        if said not in done:
            files = []
            for number, each in enumerate(values):
                file = each if isinstance(each, Path) else folder / f"{len(done)}.{number}.yaml"
                if isinstance(each, dict):
                    file.write_text(json.dumps(each), encoding="utf-8")
                files += ["-f", str(file)]
            name = [] if command.startswith("lint") else [RELEASE]
            ended = subprocess.run(
                [helm, *command.split(), *name, str(chart), "-n", NAMESPACE, *files], capture_output=True, text=True
            )
            done[said] = Rendered(ended.stdout, ended.stdout + ended.stderr if ended.returncode else None)
        return done[said]

    return run


@pytest.fixture(scope="session")
def template(call: Callable[..., Rendered]) -> Callable[..., Rendered]:
    """`helm template` with values."""
    return lambda *values, **options: call("template", *values, **options)


def config(name: str, value: Any) -> dict[str, Any]:
    """Values with one setting of rbstream."""
    return {"config": dotted.tree({name: value})}


def generator() -> Any:
    spec = importlib.util.spec_from_file_location("chart_generate", CHART.parent / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---- what is made


@pytest.mark.parametrize("name", ["values.schema.json", "files/defaults.json", "README.md"])
def test_what_is_made_from_declarations_is_up_to_date(name: str) -> None:
    made = generator().files()[name]

    assert (CHART / name).read_text(encoding="utf-8") == made, "run python deploy/chart/generate.py"


def test_every_value_has_its_line() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    described = {value.name for value in generator().values()}

    def undescribed(tree: dict[str, Any], prefix: str = "") -> list[str]:
        missing = []
        for name, value in tree.items():
            full = f"{prefix}{name}"
            if full not in described:
                missing += undescribed(value, f"{full}.") if isinstance(value, dict) and value else [full]
        return missing

    assert undescribed(values) == []


def test_the_charts_version_of_rbstream_is_this_one() -> None:
    assert yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["appVersion"] == __version__


# ---- examples


@every_example
def test_lint_has_nothing_to_say(call: Template, example: Path) -> None:
    assert call("lint --strict", example).error is None


def test_lint_without_values_has_nothing_to_say(call: Template) -> None:
    assert call("lint --strict").error is None


def validated(manifest: dict[str, Any], version: str) -> None:
    """Raises where a schema that was published for its kind doesn't take it, or where none is known."""
    if manifest["apiVersion"] == "monitoring.coreos.com/v1":
        from cloudcoil.models.prometheus_operator import v1 as models
    elif manifest["apiVersion"] == "keda.sh/v1alpha1":
        from cloudcoil.models.keda import v1alpha1 as models  # type: ignore[no-redef]
    else:
        kubernetes_validate.validate(manifest, version, strict=True)
        return
    model = getattr(models, manifest["kind"]).model_validate(manifest)
    unknown = list(_unknown(manifest, model.model_dump(mode="json", by_alias=True)))
    assert not unknown, f"{manifest['kind']}: no such fields: {unknown}"


def _unknown(given: Any, known: Any, path: str = "") -> Any:
    """What the model left out: its fields that are none."""
    if isinstance(given, dict) and isinstance(known, dict):
        for name, value in given.items():
            if name not in known:
                yield f"{path}.{name}"
            else:
                yield from _unknown(value, known[name], f"{path}.{name}")
    elif isinstance(given, list) and isinstance(known, list):
        for number, (one, other) in enumerate(zip(given, known, strict=True)):
            yield from _unknown(one, other, f"{path}[{number}]")


EVERYTHING: dict[str, Any] = {
    "imagePullSecrets": [{"name": "registry"}],
    "gpu": {"enabled": True, "resource": "nvidia.com/mig-1g.10gb"},
    "networkPolicy": {"policyTypes": ["Ingress"], "ingress": [{"ports": [{"port": "metrics"}]}]},
    "secrets": [{"name": "kafka"}, {"name": "other", "items": [{"key": "a", "path": "sink.properties.sasl.password"}]}],
    "certificates": {"volume": {"secret": {"secretName": "ca"}}},
    "extraEnv": [
        {"name": "TZ", "value": "UTC"},
        {"name": "RBSTREAM_SINK__TOPIC", "valueFrom": {"secretKeyRef": {"name": "kafka", "key": "topic"}}},
    ],
    "extraVolumes": [{"name": "schemas", "configMap": {"name": "schemas"}}],
    "extraVolumeMounts": [{"name": "schemas", "mountPath": "/schemas"}],
    "podAnnotations": {"a": "b"},
    "podLabels": {"c": "d"},
    "nodeSelector": {"e": "f"},
    "tolerations": [{"operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
    "priorityClassName": "night",
    "runtimeClassName": "nvidia",
    "acceptRejects": 1_000_000,
    "autoscaling": {"enabled": True, "maxReplicaCount": 8, "minReplicaCount": 2, "lagThreshold": 10_000_000},
    "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "rules": {"enabled": True, "labels": {"release": "prometheus"}},
    "dashboards": {"enabled": True},
    "rehearsal": {"enabled": True, "topic": "t", "volume": {"emptyDir": {}}, "create": 8, "rate": "realtime"},
}


@pytest.mark.parametrize("values", [*EXAMPLES, EVERYTHING], ids=[*(path.stem for path in EXAMPLES), "everything"])
def test_published_schemas_take_every_manifest(template: Template, values: Any) -> None:
    least = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["kubeVersion"]
    versions = [least.removeprefix(">=").removesuffix("-0"), kubernetes_validate.latest_version()]

    manifests = template(BASE, values).manifests

    assert manifests
    for manifest in manifests:
        for version in versions:
            validated(manifest, version)


def test_a_field_that_is_none_and_a_kind_without_a_schema_are_noticed(template: Template) -> None:
    rendered = template(BASE, EVERYTHING)
    latest = kubernetes_validate.latest_version()

    for kind, spoil in {
        "StatefulSet": lambda it: it["spec"]["template"]["spec"].update(terminationGrace=1),
        "PodMonitor": lambda it: it["spec"]["podMetricsEndpoints"][0].update(every="15s"),
        "PrometheusRule": lambda it: it["spec"]["groups"][0]["rules"][0].update(expression="1"),
        "ScaledObject": lambda it: it["spec"]["triggers"][0].update(lag=1),
    }.items():
        manifest = json.loads(json.dumps(rendered.one(kind)))
        spoil(manifest)
        with pytest.raises((AssertionError, kubernetes_validate.ValidationError)):
            validated(manifest, latest)
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        validated({"apiVersion": "example.org/v1", "kind": "Unheard"}, latest)


def as_in_the_pod(rendered: Rendered, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment, secret files and rbstream.toml of the first pod. Returns the file.

    What it would mount has a stand-in: certificates those of this machine, models the bundle that rbstream ships.
    """
    fields = {"metadata.name": f"{RELEASE}-rbstream-0", "metadata.namespace": NAMESPACE}
    values: dict[str, str] = {}
    for each in rendered.worker["env"]:
        value = each.get("value") or fields[each["valueFrom"]["fieldRef"]["fieldPath"]]
        values[each["name"]] = re.sub(r"\$\((\w+)\)", lambda name: values[name[1]], value)
    file = folder / "rbstream.toml"
    assert values.pop("RBSTREAM_CONFIG") == "/etc/rbstream/rbstream.toml"
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    text = re.sub(r'"/certificates/[^"]+"', json.dumps(certifi.where()), rendered.toml)
    file.write_text(re.sub(r'(?m)^bundle = "/models/.*\n', "", text), encoding="utf-8")
    secrets = folder / "secrets"
    secrets.mkdir()
    for volume in rendered.pod["volumes"]:
        for source in volume.get("projected", {}).get("sources", []):
            for item in source["secret"]["items"]:
                (secrets / item["path"]).write_text("hunter2\n", encoding="utf-8")
    monkeypatch.setenv("RBSTREAM_SECRETS", str(secrets))
    return file


@every_example
def test_rbstream_takes_the_settings_of_the_pod(
    template: Template, example: Path, bare: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = as_in_the_pod(template(example), bare, monkeypatch)

    with pytest.raises(SystemExit) as ended:
        main(["config", "check", "--config", str(file)])

    assert ended.value.code == 0, capsys.readouterr().err
    settings = load_settings({}, file)
    assert transactional_id(settings) == f"{settings.source.group_id}.{NAMESPACE}.{RELEASE}-rbstream-0"


@every_example
def test_a_worker_has_the_time_and_memory_that_its_settings_take(
    template: Template, example: Path, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered = template(example)
    settings = load_settings({}, as_in_the_pod(rendered, bare, monkeypatch))
    drain = settings.shutdown.drain

    # Two seconds at least are the kubelet's: see rbstream.graceSeconds.
    assert rendered.pod["terminationGracePeriodSeconds"] >= drain + 2 * GRACE_SECONDS + 2
    poll = float(settings.source.properties.get("max.poll.interval.ms", generator().MAX_POLL_INTERVAL_MS)) / 1000
    assert settings.batch.max_delay < drain < poll
    limit = re.fullmatch(r"([0-9]+)(Mi|Gi)", rendered.worker["resources"]["limits"]["memory"])
    assert limit is not None
    interpreter_torch_and_model = 500 << 20
    bytes_ = int(limit[1]) << {"Mi": 20, "Gi": 30}[limit[2]]
    assert bytes_ >= memory_bound(settings) + interpreter_torch_and_model


@every_example
def test_secrets_are_only_named(template: Template, example: Path) -> None:
    rendered = template(example)

    assert not rendered.all("Secret")
    for name, value in dotted.leaves(tomllib.loads(rendered.toml)).items():
        assert masked(name, value) == value
    for manifest in (*rendered.all("StatefulSet"), *rendered.all("Job")):
        for container in manifest["spec"]["template"]["spec"]["containers"]:
            for each in container["env"]:
                assert masked(each["name"].replace("_", "."), each.get("value", "")) == each.get("value", "")


# ---- rbstream.toml

WRITTEN: dict[str, Any] = {
    "delivery": "at-least-once",
    "source": {
        "bootstrap_servers": "kafka:9092",
        "topics": ["^ztf_[0-9]+$", 'a"b\\c'],
        "report_progress": False,
        "prefetch": 1048576000,
        "properties": {
            "session.timeout.ms": 45000,
            "max.partition.fetch.bytes": 1000000000,
            "sasl": {"mechanism": "SCRAM-SHA-512"},
            "client.rack": 'käse "rack" \\ \t\n<&>',
            "socket.keepalive.enable": True,
        },
    },
    "sink": {"topic": "out", "dead_letters": "dead", "max_outage": 1200000000},
    "routes": {"bright-1": {"topic": "bright", "threshold": 0.25, "where": "magpsf < 17 and isdiffpos in ('t', '1')"}},
    "filter": {"threshold": 1e-05},
}


def test_the_toml_holds_what_the_values_say(template: Template) -> None:
    read = tomllib.loads(template({**BASE, "config": WRITTEN}).toml)

    assert read == WRITTEN
    kinds = {name: type(value) for name, value in dotted.leaves(read).items()}
    assert kinds == {name: type(value) for name, value in dotted.leaves(WRITTEN).items()}


def test_null_is_not_set(template: Template) -> None:
    read = tomllib.loads(template(BASE, config("sink.scores", None), config("filter.threshold", None)).toml)

    assert read == {**BASE["config"], "filter": {}}


def test_another_setting_is_another_pod(template: Template) -> None:
    def checksum(*values: Any) -> str:
        template_ = template(BASE, *values).one("StatefulSet")["spec"]["template"]
        return str(template_["metadata"]["annotations"]["checksum/config"])

    assert checksum() == checksum({"podMonitor": {"enabled": True}})
    assert checksum() != checksum(config("filter.threshold", 0.5))


# ---- refused

REFUSED: list[tuple[dict[str, Any], str]] = [
    # By the schema: names, and what they hold.
    (config("batch.max_alert", 32), r"'/config/batch': additional properties 'max_alert' not allowed"),
    ({"config": {"filters": {}}}, r"'/config': additional properties 'filters' not allowed"),
    (config("batch.max_alerts", 0), r"'/config/batch/max_alerts'"),
    (config("delivery", "at-most-once"), r"'/config/delivery'"),
    ({"replica": 3}, r"additional properties 'replica' not allowed"),
    ({"gpu": {"enable": True}}, r"'/gpu': additional properties 'enable' not allowed"),
    ({"secrets": [{"name": "kafka", "password": "hunter2"}]}, r"additional properties 'password' not allowed"),
    ({"autoscaling": {"minReplicaCount": 0}}, r"'/autoscaling/minReplicaCount'"),
    ({"image": {"digest": "latest"}}, r"'/image/digest'"),
    ({"rules": {"overdue": "3.5 days"}}, r"'/rules/overdue'"),
    ({"rehearsal": {"rate": "fast"}}, r"'/rehearsal/rate'"),
    # By templates: secrets.
    (
        config("source.properties", {"sasl.password": "hunter2"}),
        r"config\.source\.properties\.sasl\.password is a secret: put it into a Secret, under the key "
        r"source\.properties\.sasl\.password",
    ),
    (config("source.properties", {"sasl": {"password": "hunter2"}}), r"sasl\.password is a secret"),
    (config("sink.properties", {"ssl.key.password": "hunter2"}), r"sink\.properties\.ssl\.key\.password is a secret"),
    (config("sink.properties", {"sasl.oauthbearer.client.secret": "hunter2"}), r"client\.secret is a secret"),
    (
        config("source.schema_registry", "https://me:hunter2@registry:8081"),
        r"config\.source\.schema_registry has credentials in its URL",
    ),
    (
        {"extraEnv": [{"name": "RBSTREAM_SOURCE__PROPERTIES__SASL_PASSWORD", "value": "hunter2"}]},
        r"extraEnv: RBSTREAM_SOURCE__PROPERTIES__SASL_PASSWORD is a setting",
    ),
    # Names.
    (config("source.instance_id", "one"), r"config\.source\.instance_id must differ from pod to pod"),
    (config("sink.transactional_id", "one"), r"config\.sink\.transactional_id must differ from pod to pod"),
    (config("metrics.port", 0), r"config\.metrics\.port: 0 is any free port"),
    # Times.
    (config("shutdown.drain", "5min"), r"shutdown\.drain, 300000 ms, is not less than max\.poll\.interval\.ms, 300000"),
    (config("source.properties", {"max.poll.interval.ms": 20000}), r"25000 ms, is not less .* 20000: the group would"),
    (config("source.properties", {"max": {"poll": {"interval": {"ms": "9000"}}}}), r"is not less .* 9000: the group"),
    (config("source.properties", {"max.poll.interval.ms": "5min"}), r"5min is no number of milliseconds"),
    (config("batch.max_delay", "25s"), r"batch\.max_delay, 25000 ms, is not less than config\.shutdown\.drain, 25000"),
    (config("shutdown.drain", "25m"), r"config\.shutdown\.drain: 25m is no duration"),
    # The rest.
    ({"gpu": {"enabled": True}, **config("model.device", "cpu")}, r"model\.device is cpu, and gpu\.enabled asks"),
    ({"gpu": {"enabled": True}, **config("model.device", "auto")}, r"model\.device is auto, and gpu\.enabled asks"),
    ({"model": {"volume": {"emptyDir": {}}}}, r"model\.volume is mounted at /models, and config\.model\.bundle names"),
    ({"autoscaling": {"enabled": True}}, r"autoscaling\.maxReplicaCount is not set"),
    ({"autoscaling": {"enabled": True, "minReplicaCount": 4, "maxReplicaCount": 3}}, r"3, is less than .*, 4"),
    (
        {"autoscaling": {"enabled": True, "maxReplicaCount": 3}, **config("source.report_progress", False)},
        r"config\.source\.report_progress is false",
    ),
]


@pytest.mark.parametrize(("values", "said"), REFUSED, ids=[said.replace("\\", "")[:60] for _, said in REFUSED])
def test_refused_with_a_message(template: Template, values: dict[str, Any], said: str) -> None:
    error = template(BASE, values).error

    assert error is not None
    assert re.search(said, error)
    assert "hunter2" not in error


@pytest.mark.parametrize(("values", "said"), [REFUSED[0], REFUSED[11]], ids=["schema", "templates"])
def test_lint_refuses_too(call: Template, values: dict[str, Any], said: str) -> None:
    """All that templates refuse goes one way, rbstream.refuse: helm lint takes no notice of `fail`."""
    error = call("lint", BASE, values).error

    assert error is not None
    assert re.search(said, error)


MISSING: list[tuple[dict[str, Any], str]] = [
    ({"image": {"repository": ""}}, "image.repository is not set"),
    (config("source.bootstrap_servers", None), "config.source.bootstrap_servers is not set"),
    (config("source.topics", []), "config.source.topics is not set"),
    (config("sink.topic", None), "config.sink.topic is not set"),
    (config("sink.dead_letters", None), "config.sink.dead_letters is not set"),
    ({"rehearsal": {"enabled": True, "volume": {"emptyDir": {}}}}, "rehearsal.topic is not set"),
    ({"rehearsal": {"enabled": True, "topic": "t"}}, "rehearsal.volume is not set"),
]


@pytest.mark.parametrize(("values", "said"), MISSING, ids=[said for _, said in MISSING])
def test_what_is_missing_is_named(template: Template, values: dict[str, Any], said: str) -> None:
    error = template(BASE, values).error

    assert error is not None
    assert said in error


# What librdkafka calls them, and how rbstream masks them.
PROPERTIES = (
    "sasl.password", "ssl.key.password", "ssl.key.pem", "ssl.keystore.password", "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.config", "sasl.oauthbearer.assertion.private.key.pem", "sasl.username", "ssl.ca.pem",
    "sasl.oauthbearer.assertion.private.key.passphrase", "sasl.oauthbearer.token.endpoint.url", "ssl.key.location",
    "ssl.certificate.pem", "security.protocol", "SASL.PASSWORD",
)  # fmt: skip


def test_the_chart_takes_for_a_secret_what_rbstream_masks(template: Template, tmp_path: Path) -> None:
    chart = shutil.copytree(CHART, tmp_path / "rbstream")
    answer = '{{ $name }}: {{ include "rbstream.isSecret" $name | quote }}\n'
    asked = "{{ range $name, $_ := .Values.podLabels }}" + answer + "{{ end }}"
    (chart / "templates" / "asked.yaml").write_text(asked + "kind: Asked\n", encoding="utf-8")

    answers = template(BASE, {"podLabels": dict.fromkeys(PROPERTIES, "x")}, chart=chart).one("Asked")

    masked_ = {name: "yes" if masked(name, "x") == MASK else "" for name in PROPERTIES}
    assert answers == {**masked_, "kind": "Asked"}


def test_the_name_of_a_file_is_no_secret(template: Template) -> None:
    name = "sasl.oauthbearer.assertion.private.key.file"

    assert template(BASE, config("source.properties", {name: "/certificates/key.pem"})).error is None


def test_a_setting_that_rbstream_has_no_more_is_noticed(template: Template, tmp_path: Path) -> None:
    """Templates read settings by name; nothing else would tell that one was renamed."""
    chart = shutil.copytree(CHART, tmp_path / "rbstream")
    file = chart / "files" / "defaults.json"
    file.write_text(file.read_text(encoding="utf-8").replace("shutdown.drain", "shutdown.patience"), encoding="utf-8")

    error = template(BASE, chart=chart).error

    assert error is not None
    assert "the chart reads shutdown.drain, which is no setting of this rbstream" in error


# ---- times


@pytest.mark.parametrize(
    "drain", ["25s", "25S", 25, 45.5, "1500ms", "2min", " 1 min ", "0.01h", "0.001d", "1e1", "1e1s", "90.25 s"]
)
def test_the_grace_period_follows_the_drain(template: Template, drain: str | float) -> None:
    grace = template(BASE, config("shutdown.drain", drain)).pod["terminationGracePeriodSeconds"]

    assert grace == math.ceil(parse_duration(drain)) + 10
    assert grace >= parse_duration(drain) + 2 * GRACE_SECONDS + 2


def test_a_longer_drain_is_fine_where_the_group_waits_longer(template: Template) -> None:
    values = {"config": {"shutdown": {"drain": "10min"}, "source": {"properties": {"max.poll.interval.ms": "900000"}}}}

    assert template(BASE, values).pod["terminationGracePeriodSeconds"] == 610


@pytest.mark.parametrize(("seconds", "stuck_after"), [(300, "2min"), (60, "2min"), (1200, "1min"), (300, 299.5)])
def test_a_model_has_its_time_to_load(template: Template, seconds: int, stuck_after: str | float) -> None:
    worker = template(
        BASE, {"probes": {"startup": {"seconds": seconds}}}, config("health.stuck_after", stuck_after)
    ).worker
    startup, liveness, readiness = (worker[f"{name}Probe"] for name in ("startup", "liveness", "readiness"))
    patience = liveness["periodSeconds"] * liveness["failureThreshold"]

    assert [each["httpGet"]["path"] for each in (startup, liveness, readiness)] == ["/livez", "/livez", "/readyz"]
    assert {each["httpGet"]["port"] for each in (startup, liveness, readiness)} == {"metrics"}
    assert startup["periodSeconds"] * startup["failureThreshold"] >= seconds
    assert parse_duration(stuck_after) + patience >= seconds
    assert patience >= 30


# ---- workers


def test_a_worker_is_called_by_its_pod(template: Template) -> None:
    env = {each["name"]: each for each in template(BASE).worker["env"]}

    assert env["RBSTREAM_SOURCE__INSTANCE_ID"]["value"] == "$(POD_NAMESPACE).$(POD_NAME)"
    assert list(env)[-3:] == ["POD_NAME", "POD_NAMESPACE", "RBSTREAM_SOURCE__INSTANCE_ID"]  # known before it is used
    assert env["POD_NAME"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    assert env["POD_NAMESPACE"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.namespace"


def test_the_configured_port_is_everywhere(template: Template) -> None:
    rendered = template(BASE, config("metrics.port", 9200))

    assert rendered.worker["ports"] == [{"name": "metrics", "containerPort": 9200}]
    assert rendered.one("Service")["spec"]["ports"] == [{"name": "metrics", "port": 9200, "targetPort": "metrics"}]


@pytest.mark.parametrize(
    ("values", "replicas"),
    [
        ({"replicas": 1}, 1),
        ({"replicas": 2}, 2),
        ({"replicas": 0}, 0),
        ({"replicas": 5, "autoscaling": {"enabled": True, "maxReplicaCount": 8}}, None),
    ],
)
def test_replicas_are_keda_s_where_it_is_on_and_one_may_go_at_a_time(
    template: Template, values: dict[str, Any], replicas: int | None
) -> None:
    rendered = template(BASE, values)

    assert rendered.one("StatefulSet")["spec"].get("replicas") == replicas
    assert rendered.one("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert len(rendered.all("ScaledObject")) == (replicas is None)


@pytest.mark.parametrize(
    ("topics", "named"),
    [
        (["ztf"], "ztf"),
        ("ztf", "ztf"),
        (["^ztf"], None),
        (["a", "b"], None),
        ("a,b", None),
        ('["a"]', None),
    ],
)
def test_keda_looks_at_one_topic_or_at_all_of_the_group(template: Template, topics: Any, named: str | None) -> None:
    autoscaling = {"enabled": True, "maxReplicaCount": 8, "authenticationRef": {"name": "kafka"}}
    values = {"autoscaling": autoscaling, "config": {"source": {"topics": topics, "group_id": "g"}}}

    (trigger,) = template(BASE, values).one("ScaledObject")["spec"]["triggers"]

    assert trigger["type"] == "kafka"
    assert trigger["metadata"].get("topic") == named
    assert trigger["metadata"]["bootstrapServers"] == "kafka:9092"
    assert trigger["metadata"]["consumerGroup"] == "g"
    assert trigger["authenticationRef"] == {"name": "kafka"}


def test_numbers_stay_whole(template: Template) -> None:
    """Helm reads numbers as floats, which Go writes as 1e+07."""
    rendered = template(BASE, EVERYTHING)

    assert rendered.worker["args"] == ["run", "--accept-rejects=1000000"]
    (trigger,) = rendered.one("ScaledObject")["spec"]["triggers"]
    assert trigger["metadata"]["lagThreshold"] == "10000000"


def test_a_gpu_is_asked_for_and_has_to_be_there(template: Template) -> None:
    rendered = template(BASE, {"gpu": {"enabled": True, "resource": "nvidia.com/mig-1g.10gb"}})

    assert rendered.worker["resources"]["limits"] == {"memory": "2560Mi", "nvidia.com/mig-1g.10gb": 1}
    assert tomllib.loads(rendered.toml)["model"] == {"device": "cuda"}
    second = template(BASE, {"gpu": {"enabled": True}}, config("model.device", "cuda:1"))
    assert tomllib.loads(second.toml)["model"] == {"device": "cuda:1"}
    without = template(BASE)
    assert without.worker["resources"]["limits"] == {"memory": "2560Mi"}
    assert "model" not in tomllib.loads(without.toml)


@pytest.mark.parametrize("kind", ["StatefulSet", "Job"])
def test_pods_may_do_next_to_nothing(template: Template, kind: str) -> None:
    pod = template(BASE, EVERYTHING).one(kind)["spec"]["template"]["spec"]
    (container,) = pod["containers"]

    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert f"USER {pod['securityContext']['runAsUser']}:" in (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    writable = [each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")]
    assert writable == ["/tmp", "/schemas"]  # the second one is ours, of EVERYTHING
    assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in pod["volumes"]}


def test_pass_through_values_get_there(template: Template) -> None:
    rendered = template(BASE, EVERYTHING)
    pod, metadata = rendered.pod, rendered.one("StatefulSet")["spec"]["template"]["metadata"]
    names = "imagePullSecrets nodeSelector tolerations affinity topologySpreadConstraints priorityClassName"

    for name in (*names.split(), "runtimeClassName"):
        assert pod[name] == EVERYTHING[name]
    assert metadata["annotations"]["a"] == "b"
    assert metadata["labels"]["c"] == "d"
    assert EVERYTHING["extraEnv"][0] in rendered.worker["env"]
    assert EVERYTHING["extraVolumes"][0] in pod["volumes"]
    assert EVERYTHING["extraVolumeMounts"][0] in rendered.worker["volumeMounts"]
    assert [each["name"] for each in pod["volumes"]].count("secrets") == 1
    policy = rendered.one("NetworkPolicy")["spec"]
    # All pods: who only looks wants Kafka too.
    for kind in ("StatefulSet", "Deployment"):
        labels = rendered.one(kind)["spec"]["template"]["metadata"]["labels"]
        assert (
            {"app.kubernetes.io/instance": "night"}.items()
            <= policy["podSelector"]["matchLabels"].items()
            <= labels.items()
        )
    assert {name: policy[name] for name in EVERYTHING["networkPolicy"]} == EVERYTHING["networkPolicy"]


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        ({}, f"registry.example.org/rbstream:{__version__}"),
        ({"tag": "1-cuda"}, "registry.example.org/rbstream:1-cuda"),
        ({"digest": f"sha256:{'0' * 64}"}, f"registry.example.org/rbstream:{__version__}@sha256:{'0' * 64}"),
    ],
)
def test_the_image(template: Template, image: dict[str, str], reference: str) -> None:
    assert template(BASE, {"image": image}).worker["image"] == reference


def test_a_secret_is_a_file_called_as_its_setting(template: Template) -> None:
    rendered = template(BASE, EVERYTHING)
    (volume,) = (each for each in rendered.pod["volumes"] if each["name"] == "secrets")
    (mount,) = (each for each in rendered.worker["volumeMounts"] if each["name"] == "secrets")

    assert [source["secret"] for source in volume["projected"]["sources"]] == EVERYTHING["secrets"]
    assert mount == {"name": "secrets", "mountPath": "/run/secrets/rbstream", "readOnly": True}


# ---- watching


def test_series_tell_deployments_apart(template: Template) -> None:
    values = {"podMonitor": {"enabled": True}, "monitoring": {"cluster": "survey"}, **config("source.group_id", "a$1")}
    rendered = template(BASE, values)
    monitor = rendered.one("PodMonitor")["spec"]
    (endpoint,) = monitor["podMetricsEndpoints"]

    assert monitor["selector"] == rendered.one("StatefulSet")["spec"]["selector"]
    assert (endpoint["port"], endpoint["path"]) == ("metrics", "/metrics")
    assert endpoint["relabelings"] == [
        {"targetLabel": "cluster", "replacement": "survey"},
        {"targetLabel": "group", "replacement": "a$$1"},
    ]


def test_the_sites_rules_are_those_for_who_has_no_chart(template: Template) -> None:
    text = (DEPLOY / "prometheus" / "site.yaml").read_text(encoding="utf-8")
    (topics,) = BASE["config"]["source"]["topics"]
    site = yaml.safe_load(text.replace("ztf_[0-9]+_programid1", topics))
    rules = yaml.safe_load((DEPLOY / "prometheus" / "rules.yaml").read_text(encoding="utf-8"))

    groups = template(BASE, {"rules": {"enabled": True}}).one("PrometheusRule")["spec"]["groups"]

    assert groups == [*site["groups"], *rules["groups"]]


def test_the_sites_rules_follow_the_values(template: Template) -> None:
    values = {"rules": {"enabled": True, "observing": "", "overdue": "36h"}, **config("source.group_id", 'a"b')}
    values["monitoring"] = {"cluster": "ztf"}

    site, *_ = template(BASE, values).one("PrometheusRule")["spec"]["groups"]

    rules = {rule["record"]: rule["expr"] for rule in site["rules"]}
    assert "rbstream:observing" not in rules
    for name in ("rbstream:outside_lag_messages", "rbstream:outside_overdue_messages"):
        assert r'consumergroup="a\"b"' in rules[name]
    assert r'{cluster="ztf", group="a\"b"}' in rules["rbstream:overdue_messages"]
    assert all(rule["labels"] == {"cluster": "ztf", "group": 'a"b'} for rule in site["rules"])
    assert all('"kafka"' not in rule["expr"] for rule in site["rules"])
    assert "offset 36h" in rules["rbstream:outside_overdue_messages"]
    assert "84h" not in json.dumps(site)


@pytest.mark.parametrize(
    ("topics", "expression"),
    [
        (["^ztf_[0-9]+$", "lsst.alerts"], r"^ztf_[0-9]+$|lsst\.alerts"),
        ("a, b", "a|b"),
        ('["a", "^b.*"]', "a|^b.*"),
    ],
)
def test_topics_that_nobody_has_read_yet_are_known_by_their_names(
    template: Template, topics: Any, expression: str
) -> None:
    values = {"rules": {"enabled": True}, **config("source.topics", topics)}

    site, *_ = template(BASE, values).one("PrometheusRule")["spec"]["groups"]

    (lag,) = (rule["expr"] for rule in site["rules"] if rule["record"] == "rbstream:outside_lag_messages")
    assert f"topic=~{json.dumps(expression)}" in lag


def test_topics_in_a_text_with_braces_are_refused_with_the_rules(template: Template) -> None:
    error = template(BASE, {"rules": {"enabled": True}, **config("source.topics", "^ztf_[0-9]{1,3}$")}).error

    assert error is not None
    assert "write config.source.topics as a list" in error


def test_a_group_that_the_source_does_not_know_is_not_looked_for_there(template: Template) -> None:
    values = {"rules": {"enabled": True}, **config("source.report_progress", False)}

    site, *_ = template(BASE, values).one("PrometheusRule")["spec"]["groups"]

    assert {rule["record"] for rule in site["rules"]} == {"rbstream:observing", "rbstream:overdue_messages"}


def test_a_second_release_brings_its_site_and_not_the_alerts_again(template: Template) -> None:
    (site,) = template(BASE, {"rules": {"enabled": True, "alerts": False}}).one("PrometheusRule")["spec"]["groups"]

    assert site["name"] == "rbstream-site"


def test_alerts_link_to_the_runbook_where_it_is(template: Template) -> None:
    values = {"rules": {"enabled": True, "runbook": "https://wiki.example.org/rbstream"}}

    *_, alerts = template(BASE, values).one("PrometheusRule")["spec"]["groups"]

    links = {rule["annotations"]["runbook_url"] for rule in alerts["rules"]}
    assert "https://wiki.example.org/rbstream#rbstreamstalled" in links
    assert all(link.startswith("https://wiki.example.org/rbstream#") for link in links)


@every_example
def test_promtool_takes_the_rules(template: Template, example: Path, tmp_path: Path, promtool: str) -> None:
    file = tmp_path / "rules.yaml"
    spec = template(example, {"rules": {"enabled": True}}).one("PrometheusRule")["spec"]
    file.write_text(yaml.safe_dump(spec), encoding="utf-8")

    ended = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True)

    assert ended.returncode == 0, ended.stderr


def test_dashboards_are_for_grafanas_sidecar(template: Template) -> None:
    values = {"dashboards": {"enabled": True}}
    found = [each for each in template(BASE, values).all("ConfigMap") if "rbstream.toml" not in each["data"]]

    files = {name: text for each in found for name, text in each["data"].items()}
    assert files == {path.name: path.read_text(encoding="utf-8") for path in (DEPLOY / "grafana").glob("*.json")}
    assert files
    assert all(each["metadata"]["labels"]["grafana_dashboard"] == "1" for each in found)


# ---- tools, the receipt


def test_a_pod_of_tools_has_the_workers_settings_and_models_and_is_no_worker(template: Template) -> None:
    claim = {"persistentVolumeClaim": {"claimName": "models"}}
    values = {"model": {"volume": claim}, **config("model.bundle", "/models/a.pt")}
    rendered = template(BASE, values)

    spec = rendered.one("Deployment")["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    *env, device = container["env"]
    assert env == rendered.worker["env"][: len(env)]
    assert device == {"name": "RBSTREAM_MODEL__DEVICE", "value": "cpu"}
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {mount["mountPath"] for mount in rendered.worker["volumeMounts"]} > {"/models"}
    labels, workers = spec["template"]["metadata"]["labels"], rendered.one("StatefulSet")["spec"]["selector"]
    assert spec["selector"]["matchLabels"].items() <= labels.items()
    assert not workers["matchLabels"].items() <= labels.items()


def test_the_pod_of_tools_waits_and_ends_when_it_is_told_to(template: Template) -> None:
    (container,) = template(BASE).one("Deployment")["spec"]["template"]["spec"]["containers"]
    waiting = subprocess.Popen([sys.executable, *container["command"][1:]])
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(1)
        waiting.terminate()
        assert waiting.wait(10) == 0
    finally:
        waiting.kill()


def test_without_tools_there_is_no_such_pod(template: Template) -> None:
    assert template(BASE, {"tools": {"enabled": False}}).all("Deployment") == []


def test_the_receipt_is_asked_for_with_the_workers_settings_and_in_a_pod_of_its_own(template: Template) -> None:
    values = {"receipt": {"enabled": True, "from": "12h"}, **config("sink.scores", "scores")}
    values["model"] = {"volume": {"persistentVolumeClaim": {"claimName": "models"}}}
    values["config"]["model"] = {"bundle": "/models/a.pt"}
    rendered = template(BASE, values)

    spec = rendered.one("CronJob")["spec"]["jobTemplate"]["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert container["args"] == ["audit", "--from=12h"]
    assert container["env"][-1] in rendered.worker["env"]
    assert {mount["name"] for mount in container["volumeMounts"]} <= {volume["name"] for volume in pod["volumes"]}
    assert "/models" in {mount["mountPath"] for mount in container["volumeMounts"]}
    assert spec["backoffLimit"] == 0
    labels = spec["template"]["metadata"]["labels"]
    assert labels.items() & rendered.one("StatefulSet")["spec"]["selector"]["matchLabels"].items() < labels.items()
    assert labels["app.kubernetes.io/component"] == "receipt"


def test_no_receipt_without_a_scores_topic(template: Template) -> None:
    error = template(BASE, {"receipt": {"enabled": True}}).error

    assert error is not None
    assert "receipt.enabled needs config.sink.scores" in error


# ---- a rehearsal


@pytest.mark.parametrize(
    ("values", "arguments"),
    [
        ({}, []),
        ({"rate": 200, "create": 8}, ["--create=8", "--rate=200"]),
        ({"rate": 0.5}, ["--rate=0.5"]),
        ({"rate": "realtime"}, ["--realtime"]),
    ],
)
def test_a_rehearsal_publishes_once(template: Template, values: dict[str, Any], arguments: list[str]) -> None:
    rehearsal = {"enabled": True, "topic": "t", "night": "/nights/a.tar", "volume": {"emptyDir": {}}, **values}
    rendered = template(BASE, {"rehearsal": rehearsal, "secrets": [{"name": "kafka"}]})
    job = rendered.one("Job")
    (publish,) = job["spec"]["template"]["spec"]["containers"]

    assert job["metadata"]["name"] == f"{RELEASE}-rbstream-rehearsal"
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["ttlSecondsAfterFinished"] == 604800
    assert publish["args"] == ["publish", "/nights/a.tar", "--topic=t", *arguments]
    assert publish["image"] == rendered.worker["image"]
    mounts = {each["name"]: each["mountPath"] for each in publish["volumeMounts"]}
    shared = {each["name"]: each["mountPath"] for each in rendered.worker["volumeMounts"]}
    assert mounts == {**shared, "nights": "/nights"}
    # No worker: nothing that selects those may find it.
    selector = rendered.one("StatefulSet")["spec"]["selector"]["matchLabels"]
    assert not selector.items() <= job["spec"]["template"]["metadata"]["labels"].items()


def test_publish_takes_the_jobs_arguments(template: Template, bare: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As far as looking for the night, which isn't here."""
    (publish,) = template(CHART / "examples" / "rehearsal.yaml").one("Job")["spec"]["template"]["spec"]["containers"]

    with pytest.raises(SystemExit):
        main(publish["args"])

    assert "/nights/ztf_public_20260101.tar.gz" in capsys.readouterr().err


# ---- what is said


def test_the_notes_name_what_is_there(call: Template, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", os.devnull)
    notes = call("install --dry-run=client", BASE, EVERYTHING)

    assert notes.error is None
    said = notes.text.partition("NOTES:")[2]
    assert f"kubectl -n {NAMESPACE} rollout status statefulset/{RELEASE}-rbstream\n" in said
    assert f"kubectl -n {NAMESPACE} logs -f job/{RELEASE}-rbstream-rehearsal\n" in said
    assert f"-l app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component=worker\n" in said


@pytest.mark.parametrize("release", ["rbstream", "night-rbstream", "n" * 53])
def test_names_are_short_enough(helm: str, release: str, tmp_path: Path) -> None:
    file = tmp_path / "values.json"
    file.write_text(json.dumps({**BASE, "rehearsal": EVERYTHING["rehearsal"]}), encoding="utf-8")
    made = subprocess.run([helm, "template", release, CHART, "-f", file], capture_output=True, text=True, check=True)

    names = {each["kind"]: each["metadata"]["name"] for each in yaml.safe_load_all(made.stdout) if each}
    assert len(names["StatefulSet"]) <= 52  # the controller appends a hash, and makes a label of it
    assert len(names["Job"]) <= 63
    assert names["StatefulSet"].startswith(release[:52])
