"""Golden triplets: inputs whose scores tell whether a device computes what the bundle's author computed."""

import numpy as np
from numpy.typing import NDArray

from rbstream.model.manifest import Manifest

# Enough to see a wrong channel order, normalisation or precision; 8 x 47 kB stay small beside any weights.
ALERTS = 8
SEED = 20180601  # first public ZTF alerts; any fixed seed would do
# What ZTF's stamps look like, measured on 3,700 real triplets: sky level and noise of each channel [ADU].
SKY = np.array([128.0, 100.0, 0.0])
NOISE = np.array([7.1, 1.6, 5.9])
FWHM_PIXELS = 2.2
FILL = np.float32(-3.4e38)  # seen in real stamps; overflows a float32 norm


def golden_triplets(manifest: Manifest) -> NDArray[np.float32]:
    """float32 (8, channels, size, size): point sources from invisible to saturated on noise.

    Four are damaged the way real stamps are: NaN pixels, cut short, a fill value, all masked.
    """
    random = np.random.default_rng(SEED)
    channels, size, _ = manifest.shape
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    sigma = FWHM_PIXELS / 2.3548
    source = np.exp(-(x**2 + y**2) / (2 * sigma**2))
    sky = np.resize(SKY, channels)[None, :, None, None]
    noise = np.resize(NOISE, channels)[None, :, None, None]
    triplets = sky + noise * random.standard_normal((ALERTS, channels, size, size))
    peaks = np.geomspace(1, 3000, ALERTS)[:, None, None]
    triplets[:, 0] += peaks * source
    triplets[:, -1] += peaks * source
    triplets[4, :, : size // 8] = np.nan
    triplets[5, :, :, size - size // 3 :] = np.nan
    triplets[6, 0, 1, 2] = FILL
    triplets[7] = np.nan
    return triplets.astype(np.float32)
