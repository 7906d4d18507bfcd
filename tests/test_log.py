"""Logs: one JSON object a line or text, as they are asked for; what is below the level is left out."""

import json
import logging
from collections.abc import Iterator

import pytest

from rbstream import log
from rbstream.cli import main
from rbstream.settings import Log

logger = logging.getLogger("rbstream.tests")


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    ours = logging.getLogger("rbstream")
    before = ours.handlers, ours.level, ours.propagate
    yield
    ours.handlers, ours.propagate = before[0], before[2]
    ours.setLevel(before[1])


def test_a_line_is_json_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    log.set_up()
    logger.info("read %d", 3, extra={"topic": "ztf", "size": 1.5})
    line = json.loads(capsys.readouterr().err)
    assert line.pop("time").endswith("+00:00")
    assert line == {"level": "info", "logger": "rbstream.tests", "message": "read 3", "topic": "ztf", "size": 1.5}


def test_an_exception_is_a_field_of_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    log.set_up(Log(format="json"))
    try:
        raise ValueError("a reason")
    except ValueError:
        logger.exception("it failed")
    (text,) = capsys.readouterr().err.splitlines()
    line = json.loads(text)
    assert (line["level"], line["message"]) == ("error", "it failed")
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ValueError: a reason")


def test_text_has_the_extra_behind_the_message(capsys: pytest.CaptureFixture[str]) -> None:
    log.set_up(Log(format="text"))
    logger.warning("rejected", extra={"topic": "ztf", "offset": 5})
    try:
        raise ValueError("a reason")
    except ValueError:
        logger.exception("it failed", extra={"topic": "ztf"})
    first, second, *rest = capsys.readouterr().err.splitlines()
    assert first == "WARNING: rejected (topic=ztf offset=5)"
    assert second == "ERROR: it failed (topic=ztf)"
    assert rest[-1] == "ValueError: a reason"


def test_auto_is_text_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    log.set_up()
    logger.info("here")
    assert capsys.readouterr().err == "INFO: here\n"


def test_the_level_leaves_out_what_is_below(capsys: pytest.CaptureFixture[str]) -> None:
    log.set_up(Log(format="text", level="warning"))
    logger.info("not this")
    logger.warning("this")
    assert capsys.readouterr().err == "WARNING: this\n"
    log.set_up(Log(format="text", level="debug"))
    logger.debug("and this, once")
    assert capsys.readouterr().err == "DEBUG: and this, once\n"


@pytest.mark.usefixtures("bare")
def test_a_command_logs_as_its_settings_say(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RBSTREAM_LOG__LEVEL", "error")
    with pytest.raises(SystemExit):
        main(["replay", "absent.avro", "--set", "log.format=text"])
    logger.warning("not this")
    logger.error("this")
    assert capsys.readouterr().err.endswith("ERROR: this\n")
