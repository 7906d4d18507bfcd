"""What tests share: real data where it is, and what a machine has or lacks."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from needs import SHARED, require
from tiny import split, write_tiny

from rbstream.cli import main
from rbstream.simulate import simulate_night


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real packets and networks, `../shared/data`."""
    data = SHARED / "data"
    require("data", data.is_dir(), f"{data} is not there: real packets are needed")
    return data


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium executable."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    require("chromium", found is not None, "chromium is not installed")
    assert found is not None
    return found


@pytest.fixture(scope="session")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty simulated alerts in one container."""
    path = tmp_path_factory.mktemp("night") / "night.avro"
    simulate_night(path, 60, 3)
    return path


@pytest.fixture(scope="session")
def packets(night: Path) -> list[bytes]:
    """The same, one a container."""
    return split(night)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model bundle that is quick to load and to score with."""
    return write_tiny(tmp_path_factory.mktemp("bundle") / "tiny.pt")


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder to be in, with none of rbstream's variables set."""
    for name in list(os.environ):
        if name.startswith("RBSTREAM_") and not name.startswith("RBSTREAM_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def here(bare: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., tuple[object, str, str]]]:
    """Calls the command in this process and an empty folder: its status, standard output and error."""

    def call(*arguments: str) -> tuple[object, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        return ended.value.code, *capsys.readouterr()

    handler = signal.getsignal(signal.SIGTERM)
    yield call
    signal.signal(signal.SIGTERM, handler)
