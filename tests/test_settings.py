"""Settings: what is declared, what is refused, in which words, and what never shows."""

import runpy
from pathlib import Path

import pytest

from rbstream.config import load_settings, required
from rbstream.dotted import description, names
from rbstream.errors import UsageError

pytestmark = pytest.mark.usefixtures("bare")


def test_defaults_hold_where_nothing_is_given() -> None:
    settings = load_settings({"filter.threshold": None})
    assert settings.limits.cutout_side == 1024
    assert settings.filter.threshold is None
    assert settings.replay.jobs >= 1
    assert settings.delivery == "exactly-once"
    assert (settings.batch.max_delay, settings.batch.max_bytes) == (0.1, 32 << 20)
    assert (settings.sink.max_outage, settings.shutdown.drain, settings.health.stuck_after) == (900, 25, 120)


def test_the_environment_beats_defaults_and_the_command_line_beats_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RBSTREAM_LIMITS__CUTOUT_SIDE", "200")
    monkeypatch.setenv("RBSTREAM_MODEL__DEVICE", "cpu")
    assert load_settings({}).limits.cutout_side == 200
    settings = load_settings({"limits.cutout_side": "300", "model.precision": "bfloat16"})
    assert settings.limits.cutout_side == 300
    assert (settings.model.device, settings.model.precision) == ("cpu", "bfloat16")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limits.cutout_side", "0"), ("limits.cutout_side", "many"), ("limits.cutout_sied", "1"),
        ("nothing.at_all", "1"), ("model.device", "gpu"), ("model.device", "cuda:"), ("model.device", "cuda:-1"),
        ("model.precision", "float16"), ("model.sha256", "12"), ("filter.threshold", "1.1"),
        ("filter.threshold", "nan"), ("rejects.max_ratio", "-0.1"), ("batch.max_alerts", "0"),
        ("replay.jobs", "0"), ("replay.jobs", "1.5"), ("limits.cutout_side.x", "1"),
        ("delivery", "at-most-once"), ("delivery.x", "1"), ("batch.max_delay", "5m"), ("batch.max_delay", "2min"),
        ("batch.max_bytes", "32M"), ("source.prefetch", "1kB"), ("source.group_id", " "), ("source.topics", "[1"),
        ("source.group_protocol", "newer"), ("sink.max_outage", "0s"), ("metrics.port", "65536"),
        ("rejects.window", "100000"), ("log.level", "loud"), ("log.format", "xml"),
        ("routes.bright.topics", "x"), ("routes.bright", "x"), ("source", "x"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(name: str, value: str) -> None:
    with pytest.raises(UsageError) as raised:
        load_settings({name: value})
    assert name in str(raised.value)
    assert value in str(raised.value)


def test_an_unknown_setting_is_told_its_nearest() -> None:
    with pytest.raises(UsageError, match=r"no such setting .*the nearest is limits\.cutout_side"):
        load_settings({"limits.cutout_sied": "3"})


def test_every_wrong_setting_is_named_at_once() -> None:
    with pytest.raises(UsageError, match=r"(?s)model\.device.*limits\.cutout_side"):
        load_settings({"limits.cutout_side": "x", "model.device": "y"})


def test_a_wrong_variable_is_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RBSTREAM_LIMITS__CUTOUT_SIED", "200")
    with pytest.raises(UsageError, match="cutout_sied"):
        load_settings({})


def test_a_group_in_one_variable_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RBSTREAM_LIMITS", "big")
    with pytest.raises(UsageError, match="RBSTREAM_LIMITS__NAME"):
        load_settings({})


@pytest.mark.parametrize(
    ("written", "topics"),
    [
        ("a", ("a",)), ("a, b,,c ", ("a", "b", "c")), ('["a", "b"]', ("a", "b")), (["a", "b"], ("a", "b")),
        ("^a{1,2}$,b", ("^a{1,2}$", "b")), ("", ()),
    ],
)  # fmt: skip
def test_topics_are_a_list_json_or_names_between_commas(written: object, topics: tuple[str, ...]) -> None:
    assert load_settings({"source.topics": written}).source.topics == topics


def test_names_of_properties_keep_their_dots_and_values_become_text() -> None:
    given = {"source.properties.socket.keepalive.enable": True, "source.properties.fetch.min.bytes": 5}
    assert load_settings(given).source.properties == {"socket.keepalive.enable": "true", "fetch.min.bytes": "5"}


def test_routes_are_named() -> None:
    settings = load_settings({"routes.Bright-1.topic": "b", "routes.Bright-1.threshold": "0.9"})
    assert settings.routes["Bright-1"].topic == "b"
    assert settings.routes["Bright-1"].threshold == 0.9


def test_a_route_has_a_name_to_count_by() -> None:
    with pytest.raises(UsageError, match=r"routes\.a b: String should match pattern"):
        load_settings({"routes.a b.topic": "x"})


def test_a_route_without_a_topic_is_told() -> None:
    with pytest.raises(UsageError, match=r"routes\.bright\.topic: missing"):
        load_settings({"routes.bright.where": "magpsf < 17"})


def test_the_group_protocol_may_be_given_by_its_property() -> None:
    settings = load_settings({"source.properties.group.protocol": "consumer"})
    assert settings.source.group_protocol == "consumer"
    assert settings.source.properties == {}


def test_what_is_missing_to_run_is_told_with_every_way_to_set_it() -> None:
    with pytest.raises(UsageError, match=r"topics under \[source\] in rbstream\.toml, RBSTREAM_SOURCE__TOPICS in"):
        required(load_settings({}), "source.topics")
    assert required(load_settings({"sink.topic": "out"}), "sink.topic") == "out"


SECRET = "correct-horse"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("source.properties.sasl.password", SECRET), ("sink.properties.ssl.key.password", SECRET),
        ("source.properties.sasl.oauthbearer.client.secret", SECRET), ("sink.properties.ssl.key.pem", SECRET),
        ("source.properties.sasl.oauthbearer.config", f"secret={SECRET}"),
        ("source.schema_registry", f"https://user:{SECRET}@registry:8081"),
        ("source.properties.sasl.oauthbearer.token.endpoint.url", f"https://user:{SECRET}@login"),
    ],
)  # fmt: skip
def test_secrets_show_in_no_repr(name: str, value: str) -> None:
    settings = load_settings({name: value})
    assert SECRET in str(settings.model_dump())
    for shown in (repr(settings), str(settings), repr(settings.source), repr(settings.sink), f"{settings.source!r}"):
        assert SECRET not in shown


