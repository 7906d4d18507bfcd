"""What tests of the deployment need of the machine."""

import shutil

import pytest
from needs import require


@pytest.fixture(scope="session")
def helm() -> str:
    """The path of helm."""
    found = shutil.which("helm")
    require("helm", found is not None, "helm is not installed")
    assert found is not None
    return found


@pytest.fixture(scope="session")
def promtool() -> str:
    """The path of Prometheus' promtool."""
    found = shutil.which("promtool")
    require("prometheus", found is not None, "promtool is not installed")
    assert found is not None
    return found
