"""Architectures by name: (N, channels, side, side), normalised, to logits (N,), positive for real."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rbstream.errors import UsageError
from rbstream.model.rbnet import CoreAndContext


class TwoClasses(nn.Module):
    """A network with an output a class, as under a softmax: the difference is the logit."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        bogus, real = self.layers(x).unbind(dim=1)
        difference: Tensor = real - bogus
        return difference


class Pixels(nn.Module):
    """(N, C, H, W) -> (N, H, W, C): a dense layer behind it sees each pixel alone."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


class OneOutput(nn.Module):
    """A network with one output, the logit."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x).squeeze(1)
        return logits


def fc(channels: int, side: int) -> nn.Module:
    """Dense: every pixel to 64, 32 and 1; the pixels' neighbourhood is unknown to it."""
    layers = nn.Sequential(
        nn.Flatten(), nn.Linear(channels * side * side, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 32), nn.ReLU(),
        nn.Linear(32, 1),
    )  # fmt: skip
    return OneOutput(layers)


def pixelwise(channels: int, side: int) -> nn.Module:
    """Two dense layers of 30 over each pixel alone, then one over all: 27,452 parameters for 21 px and a channel.

    What a first course makes of `Dense` before `Flatten`: the layers share their weights between pixels.
    """
    layers = nn.Sequential(
        Pixels(), nn.Linear(channels, 30), nn.ReLU(), nn.Linear(30, 30), nn.ReLU(), nn.Flatten(),
        nn.Linear(30 * side * side, 2),
    )  # fmt: skip
    return TwoClasses(layers)


def cnn(channels: int, side: int) -> nn.Module:
    """Three convolutions, of 8, 16 and 32: 9,666 parameters for 21 px and a channel."""
    end = side // 2 // 2
    layers = nn.Sequential(
        nn.Conv2d(channels, 8, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32 * end * end, 2),
    )  # fmt: skip
    return TwoClasses(layers)


def vgg6(channels: int, side: int) -> nn.Module:
    """BRAAI's own (Duev et al. 2019, MNRAS 489, 3582): 312,081 parameters for 63 px and three channels."""
    end = (((side - 4) // 2) - 4) // 4
    layers = nn.Sequential(
        nn.Conv2d(channels, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25),
        nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.MaxPool2d(4), nn.Dropout(0.25),
        nn.Flatten(), nn.Linear(32 * end * end, 256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, 1),
    )  # fmt: skip
    return OneOutput(layers)


def rbnet(channels: int, side: int) -> nn.Module:
    """rbstream's own: the middle at full resolution beside the whole stamp averaged, with batch normalisation."""
    return OneOutput(nn.Sequential(CoreAndContext(channels, side)))


ARCHITECTURES: dict[str, tuple[Callable[[int, int], nn.Module], int]] = {
    "fc": (fc, 1),
    "pixelwise": (pixelwise, 1),
    "cnn": (cnn, 4),
    "vgg6": (vgg6, 20),
    "rbnet": (rbnet, 19),
}
"""By name: what builds it of channels and side, and the smallest side it takes [px], below which nothing is left."""


def build(arch: str, channels: int, side: int) -> nn.Module:
    """A network with random weights (of torch's seed). Raises UsageError for no architecture, or too small stamps."""
    if arch not in ARCHITECTURES:
        raise UsageError(f"{arch}: no architecture of that name; there are {', '.join(ARCHITECTURES)}")
    make, least = ARCHITECTURES[arch]
    if side < least:
        raise UsageError(f"{arch} needs stamps of at least {least} px, not {side}; take another, or crop less")
    return make(channels, side).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
