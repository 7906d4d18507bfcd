"""The network of the default bundle: the middle of a stamp at full resolution, the whole of it coarsely.

The middle tells a star from a cosmic ray; the rest tells a spike, a ghost or a wrong flux scale from a
variable. It costs 7 million multiply-adds an alert, where BRAAI (Duev et al. 2019) costs 19.
"""

import copy
import math
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

NORMALIZATION = (
    "per stamp, u = (x - median) / (1.4826 MAD) over every third row and column, then "
    "sign(u) log(1 + |u|) / 2; masked pixels (not finite, or beyond 1e30) become 0 and 1 in a fourth channel"
)


class RobustLog(nn.Module):
    """float32 (N, 3, 63, 63) in DN, NaN where masked -> float32 (N, 4, 63, 63), finite whatever goes in.

    The logarithm keeps amplitudes, which a unit norm forgets: noise stays about 1, stars reach 4.
    """

    beyond_data: Final = 1e30  # DN: fills such as -3.4e38 are no data; the brightest pixels are 1e5
    stride: Final = 3  # 441 pixels give the median to 6% of sigma, at a sixth of the time of all
    sigma_per_mad: Final = 1.4826  # of a Gaussian
    least_sigma: Final = 0.05  # DN: under the noise of any stamp; keeps a constant stamp finite
    scale: Final = 0.5  # log(1 + |u|) is 0 to 1.4 for noise and up to 9 for stars: nets like half of that

    def forward(self, triplets: Tensor) -> Tensor:
        valid = triplets.abs() < self.beyond_data  # False for NaN
        sample = triplets[:, :, :: self.stride, :: self.stride].flatten(2)
        sample = sample.masked_fill(~valid[:, :, :: self.stride, :: self.stride].flatten(2), math.nan)
        median = sample.nanmedian(dim=2, keepdim=True)[0]
        sigma = self.sigma_per_mad * (sample - median).abs().nanmedian(dim=2, keepdim=True)[0]
        # Of a stamp with nothing in the sample the median is NaN: it has no level and no noise.
        level = torch.nan_to_num(median).unsqueeze(3)
        noise = torch.nan_to_num(sigma).clamp_min(self.least_sigma).unsqueeze(3)
        u = torch.where(valid, triplets - level, 0.0) / noise
        # log1p with a sign: asinh does the same at twenty times the cost on a CPU.
        image = torch.copysign(torch.log1p(u.abs()), u) * self.scale
        masked = 1.0 - valid.to(torch.float32).mean(dim=1, keepdim=True)
        return torch.cat([image, masked], dim=1)


class CoreAndContext(nn.Module):
    """(N, channels, side, side) normalised -> logits (N, 1), positive for real. Stamps of at least 20 px.

    At ZTF's 63 px the core is the middle 39, 13 FWHM around the candidate, and the context the whole averaged 3 x 3.
    Smaller stamps are their own core.
    """

    begin: Final[int]
    end: Final[int]
    pool: Final[int]

    def __init__(self, channels: int = 4, side: int = 63) -> None:
        super().__init__()
        core = 39 if side >= 63 else side
        self.begin = (side - core) // 2
        self.end = self.begin + core
        self.pool = max(1, side // 21)  # px averaged over: the context keeps 21 px, or what there is
        self.core = nn.Sequential(
            *_convolution(channels, 16),
            *_convolution(16, 16),
            nn.MaxPool2d(2),
            *_convolution(16, 32),
            *_convolution(32, 32),
            nn.MaxPool2d(4),
        )
        self.context = nn.Sequential(
            *_convolution(channels, 16),
            *_convolution(16, 16),
            nn.MaxPool2d(2),
            *_convolution(16, 32),
            nn.MaxPool2d(2),
        )
        left = (((core - 4) // 2) - 4) // 4  # px of the core's side that are left: 3 of 39
        around = ((((side // self.pool) - 4) // 2) - 2) // 2  # and of the context's: 3 of 21
        features = 32 * (left * left + around * around)
        self.decide = nn.Sequential(nn.Linear(features, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 1))

    def forward(self, x: Tensor) -> Tensor:
        core = self.core(x[:, :, self.begin : self.end, self.begin : self.end])
        context = self.context(nn.functional.avg_pool2d(x, self.pool))
        logits: Tensor = self.decide(torch.cat([core.flatten(1), context.flatten(1)], dim=1))
        return logits


def fused(network: CoreAndContext) -> CoreAndContext:
    """A copy for scoring, its batch normalisation folded into the convolutions before it."""
    network = copy.deepcopy(network).eval()
    for branch in (network.core, network.context):
        for i in range(len(branch) - 1):
            convolution, norm = branch[i], branch[i + 1]
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                branch[i], branch[i + 1] = fuse_conv_bn_eval(convolution, norm), nn.Identity()
    return network


def _convolution(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    """Valid 3 x 3 convolution, batch normalisation, ReLU."""
    return nn.Conv2d(inputs, outputs, 3, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
