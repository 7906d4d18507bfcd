"""Where settings come from, which of them wins, and `rbstream config`."""

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from rbstream.config import load, load_settings
from rbstream.errors import UsageError

Here = Callable[..., tuple[object, str, str]]

RUNNABLE = """
[source]
bootstrap_servers = "kafka:9092"
topics = ["^ztf_[0-9]+_programid1$"]
[sink]
topic = "ztf_filtered"
dead_letters = "ztf_dead_letters"
"""


@pytest.fixture(autouse=True)
def _no_mounted_secrets(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rbstream.config.SECRETS", bare / "nothing-mounted")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_later_sources_win_each_by_each(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        bare / "rbstream.toml",
        '[source]\ngroup_id = "file"\ninstance_id = "file"\ntopics = ["file"]\n[sink]\ntopic = "f"',
    )
    write(bare / "secrets/source.instance_id", "secret\n")
    write(bare / "secrets/source.topics", "secret\n")
    write(bare / "secrets/sink.topic", "secret\n")
    monkeypatch.setenv("RBSTREAM_SOURCE__TOPICS", "variable")
    monkeypatch.setenv("RBSTREAM_SINK__TOPIC", "variable")
    loaded = load({"sink.topic": "option", "sink.scores": None}, secrets=bare / "secrets")
    source, sink = loaded.settings.source, loaded.settings.sink
    assert (source.group_protocol, source.group_id, source.instance_id) == ("classic", "file", "secret")
    assert (source.topics, sink.topic) == (("variable",), "option")
    origins = {name: origin for name, _, origin in loaded.effective()}
    assert origins["source.group_protocol"] == "default"
    assert origins["source.group_id"] == "rbstream.toml"
    assert origins["source.instance_id"] == f"secret file {bare}/secrets/source.instance_id"
    assert origins["source.topics"] == "RBSTREAM_SOURCE__TOPICS"
    assert origins["sink.topic"] == "the command line"


def test_tables_are_merged_setting_by_setting(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        bare / "rbstream.toml", '[routes.bright]\ntopic = "b"\nthreshold = 0.9\n[source.properties]\nclient.rack = "a"'
    )
    monkeypatch.setenv("RBSTREAM_ROUTES__BRIGHT__THRESHOLD", "0.8")
    monkeypatch.setenv("RBSTREAM_SOURCE__PROPERTIES__SASL_USERNAME", "u")
    settings = load_settings({"routes.bright.where": "magpsf < 17"})
    route = settings.routes["bright"]
    assert (route.topic, route.threshold, route.where) == ("b", 0.8, "magpsf < 17")
    assert settings.source.properties == {"client.rack": "a", "sasl.username": "u"}


def test_delivery_has_a_variable_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RBSTREAM_DELIVERY", "at-least-once")
    assert load_settings({}).delivery == "at-least-once"


@pytest.mark.parametrize(
    "written",
    [
        '[source.properties]\nsasl.mechanism = "PLAIN"\nsocket.keepalive.enable = true\nfetch.min.bytes = 5',
        '[source.properties]\n"sasl.mechanism" = "PLAIN"\n"socket.keepalive.enable" = "true"\n"fetch.min.bytes" = "5"',
        '[source]\nproperties = {sasl.mechanism = "PLAIN", socket.keepalive = {enable = true}, "fetch.min".bytes = 5}',
    ],
)
def test_properties_may_be_quoted_or_not(bare: Path, written: str) -> None:
    write(bare / "rbstream.toml", written)
    wanted = {"sasl.mechanism": "PLAIN", "socket.keepalive.enable": "true", "fetch.min.bytes": "5"}
    assert load_settings({}).source.properties == wanted


