"""Published Keras networks (HDF5) turned into bundles, without TensorFlow."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rbstream.errors import ModelError, UsageError
from rbstream.model.bundle import write_bundle
from rbstream.model.golden import golden_triplets
from rbstream.model.manifest import Manifest
from rbstream.model.network import NORMALIZATIONS, RealBogus

# Kowalski's and ZTF's own filters call an alert real from a score of 0.5.
BRAAI_THRESHOLD = 0.5


class Flatten(nn.Module):
    """(N, C, H, W) -> (N, H * W * C): in Keras's order, channels last."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)


def import_keras(source: str | Path, output: str | Path, normalize: str, version: str | None = None) -> Manifest:
    """Turn a sequential Keras network in HDF5 (with its architecture inside) into a bundle at `output`.

    normalize: a name in `NORMALIZATIONS`: what the network was trained on; Keras's file does not say.
    version: what will be written as `drbversion`; the file's name without its ending by default.
    Raises UsageError for an unknown normalisation, ModelError for a file or a layer that can't be imported.
    """
    if normalize not in NORMALIZATIONS:
        raise UsageError(f"--normalize {normalize}: unknown; one of {', '.join(NORMALIZATIONS)}")
    source = Path(source)
    if Path(output).resolve() == source.resolve():
        raise UsageError(f"-o {output}: that is the network to import; give another name")
    try:
        layers, weights = _read(source)
        network = nn.Sequential(*_logits(source, layers, weights))
        size, channels = _input_shape(source, layers)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{source}: not as Keras writes it: {type(error).__name__}: {error}") from error
    manifest = Manifest(
        name=source.stem,
        version=version or source.stem,
        size=size,
        normalization=normalize,
        threshold=BRAAI_THRESHOLD,
        provenance={
            "source": source.name,
            "converted_from": "Keras HDF5",
            "layers": [x["class_name"] for x in layers],
        },
    )
    if channels != len(manifest.channels):
        raise ModelError(f"{source}: takes {channels} channels; a triplet has {len(manifest.channels)}")
    module = RealBogus(NORMALIZATIONS[normalize](), network)
    try:
        return write_bundle(output, module, manifest, golden_triplets(manifest))
    except RuntimeError as error:
        raise ModelError(f"{source}: its layers don't fit together: {str(error).splitlines()[-1]}") from error


Weights = dict[str, NDArray[np.float32]]


def _read(source: Path) -> tuple[list[dict[str, Any]], Weights]:
    """The layers' configurations, and their weights by 'layer/kernel' and 'layer/bias'."""
    try:
        import h5py
    except ImportError as error:
        raise UsageError("reading Keras files needs h5py; in rbstream's source, pip install '.[import]'") from error
    try:
        with h5py.File(source, "r") as file:
            config = file.attrs.get("model_config")
            if config is None or "model_weights" not in file:
                raise ModelError(f"{source}: no architecture in it; give the file that Keras's model.save() wrote")
            weights: Weights = {}

            def visit(name: str, item: Any) -> None:
                if hasattr(item, "shape"):
                    layer, _, kind = name.rpartition("/")
                    weights[f"{layer.split('/')[0]}/{kind.removesuffix(':0')}"] = np.asarray(item, np.float32)

            file["model_weights"].visititems(visit)
    except OSError as error:
        raise ModelError(f"{source}: not a readable HDF5 file: {error}") from error
    model = json.loads(config)
    if model.get("class_name") != "Sequential":
        raise ModelError(f"{source}: a {model.get('class_name')} network; only Sequential ones can be imported")
    inner = model["config"]
    return (inner["layers"] if isinstance(inner, dict) else inner), weights


def _input_shape(source: Path, layers: list[dict[str, Any]]) -> tuple[int, int]:
    shape = next(
        (x["config"][k] for x in layers[:2] for k in ("batch_input_shape", "batch_shape") if k in x["config"]),
        None,
    )
    if shape is None or len(shape) != 4 or shape[1] != shape[2]:
        raise ModelError(f"{source}: its input is {shape}, not (batch, size, size, channels)")
    return int(shape[1]), int(shape[3])


def _logits(source: Path, layers: list[dict[str, Any]], weights: Weights) -> list[nn.Module]:
    """Torch's layers, without the last sigmoid: `RealBogus` applies it in float32."""
    modules = [module for layer in layers for module in _layer(source, layer, weights)]
    if not modules or not isinstance(modules[-1], nn.Sigmoid):
        raise ModelError(f"{source}: does not end in a sigmoid, so its answer is not a real/bogus probability")
    return modules[:-1]


def _layer(source: Path, layer: dict[str, Any], weights: Weights) -> list[nn.Module]:
    kind, config = layer["class_name"], layer["config"]
    match kind:
        case "InputLayer" | "Dropout":
            return []
        case "Conv2D":
            return [_convolution(source, config, weights), *_activation(source, config["activation"])]
        case "MaxPooling2D":
            _require(source, config, padding="valid", data_format="channels_last")
            return [nn.MaxPool2d(tuple(config["pool_size"]), tuple(config["strides"]))]
        case "Flatten":
            return [Flatten()]
        case "Dense":
            kernel = weights[f"{config['name']}/kernel"]
            dense = nn.Linear(*kernel.shape)
            dense.weight.data = torch.from_numpy(kernel.T.copy())
            dense.bias.data = _bias(config, weights, kernel.shape[-1])
            return [dense, *_activation(source, config["activation"])]
        case "Activation":
            return _activation(source, config["activation"])
    raise ModelError(f"{source}: layer {config.get('name')} is a {kind}, which can't be imported")


def _convolution(source: Path, config: dict[str, Any], weights: Weights) -> nn.Module:
    _require(source, config, padding="valid", data_format="channels_last")
    kernel = weights[f"{config['name']}/kernel"]  # (height, width, in, out)
    height, width, inputs, outputs = kernel.shape
    convolution = nn.Conv2d(
        inputs, outputs, (height, width), tuple(config["strides"]), dilation=tuple(config["dilation_rate"])
    )
    convolution.weight.data = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
    convolution.bias.data = _bias(config, weights, outputs)  # type: ignore[union-attr]
    return convolution


def _bias(config: dict[str, Any], weights: Weights, outputs: int) -> Tensor:
    return torch.from_numpy(weights[f"{config['name']}/bias"]) if config["use_bias"] else torch.zeros(outputs)


def _activation(source: Path, name: str) -> list[nn.Module]:
    known: dict[str, list[nn.Module]] = {"linear": [], "relu": [nn.ReLU()], "sigmoid": [nn.Sigmoid()]}
    if name not in known:
        raise ModelError(f"{source}: activation {name} can't be imported; known are {', '.join(known)}")
    return known[name]


def _require(source: Path, config: dict[str, Any], **expected: str) -> None:
    for key, value in expected.items():
        if config.get(key) != value:
            raise ModelError(
                f"{source}: layer {config['name']} has {key}={config.get(key)}; only {value} can be imported"
            )
