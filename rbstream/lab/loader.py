"""Batches for training: which rows in which step, turned about and normalised. All of it follows from the seed."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rbstream.lab.dataset import DataError, DataSet, Stamps
from rbstream.lab.recipe import Recipe

_AHEAD = 3  # batches read while a step is computed: enough to hide a slow one, and little memory


class Batch(NamedTuple):
    """A step's: its number in the whole training, stamps (n, C, side, side), prepared, and labels (n,)."""

    step: int
    stamps: Tensor
    labels: Tensor


class Loader:
    """Reads and prepares a data set's training rows, epoch by epoch, in a thread of its own.

    prepare: from stamps (n, C, size, size) to what the network sees. There, it takes time on another core only.
    """

    def __init__(
        self, data: DataSet, rows: NDArray[np.int64], recipe: Recipe, prepare: Callable[[Tensor], Tensor]
    ) -> None:
        self._data, self._rows, self._recipe, self._prepare = data, rows, recipe, prepare
        self._labels = data.column("label")
        self._channels = len(recipe.channels or data.about.channels)
        self.steps = max(1, self._epoch_rows() // recipe.batch)
        """In an epoch. The rest of the rows, less than a batch, has its turn in another epoch."""

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch (from 0 on), from its step `first` on. Raises DataError."""
        order = self._order(epoch)
        with ThreadPoolExecutor(1, thread_name_prefix="load") as thread:
            waiting: deque[Future[Batch]] = deque()
            for i in range(first, self.steps):
                part = order[i * self._recipe.batch : (i + 1) * self._recipe.batch]
                waiting.append(thread.submit(self._read, epoch * self.steps + i, part))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _epoch_rows(self) -> int:
        if self._recipe.sampling == "as-is":
            return len(self._rows)
        real = int((self._labels[self._rows] >= 0.5).sum())
        return 2 * max(real, len(self._rows) - real)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        rng = np.random.default_rng([self._recipe.seed, epoch])
        if self._recipe.sampling == "as-is":
            return rng.permutation(self._rows)
        each = self._epoch_rows() // 2
        real = self._labels[self._rows] >= 0.5
        classes = [rng.permutation(np.resize(rng.permutation(self._rows[c]), each)) for c in (real, ~real)]
        return rng.permutation(np.concatenate(classes))

    def _read(self, step: int, rows: NDArray[np.int64]) -> Batch:
        stamps = self._data.stamps(rows)
        empty = np.isnan(stamps).all(axis=(1, 2, 3))
        if empty.any():
            raise DataError(f"{self._data.path}: row {rows[empty][0]} has no data in any pixel; leave it out")
        # A stream of its own for each step: one that is resumed needs no generator's state.
        rng = np.random.default_rng([self._recipe.seed, step, 1])
        prepared = self._prepare(torch.from_numpy(turn_about(stamps, self._recipe, rng)))
        noise = torch.Generator(prepared.device).manual_seed(int(rng.integers(2**63)))
        jittered(prepared, self._channels, self._recipe, noise)
        return Batch(step, prepared, torch.from_numpy(self._labels[rows]))


def turn_about(stamps: Stamps, recipe: Recipe, rng: np.random.Generator) -> Stamps:
    """The stamps (n, C, size, size) shifted, mirrored and turned at random, each otherwise; what comes in is NaN."""
    n, size = len(stamps), stamps.shape[-1]
    shifts = rng.integers(-recipe.random_crop, recipe.random_crop + 1, (n, 2))
    # Mirrored and transposed: all eight ways to lay a square.
    mirrored = rng.random((n, 2)) < 0.5
    turned = rng.random(n) < 0.5 * recipe.rotations
    if not recipe.flips:  # of the eight the four turns, which keep left and right; or none
        mirrored[:, 0] &= recipe.rotations
        mirrored[:, 1] = mirrored[:, 0] ^ turned
    result = np.full_like(stamps, np.nan) if recipe.random_crop else np.empty_like(stamps)
    for i in range(n):
        (y, x), image = shifts[i].tolist(), stamps[i]
        if mirrored[i, 0]:
            image = image[:, ::-1]
        if mirrored[i, 1]:
            image = image[:, :, ::-1]
        if turned[i]:
            image = image.transpose(0, 2, 1)
        result[i, :, max(y, 0) : size + min(y, 0), max(x, 0) : size + min(x, 0)] = image[
            :, max(-y, 0) : size - max(y, 0), max(-x, 0) : size - max(x, 0)
        ]
    return result


@torch.no_grad()
def jittered(normalized: Tensor, channels: int, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """The first `channels` of normalised stamps (n, C, side, side), in place, with another exposure's noise and another
    estimate of it. What is 0, as masked pixels are, gets no noise."""
    image = normalized[:, :channels]

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=image.device)

    if recipe.jitter_scale:
        image *= torch.exp(recipe.jitter_scale * normal(*image.shape[:2], 1, 1))
    if recipe.jitter_noise:
        sigma = recipe.jitter_noise * torch.rand(len(image), 1, 1, 1, generator=generator, device=image.device)
        image += torch.where(image == 0, 0.0, sigma * normal(*image.shape))
    return normalized
