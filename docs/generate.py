"""Writes the pages of docs/ that are made from declarations in the code: `make docs`. A test says when they drift."""

import json
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import UnionType
from typing import Any

from pydantic import BaseModel

from rbstream import dotted
from rbstream.kafka.properties import BROKER_DECIDES, CALLBACK, KIP_848, RULES
from rbstream.lab.anatomy import dissect
from rbstream.lab.losses import LOSSES
from rbstream.lab.networks import ARCHITECTURES
from rbstream.lab.normalize import NORMALIZATIONS
from rbstream.lab.recipe import Recipe
from rbstream.metrics import describe_metrics
from rbstream.settings import Settings
from rbstream.units import parse_duration, parse_size

_HEAD = """# Settings

Made by `docs/generate.py` from `rbstream/settings.py` and `rbstream/kafka/properties.py`; edit those.

Later wins: defaults < `rbstream.toml` < secret files < environment < command line.

- `rbstream.toml` is `--config FILE`, else `$RBSTREAM_CONFIG`, else `./rbstream.toml` where it is there. `source.topics`
  is `topics` under `[source]`. `rbstream config schema` prints a JSON schema for editors.
- Secret files are in `--secrets DIR`, else `$RBSTREAM_SECRETS`, else `/run/secrets/rbstream` where it is there: a file
  a setting, named `source.properties.sasl.password` or `SOURCE__PROPERTIES__SASL_PASSWORD`; the value is what it holds,
  but for a newline at the end. Names that begin with a dot are left alone. What comes from there is never shown.
- Each setting has the environment variable that the tables name. In names of librdkafka's properties the dots are
  underscores there: `RBSTREAM_SOURCE__PROPERTIES__SASL_PASSWORD`.
- On the command line: `--set source.group_id=rbstream`, or the flags of the command.

`rbstream config show` prints every value and where it came from; `rbstream config check` says whether `rbstream run`
could start, without connecting. A name that isn't known is an error, wherever it is written.

A **duration** is `100ms`, `10s`, `15min`, `1h`, `2d`, or a number of seconds. A **size** is `512B`, `64kB`, `32MiB`,
`1GiB`, or a number of bytes (kB, MB, GB are powers of 1000; KiB, MiB, GiB of 1024). A **list** is a list in TOML;
elsewhere names between commas, or JSON. Paths start from the working directory.
"""
_TOPICS = """
`source.topics` takes names, and regular expressions after `^`. Kafka's classic protocol and KIP-848 have two matchers;
what is allowed means the same to both: `^` ... `$` around the whole name, letters, digits, `_`, `-`, `.` for any
character, `\\.` for a dot, classes `[a-z0-9_]`, groups `(a|b)`, and `*`, `+`, `?`, `{n}`, `{n,}`, `{n,m}` behind one.
"""
_PROPERTIES = """
## Properties of librdkafka

All of [librdkafka's list](https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md) can be set under
`[source.properties]` (the consumer) and `[sink.properties]` (the producer), TLS and SASL among them:

    [source.properties]
    security.protocol = "SASL_SSL"
    sasl.mechanism = "SCRAM-SHA-512"
    sasl.username = "rbstream"              # the password: a secret file source.properties.sasl.password
    ssl.ca.location = "/etc/ssl/kafka-ca.pem"

Where the sink is the source's Kafka, it takes over how to get in (`security.*`, `sasl.*`, `ssl.*`). `group.protocol`
is taken for `source.group_protocol`. Not free are:

| property | of | allowed | why, or what to set instead |
|---|---|---|---|
"""


def settings_page() -> str:
    """The whole page, Markdown."""
    groups = [_group(name, info) for name, info in Settings.model_fields.items()]
    return _HEAD + "".join(groups) + _PROPERTIES + "".join(_rules())


def _group(group: str, info: Any) -> str:
    names = [name for name in dotted.names() if name.split(".")[0] == group]
    title, about = (f"`[{group}]`", _model(info.annotation)) if names != [group] else (f"`{group}`", "")
    title = "`[routes.NAME]`" if group == "routes" else title
    head = f"\n## {title}\n\n{about}\n\n" if about else f"\n## {title}\n\n"
    return (
        f"{head}| setting | type | default | what it is | variable |\n|---|---|---|---|---|\n"
        + "".join(f"{_row(map(_cell, cells))}\n" for cells in map(_setting, names))
        + (_TOPICS if group == "source" else "")
    )


