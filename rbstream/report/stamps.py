"""A triplet as a picture: each stamp stretched for the eye, side by side in one small PNG with a palette."""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

LEVELS = 254
"""Of brightness; the palette's last two entries are no data and the gap."""
NO_DATA, GAP = LEVELS, LEVELS + 1

GAP_WIDTH = 2
"""Pixels between two stamps."""

NO_DATA_COLOUR = (116, 62, 122)
"""A violet that no level of brightness has."""

INK = ((0.0, (6, 8, 18)), (0.45, (92, 104, 128)), (0.8, (205, 210, 214)), (1.0, (255, 252, 244)))
"""Brightness and its colour: grey, cool in the shadows and warm in the lights."""

FILL = 1e30
"""Surveys fill what they lack with -3.4e38; no detector counts to 1e30."""


def triplet_png(triplet: NDArray[np.float32]) -> bytes:
    """A PNG of `triplet` (channels, h, w): science, template, difference left to right, first row at the bottom."""
    channels, height, width = triplet.shape
    levels = np.full((height, channels * (width + GAP_WIDTH) - GAP_WIDTH), GAP, np.uint8)
    for index, stamp in enumerate(triplet):
        left = index * (width + GAP_WIDTH)
        levels[:, left : left + width] = stretch(stamp)[::-1]
    return _png(levels)


def stretch(stamp: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Levels of brightness of `stamp` (h, w), `NO_DATA` where it is not finite or a fill value.

    asinh of the distance from the median in units of the noise: the noise stays visible beside a bright star,
    and the negative lobe of a dipole beside the positive one.
    """
    missing = ~(np.abs(stamp) < FILL)
    levels = np.full(stamp.shape, NO_DATA, np.uint8)
    if missing.all():
        return levels
    values = stamp[~missing].astype(np.float64)
    middle = np.median(values)
    # Most pixels of a padded stamp may be equal: then the mean deviation stands in for the median.
    deviation = np.abs(values - middle)
    sigma = 1.4826 * np.median(deviation) or np.mean(deviation) or 1.0
    soft = np.arcsinh((values - middle) / (2 * sigma))
    # Noise alone must not fill the range: at least -3 to 16 sigma. Beyond, half a per cent may saturate.
    low = min(np.percentile(soft, 0.5), np.arcsinh(-1.5))
    high = max(np.percentile(soft, 99.5), np.arcsinh(8))
    levels[~missing] = np.clip((soft - low) / (high - low) * (LEVELS - 1), 0, LEVELS - 1).astype(np.uint8)
    return levels


def _palette() -> bytes:
    at, stops = np.linspace(0, 1, LEVELS), [stop for stop, _ in INK]
    ramp = np.stack([np.interp(at, stops, [colour[channel] for _, colour in INK]) for channel in range(3)], 1)
    return ramp.round().astype(np.uint8).tobytes() + bytes(NO_DATA_COLOUR) + bytes(3)


def _png(levels: NDArray[np.uint8]) -> bytes:
    height, width = levels.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), levels], axis=1)  # each row led by filter type 0
    transparency = bytes([255] * GAP + [0])
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (
            (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),  # 8 bits, palette
            (b"PLTE", _palette()),
            (b"tRNS", transparency),
            (b"IDAT", zlib.compress(rows.tobytes(), 9)),
            (b"IEND", b""),
        )
    )
