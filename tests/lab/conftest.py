"""What tests of the lab share."""

from pathlib import Path

import pytest
from spots import write_spots


@pytest.fixture(scope="session")
def spots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 stamps of 21 px in one channel, split."""
    path = tmp_path_factory.mktemp("spots") / "spots"
    write_spots(path).close()
    return path
