"""What an operator is told to type exists: rbstream takes its commands, and the chart has what kubectl is asked for."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from rbstream.cli import _parser

ROOT = Path(__file__).parents[2]
PAGES = ("docs/operate.md", "docs/runbook.md")
EXAMPLES = {"night": "cpu", "rehearsal": "rehearsal"}


def typed() -> Iterator[str]:
    """Lines of the pages' blocks, joined where they go on, without comments."""
    for page in PAGES:
        blocks = re.findall(r"(?m)(?:^ {4}.*\n)+", (ROOT / page).read_text())
        for line in "".join(blocks).replace("\\\n", " ").splitlines():
            yield line.strip().split("  #")[0]


RBSTREAM = sorted(
    {line[line.index("rbstream ") :] for line in typed() if re.match(r"(in-pod |kubectl .* -- )?rbstream ", line)}
)
KUBECTL = sorted(
    {line for line in typed() if line.startswith("kubectl ")}
    | {found for page in PAGES for found in re.findall(r"`(kubectl [^`]+)`", (ROOT / page).read_text())}
)


@pytest.mark.parametrize("command", RBSTREAM)
def test_rbstream_takes_a_command(command: str) -> None:
    _parser().parse_args(shlex.split(command)[1:])


@pytest.fixture(scope="module")
def names(helm: str) -> set[str]:
    """What there is to ask for, as kubectl calls it."""
    found = set()
    for release, example in EXAMPLES.items():
        chart = ROOT / "deploy/chart/rbstream"
        values = chart / f"examples/{example}.yaml"
        done = subprocess.run(
            [helm, "template", release, chart, "--namespace", "alerts", "--values", values,
             "--set", "autoscaling.enabled=true,autoscaling.maxReplicaCount=8"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        for each in yaml.safe_load_all(done.stdout):
            name, kind = each["metadata"]["name"], each["kind"].lower()
            found |= {f"{kind}/{name}", f"{kind} {name}"}
            if kind == "statefulset":
                found |= {f"{name}-0", f"pod {name}-0"}
            if kind == "deployment":
                found.add(f"deploy/{name}")
    return found


@pytest.mark.parametrize("command", KUBECTL)
def test_kubectl_is_asked_for_what_the_chart_has(command: str, names: set[str]) -> None:
    assert " -n alerts " in command or command == "kubectl create namespace alerts"
    asked = re.findall(
        r"\b(?:(?:deploy|job|statefulset|pod|scaledobject)[/ ])?(?:night|rehearsal)-rbstream\S*", command
    )
    assert set(asked) <= names


def test_something_was_found() -> None:
    assert len(RBSTREAM) > 8
    assert len(KUBECTL) > 8
