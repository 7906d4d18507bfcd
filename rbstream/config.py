"""The effective settings, and where each came from.

Later wins: defaults < rbstream.toml < mounted secret files < environment (`RBSTREAM_MODEL__DEVICE=cpu`) < command line.
"""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource, TomlConfigSettingsSource

from rbstream import REVISION_VARIABLE, dotted
from rbstream.checks import problems
from rbstream.errors import UsageError
from rbstream.masking import MASK, masked
from rbstream.settings import PREFIX, Settings

FILE, FILE_VARIABLE = Path("rbstream.toml"), f"{PREFIX}CONFIG"
SECRETS, SECRETS_VARIABLE = Path("/run/secrets/rbstream"), f"{PREFIX}SECRETS"
# No setting: what the image says of itself, and which files to read.
_NOT_SETTINGS = (FILE_VARIABLE, SECRETS_VARIABLE, REVISION_VARIABLE)
_TEST_PREFIX = f"{PREFIX}TEST_"
# What Kubernetes tells every pod about Services whose names begin with rbstream: never with a double underscore.
_KUBERNETES = re.compile(rf"{PREFIX}([A-Z0-9]+_)*(SERVICE_(HOST|PORT)|PORT_[0-9]+_)[A-Z0-9_]*")
_KUBERNETES_PORT = re.compile(r"(tcp|udp|sctp)://\S+")
# Properties that have a setting of their own, and are taken for it.
_ALIASES = {"source.properties.group.protocol": "source.group_protocol"}


@dataclass(frozen=True, slots=True)
class Given:
    """A value as it was written, and where: a file, a variable, the command line."""

    value: Any
    origin: str
    secret: bool = False


@dataclass(frozen=True, slots=True)
class Loaded:
    """The effective settings; `given` has by dotted name what is not a default."""

    settings: Settings
    given: Mapping[str, Given]

    def effective(self) -> Iterator[tuple[str, Any, str]]:
        """Every setting: name, value as it may be shown (JSON types; None is not set), origin."""
        for name, value in dotted.leaves(self.settings.model_dump(mode="json")).items():
            given = self.given.get(name)
            shown = MASK if given and given.secret else masked(name, value)
            yield name, shown, given.origin if given else "default"


def load_settings(overrides: Mapping[str, Any], config: Path | None = None, secrets: Path | None = None) -> Settings:
    """The effective settings; see `load`."""
    return load(overrides, config, secrets).settings


def load(overrides: Mapping[str, Any], config: Path | None = None, secrets: Path | None = None) -> Loaded:
    """The effective settings and where they came from.

    overrides: from the command line, by dotted name; None is "not given". config: the TOML file, $RBSTREAM_CONFIG or
    ./rbstream.toml where it is there. secrets: the folder of secret files, $RBSTREAM_SECRETS or /run/secrets/rbstream
    where it is there. Raises UsageError that names each wrong setting and where it was written.
    """
    sources = (
        _file(_place(config, FILE_VARIABLE, FILE)),
        _secret_files(_place(secrets, SECRETS_VARIABLE, SECRETS)),
        _environment(),
        {name: Given(value, "the command line") for name, value in overrides.items() if value is not None},
    )
    given = {_ALIASES.get(name, name): each for source in sources for name, each in source.items()}
    wrong = [_unknown(name, each) for name, each in given.items() if not dotted.is_known(name)]
    try:
        settings = Settings(**dotted.tree({name: each.value for name, each in given.items() if dotted.is_known(name)}))
        wrong += [f"{name}: {said}{_written_by(name, given)}" for name, said in problems(settings)]
    except ValidationError as error:
        wrong += [_invalid(each, given) for each in error.errors()]
    if wrong:
        raise UsageError("settings: " + "; ".join(wrong))
    return Loaded(settings, given)


def required(settings: Settings, name: str) -> Any:
    """The value of a setting that has no default, by dotted name. Raises UsageError that says how to set it."""
    value: Any = settings
    for part in name.split("."):
        value = getattr(value, part)
    if value in (None, ()):
        group, _, field = name.rpartition(".")
        raise UsageError(
            f"{name} is not set: {field} under [{group}] in rbstream.toml, {dotted.variable(name)} in the "
            f"environment, or --set {name}=... ({dotted.description(name)})"
        )
    return value


