"""Settings: defaults, then the environment, then the command line; what is wrong is named."""

import os

import pytest

from rbstream.config import load_settings
from rbstream.dotted import description, names
from rbstream.errors import UsageError


@pytest.fixture(autouse=True)
def _no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("RBSTREAM_")]:
        monkeypatch.delenv(name)


def test_defaults_hold_where_nothing_is_given() -> None:
    settings = load_settings({"filter.threshold": None})
    assert settings.limits.cutout_side == 1024
    assert settings.filter.threshold is None
    assert settings.replay.jobs >= 1


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


def test_every_setting_is_described_in_a_line() -> None:
    for name in names():
        assert 10 < len(description(name)) < 100
        assert "\n" not in description(name)
