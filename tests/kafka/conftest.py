"""A real broker for the tests of this folder. They run in two halves at most, each on a broker of its own."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from broker import Broker, missing
from needs import require

_numbers = itertools.count()
# By what they took here: so do the others together.
_LONG = {
    "test_audit", "test_bench", "test_incidents", "test_rights", "test_scraped", "test_torture", "test_torture_check",
    "test_zombie",
}  # fmt: skip


@pytest.hookimpl(tryfirst=True)  # xdist makes groups of the marks that are there when its own hook runs
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            half = "long" if item.path.stem in _LONG else "short"
            item.add_marker(pytest.mark.xdist_group(f"kafka-{half}"))


@pytest.fixture(scope="session")
def kafka() -> None:
    """Skips where no broker can be had."""
    require("kafka", missing() is None, str(missing()))


@pytest.fixture(scope="session")
def broker(kafka: None) -> Iterator[Broker]:
    """A broker for the session. A test that stops it starts it again; one that needs other properties makes its own."""
    broker = Broker()
    try:
        yield broker.start()
    finally:
        broker.close()


@pytest.fixture(scope="module")
def sink(kafka: None) -> Iterator[Broker]:
    """A second cluster, for those who write to another one than they read from."""
    broker = Broker()
    try:
        yield broker.start()
    finally:
        broker.close()


@pytest.fixture
def fresh() -> Callable[[str], str]:
    """Names that no other test has, for topics, groups and transactional ids: `fresh("in")` is `in-7`."""
    return lambda name: f"{name}-{next(_numbers)}"
