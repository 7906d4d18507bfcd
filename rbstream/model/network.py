"""The graph inside every bundle: normalise in float32, score in the precision asked for, answer in float32."""

import torch
from torch import Tensor, nn


class RealBogus(nn.Module):
    """A real/bogus classifier with its normalisation.

    normalize: float32 (N, channels, size, size), NaN where a pixel is masked -> float32 (N, C, H, W), finite.
    network: the same, in float32 or bfloat16 -> logits (N,) or (N, 1).
    """

    compute: Tensor

    def __init__(self, normalize: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.normalize = normalize
        self.network = network
        # An empty tensor whose dtype tells the graph what the network computes in: see `set_precision`.
        self.register_buffer("compute", torch.zeros(0), persistent=False)

    def forward(self, triplets: Tensor) -> Tensor:
        """float32 (N, channels, size, size), NaN where masked -> probability of being real, float32 (N,)."""
        # In whatever layout: convolutions take theirs from their weights, and what is cropped away is not copied.
        logits = self.network(self.normalize(triplets).to(self.compute.dtype))
        return torch.sigmoid(logits.to(torch.float32)).reshape(-1)


class L2Row(nn.Module):
    """Each row of each stamp divided by its L2 norm: what BRAAI d6_m7 was trained on.

    As ZTF's pipeline does it: numpy's `nan_to_num`, and the norm in float32, so that a row with a fill value of
    -3.4e38 overflows to an infinite norm and becomes 0. Source: Duev et al. 2019, MNRAS 489, 3582, and the
    scores in ZTF's own packets, which this reproduces.
    """

    def forward(self, triplets: Tensor) -> Tensor:
        x = torch.nan_to_num(triplets)
        return x / _nonzero((x * x).sum(dim=3, keepdim=True).sqrt())


class L2Image(nn.Module):
    """Each stamp divided by its L2 norm: what BRAAI d6_m9 was trained on. Masked pixels as in `L2Row`."""

    def forward(self, triplets: Tensor) -> Tensor:
        x = torch.nan_to_num(triplets)
        return x / _nonzero((x * x).sum(dim=(2, 3), keepdim=True).sqrt())


def _nonzero(norm: Tensor) -> Tensor:
    return torch.where(norm == 0, torch.ones_like(norm), norm)


# By the names that `rbstream model import --normalize` takes.
NORMALIZATIONS: dict[str, type[nn.Module]] = {"l2-row": L2Row, "l2-image": L2Image}
