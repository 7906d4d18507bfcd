"""Which part each alert belongs to: whole objects and whole nights, never alerts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rbstream.errors import UsageError

_ENOUGH_NIGHTS = 10  # fewer can't be divided in shares; then objects alone are
_TRAIN, _VALIDATION, _TEST, _UNUSED = range(4)


class SplitRule(BaseModel):
    """How a data set is split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(default=0, ge=0, description="The same seed, the same parts")
    validation: float = Field(default=0.15, ge=0, lt=1, description="Share for choosing: when to stop, what threshold")
    test: float = Field(default=0.15, ge=0, le=1, description="Share for reporting, never looked at before")
    by: Literal["auto", "night", "object"] = Field(
        default="auto",
        description="night: whole nights and objects (of an object in nights of two parts, only the first's is used); "
        "object: whole objects; auto: night where there are at least 10",
    )

    @model_validator(mode="after")
    def _leaves_something(self) -> SplitRule:
        if self.validation + self.test > 1:
            raise ValueError("the shares of validation and test are more than 1 together")
        return self


def rule_of(values: Mapping[str, Any]) -> SplitRule:
    """A rule by its fields' names. Raises UsageError for values that can't be."""
    try:
        return SplitRule.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = " ".join(["split", *map(str, first["loc"])])
        raise UsageError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from error


def assign(objects: NDArray[Any], nights: NDArray[np.integer[Any]], rule: SplitRule) -> NDArray[np.int8]:
    """The part of each row as an index into `SPLITS`, int8 (rows,).

    objects: names (rows,). nights: whole days (rows,), -1 for none. No object and (by night) no night is in two parts:
    an object seen in nights of different parts keeps the part of its first night, its rows of the others are `unused`.
    Raises UsageError for a split by night where nothing has one.
    """
    _, member = np.unique(objects.astype(str), return_inverse=True)
    known = np.unique(nights[nights >= 0])
    if rule.by == "object" or (rule.by == "auto" and len(known) < _ENOUGH_NIGHTS):
        return _deal(member, rule)
    if not len(known) and len(nights):
        raise UsageError("split by night: nothing here has a night; split by object")
    # What has no night is dealt out by object, as if each were a night of its own.
    unit = np.where(nights >= 0, np.searchsorted(known, nights), len(known) + member)
    _, unit = np.unique(unit, return_inverse=True)
    parts = _deal(unit, rule)
    order = np.lexsort((np.arange(len(nights)), nights, member))
    first = np.ones(len(order), bool)
    first[1:] = member[order][1:] != member[order][:-1]
    home = np.empty(int(member.max(initial=-1)) + 1, np.int8)
    home[member[order][first]] = parts[order][first]
    return np.where(parts == home[member], parts, np.int8(_UNUSED)).astype(np.int8)


def _deal(unit: NDArray[np.integer[Any]], rule: SplitRule) -> NDArray[np.int8]:
    """Whole units (rows,) to parts, the largest first: each to one that has room for it, drawn by how much it lacks.

    Drawn, since objects of many rows are not like others (variable stars) and no part is to have them all.
    """
    sizes = np.bincount(unit)
    rng = np.random.default_rng(rule.seed)
    order = rng.permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    lacking = [share * len(unit) for share in (1 - rule.validation - rule.test, rule.validation, rule.test)]
    part = np.empty(len(sizes), np.int8)
    for i, size, drawn in zip(order.tolist(), sizes[order].tolist(), rng.random(len(order)).tolist(), strict=True):
        room = [each if each >= size else 0.0 for each in lacking]
        at = drawn * sum(room)
        by_room = 0 if at < room[0] else 1 if at < room[0] + room[1] else 2
        chosen = by_room if any(room) else lacking.index(max(lacking))
        part[i] = chosen
        lacking[chosen] -= size
    result: NDArray[np.int8] = part[unit]
    return result