def _place(asked: Path | None, name: str, usual: Path) -> Path | None:
    if asked is not None:
        return asked
    if os.environ.get(name):
        return Path(os.environ[name])
    return usual if os.path.exists(usual) else None


def _file(path: Path | None) -> dict[str, Given]:
    if path is None:
        return {}
    try:
        if not path.is_file():
            raise UsageError(f"{path}: no such file; settings are read from it")
        written = dotted.leaves(TomlConfigSettingsSource(Settings, path).toml_data)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not TOML: {error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not TOML: byte {error.start} is no UTF-8") from error
    except OSError as error:
        raise UsageError(f"{path}: settings can't be read: {error.strerror}") from error
    return {name: Given(value, str(path)) for name, value in written.items()}


def _secret_files(folder: Path | None) -> dict[str, Given]:
    """A file a setting: `source.properties.sasl.password`, or SOURCE__PROPERTIES__SASL_PASSWORD.

    Kubernetes keeps what it mounts in folders whose names begin with a dot, and links to them.
    """
    if folder is None:
        return {}
    try:
        files = sorted(each for each in folder.iterdir() if not each.name.startswith("."))
        return {_secret_name(file.name): Given(_secret(file), f"secret file {file}", True) for file in files}
    except OSError as error:
        raise UsageError(f"{error.filename or folder}: the secret can't be read: {error.strerror}") from error


def _secret_name(name: str) -> str:
    return name if "." in name else dotted.from_variable(name)


def _secret(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: the secret is no UTF-8 text") from error


def _environment() -> dict[str, Given]:
    found = {dotted.from_variable(name.removeprefix(PREFIX)): Given(value, name) for name, value in _strangers()}
    for path, value in dotted.leaves(EnvSettingsSource(Settings)()).items():
        name = dotted.from_variable(path)
        found[name] = Given(value, dotted.variable(name))
    return found


def _strangers() -> Iterator[tuple[str, str]]:
    """Variables that are meant for us and set nothing: pydantic looks for names that it knows."""
    for name, value in os.environ.items():
        if not name.startswith(PREFIX) or name in _NOT_SETTINGS or name.startswith(_TEST_PREFIX):
            continue
        service = "__" not in name and (
            _KUBERNETES.fullmatch(name) or (name.endswith("_PORT") and _KUBERNETES_PORT.fullmatch(value))
        )
        group = name.removeprefix(PREFIX).lower().partition("__")[0]
        if not service and group not in Settings.model_fields:
            yield name, value


def _unknown(name: str, given: Given) -> str:
    shown = f"given {_shown(name, given.value, given)!r} by {given.origin}"
    if dotted.is_group(name):
        one = f"{name}.NAME"
        return f"{name} is a group ({shown}): set each of its settings, {one} or {dotted.variable(one)}"
    meant = dotted.nearest(name)
    return f"{name}: no such setting ({shown}); " + (f"the nearest is {meant}" if meant else "see docs/settings.md")


def _invalid(error: Any, given: Mapping[str, Given]) -> str:
    """What is wrong with the value of a setting, in words."""
    name = ".".join(str(part) for part in error["loc"] if part != "[key]")
    if error["type"] == "missing":
        return f"{name}: missing"
    written = next((each for each in given if f"{name}.".startswith(f"{each}.")), name)
    each = given.get(written)
    value = each.value if each and written == name else error["input"]
    by = f" by {each.origin}" if each else ""
    return f"{name}: {error['msg'].removeprefix('Value error, ')} (given {_shown(written, value, each)!r}{by})"


def _shown(name: str, value: Any, given: Given | None) -> Any:
    """A value as an error may show it: of the wrong ones among the properties none, they may be secrets misplaced."""
    return MASK if (given and given.secret) or name.startswith(dotted.PROPERTIES) else masked(name, value)


def _written_by(name: str, given: Mapping[str, Given]) -> str:
    return f" ({given[name].origin})" if name in given else ""
