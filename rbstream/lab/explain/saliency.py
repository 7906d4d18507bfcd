"""Gradient saliency: how much the logit would change for a little more light in a pixel.

Source: Simonyan, Vedaldi and Zisserman 2014, ICLR workshop, "Deep Inside Convolutional Networks".
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from rbstream.lab.dataset import Stamps
from rbstream.model.bundle import load_module, torch_device
from rbstream.model.manifest import Bundle
from rbstream.report.stamps import FILL


class Saliency:
    """A bundle's gradients on a device. Raises ModelError for a bundle that torch can't load."""

    def __init__(self, bundle: Bundle, device: str) -> None:
        self._device = torch_device(device)
        self._module = load_module(bundle, self._device)  # not frozen: freezing drops the way back
        for weight in self._module.parameters():
            weight.requires_grad_(False)

    def __call__(self, stamps: Stamps) -> NDArray[np.float32]:
        """|d logit / d pixel| [1/DN], float32 (channels, size, size), of one alert's raw stamps of that shape.

        Of the logit, not the score, whose slope vanishes where the network is sure. Through the whole graph: that a
        pixel moves its stamp's norm or median is part of it. 0 where there is no data, NaN where the graph has no
        slope (the norm of a row of zeros).
        """
        pixels = torch.from_numpy(stamps[None]).to(self._device).requires_grad_()
        normalized = self._module.normalize(pixels)
        (gradient,) = torch.autograd.grad(self._module.network(normalized).sum(), pixels)
        slope = np.abs(gradient[0].cpu().numpy())
        slope[~np.isfinite(slope)] = np.nan
        return np.where(np.abs(stamps) < FILL, slope, np.float32(0))