@pytest.mark.parametrize(
    "name",
    [
        "source.properties", "source.propertys.sasl.password", "sink.property.sasl.password", "source.password",
        "source.properties.test.mock.num.brokers",
    ],
)  # fmt: skip
def test_secrets_show_in_no_error(name: str) -> None:
    with pytest.raises(UsageError) as raised:
        load_settings({name: SECRET, "model.device": "x"})
    assert "model.device" in str(raised.value) or "properties" in str(raised.value)
    assert SECRET not in str(raised.value)


def test_a_value_of_the_wrong_type_among_the_properties_is_not_shown(bare: Path) -> None:
    (bare / "rbstream.toml").write_text(f'[source.properties]\nsasl.password = ["{SECRET}"]\n')
    with pytest.raises(
        UsageError, match=r"source\.properties\.sasl\.password: Input should be a valid string"
    ) as raised:
        load_settings({})
    assert SECRET not in str(raised.value)


def test_every_setting_is_described_in_a_line() -> None:
    for name in names():
        assert 10 < len(description(name)) < 100
        assert "\n" not in description(name)


def test_the_page_of_settings_is_what_the_declarations_say() -> None:
    docs = Path(__file__).parent.parent / "docs"
    pages = runpy.run_path(str(docs / "generate.py"))["PAGES"]
    for name, page in pages.items():
        assert (docs / name).read_text(encoding="utf-8") == page(), "run `make docs`"
