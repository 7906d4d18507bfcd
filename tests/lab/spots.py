"""A small data set whose answer is known."""

from pathlib import Path

import numpy as np

from rbstream.lab.dataset import DataSet, DataWriter


def write_spots(
    path: Path, rows: int = 400, size: int = 21, channels: tuple[str, ...] = ("difference",), seed: int = 7
) -> DataSet:
    """Noise, and in every other stamp a spot of 10 sigma in the middle of the last channel: real."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] - size // 2
    stamps = rng.standard_normal((rows, len(channels), size, size)).astype(np.float32)
    label = np.arange(rows) % 2
    stamps[label == 1, -1] += 10 * np.exp(-(x**2 + y**2) / 2).astype(np.float32)
    with DataWriter(path, channels, size, "ztf", {"what": "spots"}) as writer:
        writer.add(stamps, label=label, label_source="by hand", kind=np.where(label == 1, "spot", "noise"))
        return writer.commit()
