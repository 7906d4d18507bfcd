"""From the stamps as a survey gives them to what a network sees: channels chosen, cropped, normalised. In the graph.

Each normalisation takes float32 (N, C, H, W), NaN (or a fill beyond 1e30) where masked, and gives finite float32
(N, C', H, W). Masked pixels become 0: the sky's value under mean-std, asinh and robust, the faintest pixel's under
min-max and sigmaG, nothing's under the two L2 norms, which are BRAAI's own.
"""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn

from rbstream.model.network import L2Image, L2Row
from rbstream.model.rbnet import Robust


def _valid(stamps: Tensor) -> Tensor:
    """False for NaN and for fills such as -3.4e38; the brightest pixels are 1e5 DN."""
    return stamps.abs() < 1e30


class Window(nn.Module):
    """The chosen channels of the middle `side` px, float32 (N, C, side, side)."""

    def __init__(self, channels: list[int], size: int, side: int) -> None:
        super().__init__()
        self.channels: Final[list[int]] = channels
        self.begin: Final[int] = (size - side) // 2
        self.end: Final[int] = self.begin + side

    def forward(self, triplets: Tensor) -> Tensor:
        return triplets[:, self.channels, self.begin : self.end, self.begin : self.end]


class MinMax(nn.Module):
    """Each stamp from 0 at its faintest pixel to 1 at its brightest; masked pixels 0."""

    def forward(self, stamps: Tensor) -> Tensor:
        valid = _valid(stamps)
        low = stamps.masked_fill(~valid, float("inf")).amin(dim=(2, 3), keepdim=True)
        high = stamps.masked_fill(~valid, float("-inf")).amax(dim=(2, 3), keepdim=True)
        span = high - low
        span = torch.where(span > 0, span, torch.ones_like(span))  # a constant stamp, and one without data
        return torch.where(valid, (stamps - low) / span, 0.0)


class MeanStd(nn.Module):
    """Each stamp less its mean, in units of its standard deviation; masked pixels, and constant stamps, 0."""

    rounding: Final = 1e-6  # of the mean: what is less is no scatter but float32's sums (1e-7 each)

    def forward(self, stamps: Tensor) -> Tensor:
        valid = _valid(stamps)
        count = valid.sum(dim=(2, 3), keepdim=True).clamp_min(1)
        mean = torch.where(valid, stamps, 0.0).sum(dim=(2, 3), keepdim=True) / count
        apart = torch.where(valid, stamps - mean, 0.0)
        deviation = ((apart * apart).sum(dim=(2, 3), keepdim=True) / count).sqrt()
        constant = deviation <= self.rounding * mean.abs()
        return torch.where(constant, 0.0, apart / torch.where(constant, torch.ones_like(deviation), deviation))


class RobustAsinh(nn.Module):
    """asinh((x - median) / (1.4826 MAD)) of each stamp; masked pixels 0. Keeps amplitudes, which unit norms forget."""

    sigma_per_mad: Final = 1.4826  # of a Gaussian
    least_sigma: Final = 1e-6  # of any unit: keeps a constant stamp finite

    def forward(self, stamps: Tensor) -> Tensor:
        valid = _valid(stamps)
        flat = stamps.masked_fill(~valid, float("nan")).flatten(2)
        median = torch.nan_to_num(flat.nanmedian(dim=2, keepdim=True)[0])
        sigma = self.sigma_per_mad * torch.nan_to_num((flat - median).abs().nanmedian(dim=2, keepdim=True)[0])
        apart = torch.where(valid, stamps - median.unsqueeze(3), 0.0)
        return torch.asinh(apart / sigma.clamp_min(self.least_sigma).unsqueeze(3))


class SigmaG(nn.Module):
    """Each stamp clipped below median - 2 sigmaG, shifted to a least value of 0, and to a sum of 1; masked pixels 0.

    sigmaG = 0.7413 (p75 - p25), the standard deviation of a Gaussian by its quartiles (Ivezic et al. 2014, ch. 4.7.4).
    """

    per_quartiles: Final = 0.7413
    clip: Final = 2.0  # sigmaG below the median

    def forward(self, stamps: Tensor) -> Tensor:
        valid = _valid(stamps)
        flat = stamps.masked_fill(~valid, float("nan")).flatten(2)
        at = torch.tensor([0.25, 0.5, 0.75], dtype=stamps.dtype, device=stamps.device)
        quartiles = torch.nan_to_num(torch.nanquantile(flat, at, dim=2, keepdim=True))
        least = quartiles[1] - self.clip * self.per_quartiles * (quartiles[2] - quartiles[0])
        clipped = torch.maximum(flat, least)
        lowest = torch.where(torch.isnan(clipped), float("inf"), clipped).amin(dim=2, keepdim=True)
        light = torch.nan_to_num(clipped - lowest)
        total = light.sum(dim=2, keepdim=True)
        return (light / torch.where(total > 0, total, torch.ones_like(total))).reshape(stamps.shape)


NORMALIZATIONS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "l2-row": (L2Row, "each row of each stamp divided by its L2 norm, masked pixels 0 (BRAAI d6_m7)"),
    "l2-image": (L2Image, "each stamp divided by its L2 norm, masked pixels 0 (BRAAI d6_m9)"),
    "min-max": (MinMax, "each stamp from 0 to 1"),
    "mean-std": (MeanStd, "each stamp less its mean, in units of its standard deviation"),
    "asinh": (RobustAsinh, "asinh((x - median) / (1.4826 MAD)) of each stamp"),
    "sigmag": (SigmaG, "each stamp clipped below median - 2 sigmaG, shifted to 0, divided by its sum"),
    "robust": (
        Robust,
        "(x - median) / (1.4826 MAD) of each stamp, and a channel of masks; for rbnet, which takes a logarithm of it",
    ),
}
"""By name: what makes it, and what it does in words."""


def preparation(name: str, channels: list[int], count: int, size: int, side: int) -> nn.Module:
    """What stands before the network: of `count` channels those chosen, the middle `side` of `size` px, normalised."""
    normalize = NORMALIZATIONS[name][0]()
    if side == size and channels == list(range(count)):
        return normalize  # nothing to choose, and choosing channels by number copies them
    return nn.Sequential(Window(channels, size, side), normalize)


def channels_out(prepare: nn.Module, channels: int, size: int) -> int:
    """How many channels the network gets, of stamps (channels, size, size)."""
    with torch.inference_mode():
        return int(prepare(torch.zeros(1, channels, size, size)).shape[1])
