"""SQL's three-valued logic as closures: each takes an alert's values; None, in and out, is the unknown."""

import operator
from collections.abc import Callable, Mapping
from typing import Any

Values = Mapping[str, Any]
"""Field names and their values as fastavro gives them: int, float, str, bool or None."""

Run = Callable[[Values], Any]

COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
ARITHMETIC: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}


def number_field(name: str) -> Run:
    def run(values: Values) -> Any:
        value = values.get(name)
        # By class: bool is no number here, and what a packet's own schema made a string is unknown.
        if value.__class__ is float:
            return value if value == value else None  # NaN is unknown
        return value if value.__class__ is int else None

    return run


def plain_field(name: str, of: type) -> Run:
    def run(values: Values) -> Any:
        value = values.get(name)
        return value if value.__class__ is of else None

    return run


def compared(compare: Callable[[Any, Any], bool], left: Run, right: Run) -> Run:
    def run(values: Values) -> bool | None:
        value, other = left(values), right(values)
        return None if value is None or other is None else compare(value, other)

    return run


def compared_with(compare: Callable[[Any, Any], bool], left: Run, constant: Any) -> Run:
    """As `compared`, for a number or string written in the expression: most comparisons, at half the cost."""

    def run(values: Values) -> bool | None:
        value = left(values)
        return None if value is None else compare(value, constant)

    return run


def member(left: Run, options: frozenset[Any]) -> Run:
    def run(values: Values) -> bool | None:
        value = left(values)
        return None if value is None else value in options

    return run


def negated(condition: Run) -> Run:
    def run(values: Values) -> bool | None:
        value = condition(values)
        return None if value is None else not value

    return run


def chain(conditions: list[Run], ends_at: bool) -> Run:
    """`or` (one true condition ends it) and `and` (one false); without one, unknown if any is unknown."""

    def run(values: Values) -> bool | None:
        result: bool | None = not ends_at
        for condition in conditions:
            value = condition(values)
            if value is ends_at:
                return bool(value)
            if value is None:
                result = None
        return result

    return run


def calculate(operation: Callable[[Any, Any], Any], left: Run, right: Run) -> Run:
    def run(values: Values) -> Any:
        value, second = left(values), right(values)
        if value is None or second is None:
            return None
        try:
            result = operation(float(value), float(second))
        except ZeroDivisionError:
            return None
        return result if result == result else None  # inf - inf is unknown

    return run
