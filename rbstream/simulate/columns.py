"""Batches as dataclasses of arrays whose first axis is the batch: rows of one, and several in one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import is_dataclass
from typing import Any, TypeVar

import numpy as np

Batch = TypeVar("Batch")


def take(batch: Batch, rows: np.ndarray | slice) -> Batch:
    """The chosen rows; by index or mask they are copies, which may be written to."""
    held: Any = batch
    if isinstance(held, dict):
        return type(held)((name, take(values, rows)) for name, values in held.items())  # type: ignore[return-value]
    if is_dataclass(held):
        kind: Any = type(held)
        return kind(**{name: take(values, rows) for name, values in vars(held).items()})  # type: ignore[no-any-return]
    return held[rows]  # type: ignore[no-any-return]


def join(batches: Sequence[Batch]) -> Batch:
    """One batch after the other; they hold arrays and nothing else."""
    columns = {name: np.concatenate([getattr(batch, name) for batch in batches]) for name in vars(batches[0])}
    return type(batches[0])(**columns)
