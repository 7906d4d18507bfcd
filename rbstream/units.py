"""Durations and sizes as people write them: "100ms", "15min", "32MiB", or a plain number of seconds or bytes."""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

# Largest first. No months, no plain "m": it would be minutes to some and milli to others.
_SECONDS = {
    name: Decimal(one) for name, one in {"d": "86400", "h": "3600", "min": "60", "s": "1", "ms": "0.001"}.items()
}
_BINARY = {"GiB": Decimal(1 << 30), "MiB": Decimal(1 << 20), "KiB": Decimal(1 << 10), "B": Decimal(1)}
_BYTES = {**_BINARY, "GB": Decimal(10**9), "MB": Decimal(10**6), "kB": Decimal(10**3)}
_END = 1 << 63  # what the clients' C counts in
# Three digits of exponent hold every float.
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]{1,3})?)\s*([a-z]*)\s*", re.IGNORECASE | re.ASCII)


def parse_duration(value: object) -> float:
    """Seconds, from "100ms", "10s", "15min", "1h", "2d" or a number of seconds. Raises ValueError."""
    return float(_parse(value, _SECONDS, "s", "a duration, e.g. 10s"))


def parse_size(value: object) -> int:
    """Bytes, from "512B", "64kB", "32MiB", "1GiB" or a number of bytes. Raises ValueError."""
    amount = _parse(value, _BYTES, "B", "a size, e.g. 32MiB")
    if amount != int(amount):
        raise ValueError("not a whole number of bytes")
    return int(amount)


def format_duration(seconds: float) -> str:
    """As `parse_duration` reads it, in the largest unit that needs no fraction."""
    amount = Decimal(str(seconds))
    return _format(amount, _SECONDS) or f"{amount.normalize()}s"


def format_size(size: int) -> str:
    """As `parse_size` reads it, in the largest unit of powers of two that needs no fraction."""
    return _format(Decimal(size), _BINARY) or f"{size}B"


def _parse(value: object, units: Mapping[str, Decimal], plain: str, expected: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"expected {expected}")
    match = _QUANTITY.fullmatch(str(value))
    if match is None:
        raise ValueError(f"expected {expected}")
    number, unit = match.groups()
    known = {name.lower(): one for name, one in units.items()}
    if (unit or plain).lower() not in known:
        raise ValueError(f"{unit!r} is no unit of {expected}; there are {', '.join(units)}")
    amount = Decimal(number) * known[(unit or plain).lower()]
    if amount >= _END:
        raise ValueError("too large")
    return amount


def _format(amount: Decimal, units: Mapping[str, Decimal]) -> str | None:
    for unit, one in units.items():
        if amount and amount % one == 0:
            return f"{int(amount // one)}{unit}"
    return None


def _as_written(example: str) -> WithJsonSchema:
    return WithJsonSchema({"type": ["string", "number"], "minimum": 0, "examples": [example]})


# In Python numbers of seconds and of bytes; in JSON as they are written.
Duration = Annotated[
    float, BeforeValidator(parse_duration), PlainSerializer(format_duration, when_used="json"), _as_written("10s")
]
Size = Annotated[int, BeforeValidator(parse_size), PlainSerializer(format_size, when_used="json"), _as_written("32MiB")]
