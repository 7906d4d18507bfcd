"""`rbstream model`: a bundle's whole life."""

import argparse
import json
from typing import Any

from rich.console import Console

from rbstream.arguments import add_command, add_setting, given_settings
from rbstream.commands.evaluate import add_evaluate
from rbstream.commands.explain import add_explain
from rbstream.commands.train import add_describe, add_train
from rbstream.errors import ExitStatus
from rbstream.settings import Settings

_LONG = 12  # values of a list that a line still shows


def add_model(commands: Any) -> None:
    command = commands.add_parser("model", help="Look at, verify, import, train, evaluate and explain model bundles.")
    actions = command.add_subparsers(title="actions", required=True, metavar="ACTION")
    info = add_command(actions, "info", _model_info, "Print what a bundle says of itself, without running its code.")
    verify = add_command(actions, "verify", _model_verify, "Load a bundle and compare its golden scores on a device.")
    for each in (info, verify):
        each.add_argument("bundle", metavar="BUNDLE")
        each.add_argument("--json", action="store_true", help="Print JSON, and nothing else")
        add_setting(each, "--sha256", "model.sha256", metavar="HEX")
    add_setting(verify, "--device", "model.device", metavar="DEVICE")
    add_setting(verify, "--precision", "model.precision", metavar="float32|bfloat16")
    import_ = add_command(actions, "import", _model_import, "Turn a published Keras network (HDF5) into a bundle.")
    import_.add_argument("source", metavar="NETWORK.h5")
    import_.add_argument(
        "--normalize",
        required=True,
        metavar="l2-row|l2-image",
        help="Normalisation that the network was trained on",
    )
    import_.add_argument("-o", "--output", required=True, metavar="BUNDLE.pt", help="Bundle to write")
    import_.add_argument("--name-version", metavar="VERSION", help="Written as drbversion (default: the file's name)")
    add_train(actions)
    add_describe(actions)
    add_evaluate(actions)
    add_explain(actions)


def _model_settings(options: argparse.Namespace) -> Settings:
    options.set = []
    return given_settings(options)


def _model_info(options: argparse.Namespace) -> int:
    from rbstream.model.manifest import describe_bundle, read_bundle

    _show(describe_bundle(read_bundle(options.bundle, _model_settings(options).model.sha256)), options.json)
    return ExitStatus.DONE


def _model_verify(options: argparse.Namespace) -> int:
    from rbstream.model.bundle import GOLDEN_TOLERANCE, choose_device, load_scorer, verify
    from rbstream.model.manifest import read_bundle

    model = _model_settings(options).model
    bundle = read_bundle(options.bundle, model.sha256)
    scorer = load_scorer(bundle, choose_device(model.device), model.precision)
    shown = {
        "path": str(bundle.path),
        "version": bundle.manifest.version,
        "device": str(scorer.device),
        "precision": model.precision,
        "golden_triplets": len(bundle.golden),
        "largest_difference": verify(bundle, scorer),
        "tolerance": GOLDEN_TOLERANCE[model.precision],
        "verified": True,
    }
    _show(shown, options.json)
    return ExitStatus.DONE


def _model_import(options: argparse.Namespace) -> int:
    from rbstream.model.keras import import_keras

    manifest = import_keras(options.source, options.output, options.normalize, options.name_version)
    Console().print(
        f"{options.output}: {manifest.version}, {manifest.size}x{manifest.size}, {manifest.normalization}, "
        f"threshold {manifest.threshold:g}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    return ExitStatus.DONE


def _show(values: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(values, indent=1))
        return
    width = max(map(len, values))
    for name, value in values.items():
        print(f"{name:<{width}}  {json.dumps(_brief(value)) if isinstance(value, (dict, list)) else value}")


def _brief(value: Any) -> Any:
    """For a person: without long lists, such as the hashes of the scenes that a network was trained on."""
    if isinstance(value, dict):
        return {name: _brief(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_brief(each) for each in value] if len(value) <= _LONG else f"{len(value):,} values: --json shows them"
    return value
