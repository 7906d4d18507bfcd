"""The effective settings, and where each came from.

Later wins: defaults < environment (`RBSTREAM_MODEL__DEVICE=cpu`) < command line.
"""

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_settings import EnvSettingsSource

from rbstream.errors import UsageError
from rbstream.masking import masked
from rbstream.settings import PREFIX, Settings

_TEST_PREFIX = f"{PREFIX}TEST_"
# What Kubernetes tells every pod about a Service that is named rbstream.
_KUBERNETES = re.compile(rf"{PREFIX}(SERVICE_(HOST|PORT)|PORT)(_[A-Z0-9_]*)?")
_PROPERTIES = ("source.properties", "sink.properties")
_DEFAULTS = Settings().model_dump(mode="json")


@dataclass(frozen=True, slots=True)
class Given:
    """A value as it was written, and where."""

    value: Any
    origin: str


def load_settings(overrides: Mapping[str, Any]) -> Settings:
    """The effective settings. overrides: from the command line, by dotted name; None is "not given".

    Raises UsageError that names each wrong setting and where it was written.
    """
    given = {**_environment(), **_command_line(overrides)}
    try:
        return Settings(**_tree(given))
    except ValidationError as error:
        raise UsageError("settings: " + "; ".join(_problem(each, given) for each in error.errors())) from error


def required(settings: Settings, name: str) -> Any:
    """The value of a setting that has no default, by dotted name. Raises UsageError that says how to set it."""
    value: Any = settings
    for part in name.split("."):
        value = getattr(value, part)
    if value in (None, ()):
        group, _, field = name.rpartition(".")
        raise UsageError(
            f"{name} is not set: {field} under [{group}] in rbstream.toml, {variable(name)} in the environment, or "
            f"--set {name}=... ({description(name)})"
        )
    return value


def variable(name: str) -> str:
    """The environment variable of a setting: no dots there, so librdkafka's names are written with underscores."""
    for properties in _PROPERTIES:
        if name.startswith(f"{properties}."):
            name = f"{properties}.{name.removeprefix(f'{properties}.').replace('.', '_')}"
    return PREFIX + name.replace(".", "__").upper()


def description(name: str) -> str:
    """The one line that declares what a setting is for, by dotted name."""
    return str(_declared(name).description)


def describe(name: str) -> str:
    """The description of a setting and its default, as the command line's help says it."""
    default = default_text(name)
    return f"{description(name)} (default: {default})" if default else description(name)


def default_text(name: str) -> str:
    """The default as one would write it; empty where there is none, or where it depends on the machine."""
    group, _, field = name.rpartition(".")
    if name.startswith("routes.") or _declared(name).default_factory:
        return ""
    defaults = _DEFAULTS[group] if group else _DEFAULTS
    return "" if defaults[field] in (None, [], {}) else str(defaults[field])


def names() -> list[str]:
    """Every setting by dotted name, in the order of declaration; those of a route as routes.NAME.*."""
    return [name for name, _ in _fields(Settings)]


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for field, info in model.model_fields.items():
        kind: Any = info.annotation
        if field == "routes":
            yield from _fields(kind.__args__[1], "routes.NAME.")
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _fields(kind, f"{prefix}{field}.")
        else:
            yield f"{prefix}{field}", info


def _declared(name: str) -> Any:
    return dict(_fields(Settings))[name]


def _environment() -> dict[str, Given]:
    """What variables say. Raises UsageError for one that is meant for us and sets nothing."""
    for name in os.environ:
        group = name.removeprefix(PREFIX).lower().partition("__")[0]
        ours = name.startswith(PREFIX) and not name.startswith(_TEST_PREFIX) and not _KUBERNETES.fullmatch(name)
        if ours and group not in Settings.model_fields:
            raise UsageError(f"{name}: no such setting{_nearest(name.removeprefix(PREFIX).lower().replace('__', '.'))}")
    return {
        _written(name): Given(value, variable(name)) for name, value in _leaves(EnvSettingsSource(Settings)()).items()
    }


def _command_line(overrides: Mapping[str, Any]) -> dict[str, Given]:
    return {name: Given(value, "the command line") for name, value in overrides.items() if value is not None}


def _written(name: str) -> str:
    """librdkafka's own spelling of a property from a place that has no dots: none of its names has an underscore."""
    return name.replace("_", ".") if name.startswith(_PROPERTIES) else name


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested table by dotted names."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= _leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return leaves


def _tree(given: Mapping[str, Given]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, each in given.items():
        *groups, field = _parts(name)
        table = tree
        for group in groups:
            below = table.setdefault(group, {})
            table[group] = table = below if isinstance(below, dict) else {}
        table[field] = each.value
    return tree


def _parts(name: str) -> list[str]:
    """The way down the tree to a setting: the names of librdkafka's properties have dots of their own."""
    for properties in _PROPERTIES:
        if name.startswith(f"{properties}."):
            return [*properties.split("."), name.removeprefix(f"{properties}.")]
    return name.split(".")


def _problem(error: Any, given: Mapping[str, Given]) -> str:
    """What is wrong with one setting, in words, and where it was written."""
    name = ".".join(str(part) for part in error["loc"] if part != "[key]")
    message = error["msg"].removeprefix("Value error, ")
    if not name:
        return str(message)
    if error["type"] == "missing":
        return f"{name}: missing"
    written = next((each for each in given if each == name or each.startswith(f"{name}.")), name)
    where = f" by {given[written].origin}" if written in given else ""
    got = f"given {masked(written, error['input'])!r}{where}"
    if error["type"] == "model_type":
        one = f"{name}.NAME"
        return f"{name} is a group ({got}): set each of its settings, {one} or {variable(one)}"
    below = written != name and name not in _PROPERTIES
    if error["type"] == "extra_forbidden" or below:
        return f"{written}: no such setting ({got}){_nearest(written)}"
    return f"{name}: {message} ({got})"


def _nearest(name: str) -> str:
    nearest = difflib.get_close_matches(name, names(), 1)
    return f"; the nearest is {nearest[0]}" if nearest else f"; there are {', '.join(names())}"
