"""What a test needs of the machine."""

import os
from pathlib import Path

import pytest

SHARED = Path(__file__).parent.parent.parent / "shared"


def require(name: str, present: bool, reason: str) -> None:
    """Skip the test where `name` is absent; fail it where RBSTREAM_TEST_REQUIRE says that it must be there."""
    if present:
        return
    if name in os.environ.get("RBSTREAM_TEST_REQUIRE", "").split(","):
        pytest.fail(f"RBSTREAM_TEST_REQUIRE names {name}, but {reason}")
    pytest.skip(reason)
