"""The verdict on a scored alert: its new `drb` against a threshold and, where there is one, an expression."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, get_args

from rbstream.files import data_path
from rbstream.ternary import Values
from rbstream.where import FieldType, FilterError, Where, compile_where, single

__all__ = ["FieldType", "Filter", "FilterError", "Where", "compile_where", "ztf_fields"]


@dataclass(frozen=True)
class Filter:
    """What passes: a score at or above the threshold, for which the expression, if there is one, is true.

    `threshold` is in [0, 1] and is compared as the float32 nearest to it, the precision of the score itself.
    Raises FilterError for any other.
    """

    threshold: float
    where: Where | None = None
    _bar: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise FilterError(f"a threshold of {self.threshold} is outside [0, 1], where the scores are")
        object.__setattr__(self, "_bar", single(self.threshold))

    @property
    def fields(self) -> frozenset[str]:
        """The candidate fields that `passes` looks at."""
        return self.where.fields if self.where else frozenset()

    def passes(self, drb: float, candidate: Values) -> bool:
        """Whether an alert passes; `drb` is its new score, whatever `candidate` holds under that name.

        The other names mean what `candidate` says, `drb_upstream` included: give it as it will be published.
        A NaN score doesn't pass.
        """
        if not self.reached(drb):
            return False
        return self.where is None or self.where({**candidate, "drb": float(drb)})

    def reached(self, drb: float) -> bool:
        """Whether a score is at or above the threshold."""
        return drb >= self._bar


@cache
def ztf_fields() -> Mapping[str, FieldType]:
    """The names an expression may use on ZTF alerts, with types: the candidate's and rbstream's own two."""
    schema = json.loads(data_path("schemas/ztf.alert.avsc").read_text(encoding="utf-8"))
    types: dict[str, FieldType] = {}
    for entry in _candidate(schema)["fields"]:
        union = entry["type"] if isinstance(entry["type"], list) else [entry["type"]]
        (avro_type,) = [branch for branch in union if branch != "null"]
        if avro_type in get_args(FieldType):
            types[entry["name"]] = avro_type
    return {**types, "drb": "float", "drb_upstream": "float", "drbversion_upstream": "string"}


def _candidate(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    record: Mapping[str, Any] = next(f["type"] for f in schema["fields"] if f["name"] == "candidate")
    return record
