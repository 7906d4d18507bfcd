"""Every setting, once: type, unit, default, one-line description.

Later wins: defaults < environment (`RBSTREAM_MODEL__DEVICE=cpu`) < command line.
"""

import difflib
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from rbstream.errors import UsageError

MIB = 1 << 20
Sha256 = Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")]


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Limits(_Group):
    """Sizes that are checked before memory is taken."""

    # A packet is 76 kB; the largest container blocks seen in the wild hold some dozens of them.
    packet_bytes: int = Field(
        default=16 * MIB,
        ge=1024,
        description="Largest packet or container block, stored or decompressed [bytes]",
    )
    # fastavro takes some fifty times a record's bytes to decode it: the general path then stays under 128 MiB.
    record_bytes: int = Field(default=2 * MIB, ge=1024, description="Largest record [bytes]")
    # Full packets reach packet_bytes at some 200. Each record that is rejected keeps a copy of the schema: more of
    # them could make a gigabyte of a block.
    block_records: int = Field(default=1024, ge=1, description="Most records in a container block")
    # ZTF's schema has 26 kB, the largest of other surveys 60 kB.
    schema_bytes: int = Field(default=1 * MIB, ge=1024, description="Largest Avro schema [bytes]")
    # 63 x 63 float32 pixels and a header are 20 kB; this leaves room for any survey's 1,000 x 1,000.
    cutout_bytes: int = Field(default=4 * MIB, ge=2880, description="Largest cutout, unzipped [bytes]")
    cutout_side: int = Field(default=1024, ge=1, description="Longest side of a cutout [pixels]")


class Model(_Group):
    """Which network scores, and where."""

    bundle: Path | None = Field(default=None, description="Model bundle; the one that rbstream ships by default")
    sha256: Sha256 | None = Field(
        default=None, description="Expected SHA-256 of the bundle's file, checked before loading"
    )
    device: str = Field(
        default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="Device: auto, cpu or cuda[:N]"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32", description="Precision of the network; normalisation is always float32"
    )


class Filter(_Group):
    """What passes."""

    threshold: float | None = Field(
        default=None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Score from which an alert passes; the bundle's own by default",
    )
    where: str | None = Field(
        default=None, description='Condition on candidate fields that must hold too, e.g. "magpsf < 19.5"'
    )


class Batch(_Group):
    """Micro-batches."""

    # Measured best on one core: larger batches fall out of the cache, smaller ones pay the call.
    max_alerts: int = Field(default=32, ge=1, le=4096, description="Alerts scored at once")


class Rejects(_Group):
    """When bad input is too much of the input."""

    max_ratio: float = Field(
        default=0.2, ge=0, le=1, description="Share of rejected alerts from which a run stops with status 3"
    )


class Replay(_Group):
    """Files in, files out."""

    jobs: int = Field(
        default_factory=lambda: len(os.sched_getaffinity(0)),
        ge=1,
        le=1024,
        description="Processes that decode and score; as many as there are cores by default",
    )


_PREFIX, _TEST_PREFIX = "RBSTREAM_", "RBSTREAM_TEST_"


class Settings(BaseSettings):
    """The whole tree."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        nested_model_default_partial_update=True,
    )

    limits: Limits = Limits()
    model: Model = Model()
    filter: Filter = Filter()
    batch: Batch = Batch()
    rejects: Rejects = Rejects()
    replay: Replay = Field(default_factory=Replay)


def load_settings(overrides: dict[str, Any]) -> Settings:
    """The effective settings. overrides: from the command line, by dotted name; None is "not given".

    Raises UsageError that names each wrong setting.
    """
    _check_environment()
    tree: dict[str, dict[str, Any]] = {}
    for name, value in overrides.items():
        group, _, field = name.partition(".")
        if value is not None:
            tree.setdefault(group, {})[field] = value
    try:
        return Settings(**tree)  # type: ignore[arg-type]
    except ValidationError as error:
        raise UsageError("settings: " + "; ".join(map(_problem, error.errors()))) from error
    except SettingsError as error:  # a whole group in one variable is taken for JSON
        raise UsageError(f"settings: {error}; set RBSTREAM_GROUP__NAME, one variable each") from error


def _check_environment() -> None:
    """Raises UsageError for a variable that is meant for us and sets nothing."""
    for variable in os.environ:
        group, _, field = variable.removeprefix(_PREFIX).lower().partition("__")
        ours = variable.startswith(_PREFIX) and not variable.startswith(_TEST_PREFIX)
        if ours and group not in Settings.model_fields:
            raise UsageError(f"{variable}: no such setting{_nearest(f'{group}.{field}')}")


def _problem(error: Any) -> str:
    """What is wrong with one setting, in words."""
    name, given = ".".join(map(str, error["loc"])), error["input"]
    if error["type"] != "extra_forbidden":
        return f"{name}: {error['msg']} (got {given!r})"
    if isinstance(given, dict):  # a whole group that is not known
        name, given = next((f"{name}.{field}", value) for field, value in given.items())
    return f"{name}: no such setting (given {given!r}){_nearest(name)}"


def _nearest(name: str) -> str:
    known = [f"{group}.{field}" for group in Settings.model_fields for field in _fields(group)]
    nearest = difflib.get_close_matches(name, known, 1)
    return f"; the nearest is {nearest[0]}" if nearest else f"; there are {', '.join(known)}"


def _fields(group: str) -> Any:
    model: Any = Settings.model_fields[group].annotation
    return model.model_fields


def describe(name: str) -> str:
    """The one-line description of a setting and its default, by dotted name, as the command line's help says it."""
    group, _, field = name.partition(".")
    info = _fields(group)[field]
    fixed = info.default_factory is None and info.default is not None
    return f"{info.description} (default: {info.default})" if fixed else str(info.description)
