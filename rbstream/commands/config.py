"""`rbstream config`: the effective settings, whether they can be run with, and what there is to be set."""

import argparse
import json
from collections.abc import Iterator
from typing import Any

from rbstream.arguments import add_command, add_settings, loaded_settings
from rbstream.assembly import make_filter, make_routes, open_bundle
from rbstream.checks import results
from rbstream.config import Loaded, required
from rbstream.errors import ExitStatus, ModelError, UsageError
from rbstream.model.manifest import Bundle
from rbstream.settings import Settings


def add_config(commands: Any) -> None:
    """The command, with its actions."""
    command = commands.add_parser("config", help="Look at and check the settings.")
    actions = command.add_subparsers(title="actions", required=True, metavar="ACTION")
    show = add_command(actions, "show", _show, "Print every setting and where it comes from, secrets masked.")
    show.add_argument("--json", action="store_true", help="Print JSON, and nothing else")
    check = add_command(actions, "check", _check, "Check all that `rbstream run` needs, without connecting to Kafka.")
    for each in (show, check):
        add_settings(each)
    add_command(actions, "schema", _schema, "Print the JSON schema of rbstream.toml, for editors.")


def _show(options: argparse.Namespace) -> int:
    effective = list(loaded_settings(options).effective())
    if options.json:
        shown = {name: {"value": value, "origin": origin} for name, value, origin in effective}
        print(json.dumps(shown, indent=1))
        return ExitStatus.DONE
    lines = [(_as_toml(name, value), origin) for name, value, origin in effective]
    width = min(max(len(line) for line, _ in lines), 60)
    for line, origin in lines:
        print(f"{line:<{width}}  # {origin}")
    return ExitStatus.DONE


def _as_toml(name: str, value: Any) -> str:
    """A line that could stand in rbstream.toml."""
    return f"# {name} is not set" if value is None else f"{name} = {json.dumps(value, ensure_ascii=False)}"


def _check(options: argparse.Namespace) -> int:
    for told in _checks(loaded_settings(options)):
        print(f"ok: {told}")
    return ExitStatus.DONE


def _checks(loaded: Loaded) -> Iterator[str]:
    """What has been checked, one by one. Raises UsageError at the first that can't be run with."""
    from rbstream.kafka.tryout import try_clients
    from rbstream.worker.run import REQUIRED

    settings = loaded.settings
    origins = sorted({given.origin for given in loaded.given.values()})
    yield f"{len(loaded.given)} settings given" + (f", by {', '.join(origins)}" if origins else "")
    for name in REQUIRED:
        required(settings, name)
    yield f"reads {', '.join(settings.source.topics)} from {settings.source.bootstrap_servers}"
    yield "writes " + ", ".join(f"{topic} ({name})" for name, topic in results(settings).items())
    try_clients(settings)
    yield "the Kafka client takes all properties"
    bundle = _bundle(settings)
    yield f"model {bundle.manifest.version}, {bundle.path}, SHA-256 {bundle.sha256}"
    main, routes = make_filter(settings, bundle), make_routes(settings, bundle)
    yield f"filter: from {main.threshold:g}" + (f", where {settings.filter.where}" if settings.filter.where else "")
    for name, route in routes.items():
        where = settings.routes[name].where
        yield f"route {name}: from {route.threshold:g}" + (f", where {where}" if where else "")


def _bundle(settings: Settings) -> Bundle:
    try:
        return open_bundle(settings.model)
    except ModelError as error:
        raise UsageError(f"model.bundle: {error}") from error


def _schema(options: argparse.Namespace) -> int:
    print(json.dumps({"$schema": _DIALECT, **Settings.model_json_schema()}, indent=1))
    return ExitStatus.DONE


_DIALECT = "https://json-schema.org/draft/2020-12/schema"
