"""Losses by name: logits (N,) and labels (N,) in [0, 1] to a loss for each, (N,)."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

_FOCUS = 2.0  # gamma of the paper


def bce(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy: probabilities come out calibrated, if the data are like the sky's."""
    return binary_cross_entropy_with_logits(logits, labels, reduction="none")


def focal(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy that forgets what is easy (Lin et al. 2017, gamma 2): for rare classes; not calibrated."""
    missed = (labels - torch.sigmoid(logits)).abs()
    return missed**_FOCUS * bce(logits, labels)


def brier(logits: Tensor, labels: Tensor) -> Tensor:
    """Squared error of the probability: bounded, so that wrong labels do less harm."""
    return (torch.sigmoid(logits) - labels) ** 2


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"bce": bce, "focal": focal, "brier": brier}
