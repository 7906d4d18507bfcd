"""Settings by dotted name, `source.group_id`: the way they are written on the command line, listed and documented."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from rbstream.settings import PREFIX, Route, Settings

# Tables whose names have dots of their own.
PROPERTIES = ("source.properties", "sink.properties")
_DEFAULTS = Settings().model_dump(mode="json")


def names() -> list[str]:
    """Every setting in the order of declaration; those of a route as routes.NAME.topic and so on."""
    return list(_DECLARED)


def is_known(name: str) -> bool:
    """Whether there is such a setting: not a group of them."""
    if name.startswith(tuple(f"{table}." for table in PROPERTIES)):
        return True
    return _declared_as(name) in _DECLARED and name not in PROPERTIES


def is_group(name: str) -> bool:
    """Whether it is the name of a table."""
    below = f"{_declared_as(name)}."
    return name in (*PROPERTIES, "routes") or any(each.startswith(below) for each in _DECLARED)


def nearest(name: str) -> str | None:
    """The setting that was meant, perhaps."""
    return next(iter(difflib.get_close_matches(name, names(), 1)), None)


def declared(name: str) -> Any:
    """The declaration, pydantic's FieldInfo."""
    return _DECLARED[_declared_as(name)]


def description(name: str) -> str:
    """The one line that declares what a setting is for."""
    return str(declared(name).description)


def describe(name: str) -> str:
    """The description and the default, as the command line's help says it."""
    default = default_text(name)
    return f"{description(name)} (default: {default})" if default else description(name)


def default_text(name: str) -> str:
    """The default as one would write it; empty where there is none, or where it depends on the machine."""
    if name.startswith("routes.") or declared(name).default_factory:
        return ""
    default = leaves(_DEFAULTS).get(name)
    return "" if default in (None, []) else str(default)


def variable(name: str) -> str:
    """The environment variable of a setting: no dots there, so librdkafka's names are written with underscores."""
    *groups, last = parts(name)
    return PREFIX + "__".join([*groups, last.replace(".", "_")]).upper()


def from_variable(name: str) -> str:
    """A name from a place without dots: none of librdkafka's names of properties has an underscore."""
    dotted = name.lower().replace("__", ".")
    return dotted.replace("_", ".") if dotted.startswith(PROPERTIES) else dotted


def parts(name: str) -> list[str]:
    """The way down the tree to a setting."""
    for table in PROPERTIES:
        if name.startswith(f"{table}."):
            return [*table.split("."), name.removeprefix(f"{table}.")]
    return name.split(".")


def leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested table by dotted names."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def tree(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The nested table again."""
    whole: dict[str, Any] = {}
    for name, value in flat.items():
        *groups, last = parts(name)
        table = whole
        for group in groups:
            table = table.setdefault(group, {})
        table[last] = value
    return whole


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for field, info in model.model_fields.items():
        kind = info.annotation
        if field == "routes":
            yield from _fields(Route, "routes.NAME.")
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _fields(kind, f"{prefix}{field}.")
        else:
            yield f"{prefix}{field}", info


def _declared_as(name: str) -> str:
    """routes.bright.topic was declared as routes.NAME.topic."""
    groups = name.split(".")
    return ".".join(["routes", "NAME", *groups[2:]]) if groups[0] == "routes" and len(groups) > 1 else name


_DECLARED = dict(_fields(Settings))