def test_the_file_is_where_one_says(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(bare / "rbstream.toml", "[metrics]\nport = 1")
    there = write(bare / "there.toml", "[metrics]\nport = 2")
    assert load_settings({}).metrics.port == 1
    monkeypatch.setenv("RBSTREAM_CONFIG", str(there))
    assert load_settings({}).metrics.port == 2
    assert load_settings({}, bare / "rbstream.toml").metrics.port == 1


def test_secrets_are_where_one_says(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(bare / "a/metrics.port", "1")
    write(bare / "b/metrics.port", "2")
    monkeypatch.setattr("rbstream.config.SECRETS", bare / "a")
    assert load_settings({}).metrics.port == 1
    monkeypatch.setenv("RBSTREAM_SECRETS", str(bare / "b"))
    assert load_settings({}).metrics.port == 2
    assert load_settings({}, None, bare / "a").metrics.port == 1


@pytest.mark.parametrize(
    ("file", "content", "password"),
    [
        ("source.properties.sasl.password", b"geheim\n", "geheim"),
        ("source.properties.sasl.password", b"geheim", "geheim"),
        ("source.properties.sasl.password", b"geheim\r\n", "geheim"),
        ("source.properties.sasl.password", b" two \n\n", " two \n"),
        ("source.properties.sasl.password", "größe".encode(), "größe"),
        ("SOURCE__PROPERTIES__SASL_PASSWORD", b"geheim\n", "geheim"),
        ("source__properties__sasl_password", b"geheim\n", "geheim"),
    ],
)
def test_a_secret_is_all_that_its_file_holds_but_the_last_newline(
    bare: Path, file: str, content: bytes, password: str
) -> None:
    write(bare / "secrets" / file, "").write_bytes(content)
    assert load_settings({}, None, bare / "secrets").source.properties == {"sasl.password": password}


def test_secrets_as_kubernetes_mounts_them(bare: Path) -> None:
    folder = bare / "secrets"
    (folder / "..2026_11_22").mkdir(parents=True)
    write(folder / "..2026_11_22/sink.properties.sasl.password", "geheim")
    (folder / "..data").symlink_to("..2026_11_22")
    (folder / "sink.properties.sasl.password").symlink_to("..data/sink.properties.sasl.password")
    assert load_settings({}, None, folder).sink.properties == {"sasl.password": "geheim"}


def test_what_kubernetes_says_of_services_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "RBSTREAM_SERVICE_HOST": "10.0.0.1", "RBSTREAM_SERVICE_PORT": "9108", "RBSTREAM_SERVICE_PORT_METRICS": "9108",
        "RBSTREAM_PORT": "tcp://10.0.0.1:9108", "RBSTREAM_PORT_9108_TCP": "tcp://10.0.0.1:9108",
        "RBSTREAM_PORT_9108_TCP_ADDR": "10.0.0.1", "RBSTREAM_METRICS_SERVICE_HOST": "10.0.0.1",
        "RBSTREAM_METRICS_PORT": "tcp://10.0.0.1:9108",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    assert load_settings({}) == load_settings({})


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("RBSTREAM_METRICS_PORT", "9109", "RBSTREAM_METRICS_PORT"),
        ("RBSTREAM_SOURCE__GROUPID", "a", "source.group_id"),
        ("RBSTREAM_SORUCE__GROUP_ID", "a", "RBSTREAM_SORUCE__GROUP_ID"), ("RBSTREAM_SOURCE", "a", "is a group"),
        ("RBSTREAM_BATCH__MAX_DELAY", "soon", "by RBSTREAM_BATCH__MAX_DELAY"),
    ],
)  # fmt: skip
def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError, match=words):
        load_settings({})


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("[source]\ngroup_id = \n", r"rbstream\.toml: not TOML: .*line 2"),
        (
            "[sorce]\ngroup_id = 'a'\n",
            r"sorce\.group_id: no such setting .*toml.*nearest is source\.group_id",
        ),
        ("[source]\ngroup = 'a'\n", r"source\.group: no such setting .*by rbstream\.toml"),
        ("source = 'a'\n", r"source is a group \(given 'a' by rbstream\.toml\)"),
        ("[batch]\nmax_delay = '5m'\n", r"'m' is no unit of a duration.*by rbstream\.toml"),
        ("[source]\ntopics = ['a', 3]\n", r"source\.topics\.1: .*by rbstream\.toml"),
        ("[source.properties]\nenable.auto.commit = true\n", r"enable\.auto\.commit: .*alerts be lost.*rbstream\.toml"),
        (
            "[source.properties]\ngroup_id = 2026-01-01\n",
            r"properties\.group_id: Input should be a valid string",
        ),
    ],
)
def test_what_is_wrong_in_the_file_is_told(bare: Path, written: str, words: str) -> None:
    write(bare / "rbstream.toml", written)
    with pytest.raises(UsageError, match=words):
        load_settings({})


def test_a_file_that_cannot_be_read_is_told(bare: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.toml: no such file"):
        load_settings({}, bare / "absent.toml")
    with pytest.raises(UsageError, match="no such file"):
        load_settings({}, bare)
    (bare / "latin.toml").write_bytes(b'[source]\ngroup_id = "\xe9"\n')
    with pytest.raises(UsageError, match="byte 21 is no UTF-8"):
        load_settings({}, bare / "latin.toml")


def test_a_secret_that_cannot_be_read_or_is_unknown_is_told_without_it(bare: Path) -> None:
    with pytest.raises(UsageError, match=r"absent: the secret can't be read: No such file"):
        load_settings({}, None, bare / "absent")
    (bare / "s/metrics.port").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"metrics\.port: the secret can't be read: Is a directory"):
        load_settings({}, None, bare / "s")
    (bare / "bytes").mkdir()
    (bare / "bytes/metrics.port").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="no UTF-8"):
        load_settings({}, None, bare / "bytes")
    write(bare / "t/source.group-id", "geheim")
    write(bare / "t/metrics.port", "geheim")
    with pytest.raises(UsageError, match=r"t/source\.group-id.*nearest is source\.group_id.*t/metrics\.port") as raised:
        load_settings({}, None, bare / "t")
    assert "geheim" not in str(raised.value)


