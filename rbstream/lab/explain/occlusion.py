"""Occlusion maps: how far the score falls when a patch of one stamp is hidden.

Source: Zeiler and Fergus 2014, ECCV, "Visualizing and Understanding Convolutional Networks".
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rbstream.lab.dataset import Stamps
from rbstream.pipeline import Scorer

Fill = Literal["zero", "median"]
FILLS: tuple[Fill, ...] = get_args(Fill)

# As many as replay scores at once, for the same reason: larger batches fall out of the cache (design.md, Speed).
_BATCH = 32

Patch = tuple[slice, slice]


def occlusion(
    scorer: Scorer, stamps: Stamps, kernel: int = 5, stride: int = 1, fill: Fill = "zero"
) -> NDArray[np.float32]:
    """Score before minus score after, float32 (channels, size, size), of one alert's raw stamps of that shape.

    A patch of `kernel` x `kernel` pixels [px] of one channel is filled, the rest stays, and the whole graph,
    normalisation included, scores again. A pixel's value is the mean over all patches that cover it, so that even
    kernels, which have no middle pixel, shift nothing. Patches reach over the border and are cut there: a pixel at
    the border is covered by as many as any other. Positive: what is there speaks for real; negative: for bogus.

    stride: step of the patches [px]; above 1 it is quicker, and the map has steps of as many pixels.
    fill: `zero` [DN]; `median` of each stamp. Pixels without data stay so: there is nothing to hide.
    Raises ValueError for a kernel beyond 1 to size, a stride beyond 1 to kernel; ModelError where the device fails.
    """
    channels, size, _ = stamps.shape
    if not 1 <= kernel <= size or not 1 <= stride <= kernel:
        raise ValueError(f"kernel {kernel} is not in 1 to {size}, or stride {stride} not in 1 to the kernel")
    before = float(scorer.score(stamps[None])[0])
    hidden = _hidden(stamps, fill)
    places = [(channel, patch) for channel in range(channels) for patch in _patches(size, kernel, stride)]
    # The same patches in the same order for pixels that share them: their sums are equal to the last bit.
    lost, covered = np.zeros(stamps.shape), np.zeros(stamps.shape)
    for begin in range(0, len(places), _BATCH):
        part = places[begin : begin + _BATCH]
        batch = np.repeat(stamps[None], len(part), axis=0)
        for stamp, (channel, patch) in zip(batch, part, strict=True):
            stamp[channel][patch] = hidden[channel][patch]
        for (channel, patch), after in zip(part, scorer.score(batch).tolist(), strict=True):
            lost[channel][patch] += before - after
            covered[channel][patch] += 1
    return (lost / covered).astype(np.float32)


def _hidden(stamps: Stamps, fill: Fill) -> Stamps:
    """The stamps with everything hidden."""
    values = np.zeros(len(stamps), np.float32)
    if fill == "median":
        for channel, stamp in enumerate(stamps):
            data = stamp[np.isfinite(stamp)]
            values[channel] = np.median(data) if len(data) else 0
    return np.where(np.isnan(stamps), stamps, values[:, None, None])


def _patches(size: int, kernel: int, stride: int) -> list[Patch]:
    """All patches that touch the stamp, cut at its border."""
    starts = range(1 - kernel, size)
    # What a stride leaves over is shared between both borders: maps of mirrored stamps are mirrored, within a pixel.
    spans = [slice(max(start, 0), start + kernel) for start in starts[(len(starts) - 1) % stride // 2 :: stride]]
    return [(rows, columns) for rows in spans for columns in spans]
