"""What hostile input may cost at most."""

import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def bounded(mebibytes: int, seconds: float) -> Iterator[None]:
    """Fails where Python takes more memory, or so long that something must have run away."""
    tracemalloc.start()
    start = time.monotonic()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < mebibytes << 20
    assert time.monotonic() - start < seconds
