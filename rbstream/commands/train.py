"""`rbstream model train` and `rbstream model describe`."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from rbstream.arguments import add_command
from rbstream.errors import ExitStatus, Interrupted, UsageError

if TYPE_CHECKING:
    from rbstream.lab.anatomy import Anatomy

_FLAGS = ("arch", "seed", "epochs", "device")  # of the recipe's settings, those that are tried most
_MOST_PIXELS, _MOST_CHANNELS = 512, 64  # no survey's; a slip of the finger must not ask for all of the memory


def add_train(actions: Any) -> None:
    command = add_command(actions, "train", _train, "Train a network on a data set, and write it as a bundle.")
    command.add_argument("data", metavar="DATA", help="Data set, see `rbstream data`")
    command.add_argument("--config", type=Path, metavar="train.toml", help="The recipe, see docs/lab/recipe.md")
    command.add_argument("--arch", metavar="NAME", help="Architecture: fc, pixelwise, cnn, vgg6, rbnet (default: cnn)")
    command.add_argument("--seed", metavar="S", help="The same seed, the same weights on a CPU (default: 0)")
    command.add_argument("--epochs", metavar="N", help="Passes over the training part, at most (default: 30)")
    command.add_argument("--device", metavar="DEVICE", help="auto, cpu or cuda[:N] (default: cpu)")
    command.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="Any other setting of the recipe, e.g. crop=21"
    )
    command.add_argument("-o", "--output", required=True, type=Path, metavar="BUNDLE.pt", help="Bundle to write")
    command.add_argument("--resume", action="store_true", help="Go on from BUNDLE.checkpoint, if it is there")


def _train(options: argparse.Namespace) -> int:
    from rbstream.lab.checkpoint import checkpoint_path
    from rbstream.lab.dataset import DataSet
    from rbstream.lab.recipe import load_recipe
    from rbstream.lab.train import train

    given = _assignments(options.set) | {
        name: vars(options)[name] for name in _FLAGS if vars(options)[name] is not None
    }
    recipe = load_recipe(options.config, given)
    console = Console()
    try:
        with DataSet(options.data) as data:
            trained = train(data, recipe, options.output, resume=options.resume)
    except KeyboardInterrupt as error:
        kept = checkpoint_path(options.output)
        if not kept.exists():
            raise
        raise Interrupted(f"interrupted; --resume goes on from {kept}") from error
    manifest = trained.manifest
    if trained.resumed:
        console.print(f"went on from step {trained.resumed:,}", highlight=False)
    for text in (trained.verdict.words, f"{options.output}: {manifest.version}, threshold {manifest.threshold:g}"):
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    return ExitStatus.DONE


def _assignments(items: list[str]) -> dict[str, Any]:
    """Values as TOML would have them; what is no TOML is a text."""
    import tomllib

    given: dict[str, Any] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals:
            raise UsageError(f"--set {item}: expected NAME=VALUE, e.g. crop=21")
        try:
            given[name] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            given[name] = value
    return given


def add_describe(actions: Any) -> None:
    command = add_command(actions, "describe", _describe, "Print a network's layers, parameters and multiply-adds.")
    command.add_argument("networks", nargs="+", metavar="ARCH|BUNDLE", help="Architectures by name, or bundles")
    command.add_argument(
        "--size", type=int, default=63, metavar="PX", help="Side of an architecture's stamps (default: 63)"
    )
    command.add_argument("--channels", type=int, default=3, metavar="N", help="And their channels (default: 3)")
    command.add_argument("--json", action="store_true", help="Print JSON, and nothing else")


def _describe(options: argparse.Namespace) -> int:
    if not (1 <= options.size <= _MOST_PIXELS and 1 <= options.channels <= _MOST_CHANNELS):
        raise UsageError(
            f"--size {options.size} --channels {options.channels}: from 1 to {_MOST_PIXELS} px, and to {_MOST_CHANNELS}"
        )
    found = [_anatomy(name, options.channels, options.size) for name in options.networks]
    if options.json:
        print(json.dumps([each.as_json() for each in found], indent=1))
        return ExitStatus.DONE
    console = Console()
    for each in found:
        console.print(_layers(each))
    if len(found) > 1:
        console.print(_side_by_side(found))
    return ExitStatus.DONE


def _anatomy(name: str, channels: int, size: int) -> "Anatomy":
    """An architecture's, or a bundle's."""
    import torch

    from rbstream.lab.anatomy import dissect, dissect_script
    from rbstream.lab.networks import ARCHITECTURES, build
    from rbstream.model.bundle import load_module
    from rbstream.model.manifest import read_bundle

    if name in ARCHITECTURES:
        return dissect(name, build(name, channels, size), (channels, size, size))
    if not Path(name).exists():
        raise UsageError(f"{name}: no bundle's file and no architecture; there are {', '.join(ARCHITECTURES)}")
    bundle = read_bundle(name)
    module = load_module(bundle, torch.device("cpu"))
    with torch.inference_mode():
        shape = tuple(module.normalize(torch.zeros(1, *bundle.manifest.shape)).shape[1:])
    return dissect_script(bundle.manifest.version, module.network, shape)


def _layers(found: "Anatomy") -> Table:
    table = Table(title=found.name, title_justify="left", show_footer=True)
    table.add_column("layer", "all")
    table.add_column("shape")
    table.add_column("parameters", f"{found.parameters:,}", justify="right")
    table.add_column("multiply-adds", f"{found.multiply_adds:,}", justify="right")
    for layer in found.layers:
        cost = "" if layer.multiply_adds is None else f"{layer.multiply_adds:,}"
        table.add_row(layer.name, " x ".join(map(str, layer.shape)), f"{layer.parameters:,}", cost)
    return table


def _side_by_side(found: "list[Anatomy]") -> Table:
    table = Table(title="side by side", title_justify="left")
    table.add_column("")
    for each in found:
        table.add_column(each.name, justify="right")
    for title, values in (
        ("parameters", [each.parameters for each in found]),
        ("multiply-adds", [each.multiply_adds for each in found]),
    ):
        table.add_row(title, *(f"{value:,}" for value in values))
    return table