def test_show_is_toml_with_origins_and_reads_back(here: Here, bare: Path) -> None:
    write(bare / "rbstream.toml", RUNNABLE + '[routes.bright]\ntopic = "b"\n[sink.properties]\nlinger.ms = 5')
    status, out, _ = here("config", "show", "--set", "filter.where=magpsf < 19.5")
    assert status == 0
    lines = dict(line.rsplit("  # ", 1) for line in out.splitlines())
    told = {line.strip(): origin for line, origin in lines.items()}
    assert told['source.group_id = "rbstream"'] == "default"
    assert told['batch.max_delay = "100ms"'] == "default"
    assert told['sink.properties.linger.ms = "5"'] == "rbstream.toml"
    assert told['filter.where = "magpsf < 19.5"'] == "the command line"
    assert told["# sink.scores is not set"] == "default"
    again = write(bare / "again.toml", out)
    assert load_settings({}, again) == load_settings({"filter.where": "magpsf < 19.5"})


def test_show_masks_secrets_and_whatever_came_from_a_secret_file(here: Here, bare: Path) -> None:
    write(bare / "secrets/source.properties.sasl.password", "geheim")
    write(bare / "secrets/sink.transactional_id", "geheim")
    url = "https://user:geheim@registry"
    for options in ([], ["--json"]):
        status, out, said = here(
            "config", "show", "--secrets", "secrets", "--set", f"source.schema_registry={url}", *options
        )
        assert status == 0
        assert "geheim" not in out + said
    shown = json.loads(out)
    assert shown["source.properties.sasl.password"]["value"] == "********"
    assert shown["sink.transactional_id"]["value"] == "********"
    assert shown["source.schema_registry"]["value"] == "https://********@registry"
    assert shown["batch.max_bytes"] == {"value": "32MiB", "origin": "default"}


def test_schema_knows_every_group_and_how_they_are_written(here: Here) -> None:
    status, out, _ = here("config", "schema")
    schema = json.loads(out)
    assert status == 0
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["additionalProperties"] is False
    assert {"delivery", "source", "sink", "routes", "model", "filter", "batch"} <= schema["properties"].keys()
    batch = schema["$defs"]["Batch"]["properties"]
    assert batch["max_delay"]["type"] == batch["max_bytes"]["type"] == ["string", "number"]


def test_check_says_what_it_checked(here: Here, bare: Path) -> None:
    write(bare / "rbstream.toml", RUNNABLE + '[routes.bright]\ntopic = "b"\nwhere = "magpsf < 17"\n')
    status, out, said = here("config", "check", "--set", "filter.where=isdiffpos = 't'")
    assert (status, said) == (0, "")
    for words in ("reads ^ztf_", "writes ztf_filtered (sink.topic)", "takes all properties", "SHA-256", "route bright"):
        assert words in out


def test_check_connects_to_nothing(here: Here, bare: Path) -> None:
    write(bare / "rbstream.toml", RUNNABLE)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        broker = f"127.0.0.1:{server.getsockname()[1]}"
        assert here("config", "check", "--set", f"source.bootstrap_servers={broker}")[0] == 0
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("sink.topic", None, "sink.topic is not set"), ("sink.dead_letters", None, "sink.dead_letters is not set"),
        ("model.bundle", "absent.pt", "model.bundle: absent.pt: the model bundle can't be read"),
        ("model.sha256", "0" * 64, "not the one you pinned"), ("filter.where", "magspf < 19", "did you mean magpsf"),
        ("routes.bright.where", "magpsf <", "routes.bright: "),
        ("source.properties.no.such.thing", "1", "no.such.thing"),
        ("source.properties.security.protocol", "tls", "security.protocol"),
        ("sink.properties.ssl.ca.location", "/absent.pem", "ssl.ca.location"),
        ("sink.properties.batch.num.messages", "many", "batch.num.messages"),
        ("sink.properties.acks", "1", "lost with their broker"),
    ],
)  # fmt: skip
def test_check_finds_what_run_would_trip_over(here: Here, bare: Path, name: str, value: str | None, words: str) -> None:
    line = f"{name.rpartition('.')[2]} = "
    kept = [each for each in RUNNABLE.splitlines() if value is not None or not each.startswith(line)]
    write(bare / "rbstream.toml", "\n".join([*kept, '[routes.bright]\ntopic = "b"']))
    protocol = ["--set", "sink.properties.security.protocol=SSL"] if "ssl" in name else []
    given = [] if value is None else ["--set", f"{name}={value}"]
    status, _, said = here("config", "check", *protocol, *given)
    assert status == 2
    assert words in said


def test_every_command_reads_the_file(here: Here, bare: Path) -> None:
    write(bare / "rbstream.toml", "[model]\ndevice = 'gpu'")
    assert "model.device" in here("replay", "x.avro")[2]
    assert "model.device" in here("model", "verify", "x.pt")[2]
    assert "nothing.toml: no such file" in here("replay", "x.avro", "--config", "nothing.toml")[2]