def _model(kind: Any) -> str:
    """A group's first line of documentation."""
    model = kind if isinstance(kind, type) and issubclass(kind, BaseModel) else typing.get_args(kind)[1]
    return str(model.__doc__)


def _setting(name: str) -> Iterator[str]:
    table = name in dotted.PROPERTIES
    default = dotted.default_text(name)
    yield f"`{name}.*`" if table else f"`{name}`"
    yield _kind(dotted.declared(name))
    yield f"`{default}`" if default else ""
    yield dotted.description(name)
    yield f"`{dotted.variable(f'{name}.NAME' if table else name)}`"


def _kind(info: Any) -> str:
    """A type in a word or two."""
    readers = {getattr(each, "func", None) for each in info.metadata}
    if parse_duration in readers:
        return "duration"
    if parse_size in readers:
        return "size"
    return _type(info.annotation)


def _type(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return _codes(arguments)
    if origin in (typing.Union, UnionType):
        return _type(next(each for each in arguments if each is not type(None)))
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin in (tuple, dict):
        return {tuple: "list", dict: "table"}[origin]
    return {bool: "true or false", int: "whole number", float: "number", str: "text", Path: "path"}[annotation]


def _rules() -> Iterator[str]:
    for rule in RULES:
        clients = ", ".join(rule.clients)
        yield _row((_codes(rule.names), clients, rule.allowed or "nothing", _cell(rule.reason))) + "\n"
    yield _row((_codes(sorted(BROKER_DECIDES)), "source", "with `classic`", _cell(KIP_848))) + "\n"
    yield _row(("`*_cb` and the like", "source, sink", "nothing", CALLBACK)) + "\n"


def _codes(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


_RECIPE = """# The recipe of a training

Made by `docs/generate.py` from `rbstream/lab/`; edit that.

    rbstream model train DATA --config train.toml -o net.pt

`train.toml` may say any of these; `--set NAME=VALUE`, `--arch`, `--seed`, `--epochs` and `--device` go over it. The
bundle's provenance has them all, and so `rbstream model info net.pt` says how it was made.

| setting | default | what it is |
|---|---|---|
"""
_NORMALIZATIONS = """
Masked pixels become 0: with `min-max` and `sigmag` the faintest there is, with the L2 norms what BRAAI was trained on,
else the value of the sky. `channels` and `crop` come first: what is cut away is not in a
stamp's median or norm.

| normalisation | what it does |
|---|---|
"""
_ARCHITECTURES = """
Parameters and multiply-adds are `rbstream model describe NAME --size 63 --channels 3`'s.

| architecture | least side | parameters | multiply-adds | what it is |
|---|---|---|---|---|
"""
_LOSSES = """
| loss | what it is |
|---|---|
"""


def recipe_page() -> str:
    """The whole page, Markdown."""
    settings = (
        (f"`{name}`", f"`{json.dumps(info.default)}`", _cell(str(info.description)))
        for name, info in Recipe.model_fields.items()
    )
    normalizations = ((f"`{name}`", _cell(words)) for name, (_, words) in NORMALIZATIONS.items())
    losses = ((f"`{name}`", _cell(_summary(loss))) for name, loss in LOSSES.items())
    parts = (
        (_RECIPE, settings), (_NORMALIZATIONS, normalizations), (_ARCHITECTURES, map(_architecture, ARCHITECTURES)),
        (_LOSSES, losses),
    )  # fmt: skip
    return "".join(head + "".join(f"{_row(cells)}\n" for cells in rows) for head, rows in parts)


def _architecture(name: str) -> tuple[str, ...]:
    make, least = ARCHITECTURES[name]
    found = dissect(name, make(3, 63), (3, 63, 63))
    return f"`{name}`", f"{least} px", f"{found.parameters:,}", f"{found.multiply_adds:,}", _cell(_summary(make))


def _summary(documented: Any) -> str:
    return " ".join(str(documented.__doc__).split("\n\n")[0].split())


# By name of the file beside this one.
PAGES = {"settings.md": settings_page, "metrics.md": describe_metrics, "lab/recipe.md": recipe_page}


def main() -> None:
    """Write them all."""
    for name, page in PAGES.items():
        (Path(__file__).parent / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
