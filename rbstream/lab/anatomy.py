"""What a network is made of: layers, parameters and multiply-adds."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


class Layer(NamedTuple):
    """One layer: what it gives for one stamp (of a bundle: the shape of a weight), what it holds, what it costs."""

    name: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int | None
    """None where that isn't known layer by layer."""


class Anatomy(NamedTuple):
    """A network and its layers in order; multiply-adds of one stamp, convolutions and dense layers only."""

    name: str
    layers: Sequence[Layer]
    parameters: int
    multiply_adds: int

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**self._asdict(), "layers": [layer._asdict() for layer in self.layers]}


def dissect(name: str, network: nn.Module, shape: tuple[int, ...]) -> Anatomy:
    """A network of torch modules, for stamps (channels, side, side) as it gets them."""
    layers: list[Layer] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        parameters = sum(weight.numel() for weight in module.parameters())
        what = f"{type(module).__name__}({module.extra_repr()})"
        layers.append(Layer(what, tuple(output.shape[1:]), parameters, _multiply_adds(module, output)))

    hooks = [module.register_forward_hook(note) for module in network.modules() if not list(module.children())]
    _run(network, shape)
    for hook in hooks:
        hook.remove()
    return Anatomy(name, layers, *_totals(network, shape))


def dissect_script(name: str, network: torch.jit.ScriptModule, shape: tuple[int, ...]) -> Anatomy:
    """A bundle's network, whose layers are known by their weights alone."""
    weights = [Layer(key, tuple(value.shape), value.numel(), None) for key, value in network.named_parameters()]
    return Anatomy(name, weights, *_totals(network, shape))


def _totals(network: nn.Module, shape: tuple[int, ...]) -> tuple[int, int]:
    counter = FlopCounterMode(display=False)
    with counter:
        _run(network, shape)
    return sum(weight.numel() for weight in network.parameters()), counter.get_total_flops() // 2


def _run(network: nn.Module, shape: tuple[int, ...]) -> None:
    with torch.no_grad():
        network.eval()(torch.zeros(1, *shape))


def _multiply_adds(module: nn.Module, output: Tensor) -> int:
    if isinstance(module, nn.Conv2d):
        return output[0].numel() * module.weight[0].numel()
    if isinstance(module, nn.Linear):
        return output[0].numel() * module.in_features
    return 0
