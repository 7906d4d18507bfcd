"""What the commands' arguments have in common: flags for settings."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rbstream import log
from rbstream.config import Loaded, load
from rbstream.dotted import describe
from rbstream.errors import UsageError
from rbstream.settings import Settings


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], help_: str
) -> argparse.ArgumentParser:
    """A command and what runs it. Returns its parser, for the arguments."""
    command: argparse.ArgumentParser = commands.add_parser(name, help=help_, description=help_)
    command.set_defaults(run=run)
    return command


def add_setting(command: argparse.ArgumentParser, flag: str, name: str, **options: Any) -> None:
    """A flag for a setting, with the setting's own description."""
    help_ = describe(name).replace("%", "%%")
    command.add_argument(flag, dest=name, help=help_, **options)


def add_settings(command: argparse.ArgumentParser) -> None:
    """A flag for all settings that have none of their own, and where the others are written."""
    command.add_argument(
        "--config", type=Path, metavar="FILE", help="Settings as TOML (default: $RBSTREAM_CONFIG, or ./rbstream.toml)"
    )
    command.add_argument(
        "--secrets",
        type=Path,
        metavar="DIR",
        help="Folder of secrets, a file a setting (default: $RBSTREAM_SECRETS, or /run/secrets/rbstream)",
    )
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="Any other setting, e.g. limits.cutout_side=256",
    )


def add_model_settings(command: argparse.ArgumentParser) -> None:
    """Which model scores, and on what."""
    add_setting(command, "--model", "model.bundle", metavar="BUNDLE")
    add_setting(command, "--model-sha256", "model.sha256", metavar="HEX")
    add_setting(command, "--device", "model.device", metavar="DEVICE")
    add_setting(command, "--precision", "model.precision", metavar="float32|bfloat16")


def given_settings(options: argparse.Namespace) -> Settings:
    """The effective settings, those of the command line on top; logs are as they say. Raises UsageError."""
    settings = loaded_settings(options).settings
    log.set_up(settings.log)
    return settings


def loaded_settings(options: argparse.Namespace) -> Loaded:
    """The effective settings and where each came from. Raises UsageError."""
    given = {name: value for name, value in vars(options).items() if "." in name}
    for item in getattr(options, "set", ()):
        name, equals, value = item.partition("=")
        if not equals:
            raise UsageError(f"--set {item}: expected NAME=VALUE, e.g. limits.cutout_side=256")
        given[name] = value
    return load(given, getattr(options, "config", None), getattr(options, "secrets", None))
