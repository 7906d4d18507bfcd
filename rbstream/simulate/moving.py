"""Coadded stamps of a shift-and-stack search: faint moving sources, and the noise that looks like one.

Many exposures are shifted along a trial motion and added (Bernstein et al. 2004, AJ 128, 1364; Whidden et al. 2019,
AJ 157, 119): a source that moves so becomes a point, slightly trailed where the motion is not quite the trial's. As
in the course that this follows, what is no source is noise alone; what else a real search finds (hot pixels, cosmic
rays of one exposure, residuals of stars) is not in here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .optics import Array, Rng

Floats = NDArray[np.floating[Any]]

SIZE = 21  # px: the course's
SNR = (3.0, 100.0)  # the issue's: from what no search can claim to what nobody can miss
FWHM = (2.5, 5.0)  # px: 0.7 to 1.3 arcsec at DECam's 0.26 arcsec/px
BETA = 3.5  # of the Moffat profile: ZTF's wings, between a Gaussian's and the 2.5 of a site with bad seeing
TRAIL = 3.0  # px: half a step of a velocity grid, times the nights' span; longer ones belong to the next trial
CENTRE = 0.5  # px: standard deviation of the found place around the true one; the grid's step is a pixel
NOISE = (1.0, 10.0)  # DN: another depth each; what is normalised must not care
CORRELATED = 0.5  # share of the stamps whose exposures were resampled onto one grid, which correlates neighbours
SMOOTHING = (0.4, 0.7)  # px: sigma of what resampling does; neighbours then correlate by 0.2 to 0.6
BATCH = 256  # stamps at once: 50 MB while they are rendered

_SUBPIXELS = 3  # a side: the profile changes little over a third of a pixel
_STEPS = 7  # points along a trail: closer than the narrowest PSF's sigma


@dataclass(frozen=True)
class Stacks:
    """N stamps, float32 (N,1,21,21) in DN around a sky of 0, and their truth, each (N,).

    snr: of a matched filter in white noise of the same sigma; fwhm [px]. Both NaN where there is no source.
    """

    stamps: Array
    real: NDArray[np.bool_]
    snr: Array
    fwhm: Array


def stacks(n: int, seed: int) -> Iterator[Stacks]:
    """The same N stamps for the same seed, in batches, every other one a source; a longer run begins with a shorter."""
    for batch, begin in enumerate(range(0, n, BATCH)):
        whole = _batch(np.random.default_rng([seed, batch]))
        yield Stacks(*(values[: n - begin] for values in vars(whole).values()))


def _batch(rng: Rng) -> Stacks:
    real = np.arange(BATCH) % 2 == 0
    sigma = _log_uniform(rng, NOISE)
    fwhm, snr = rng.uniform(*FWHM, BATCH), _log_uniform(rng, SNR)
    light = point_or_trail(
        rng.normal(0, CENTRE, BATCH), rng.normal(0, CENTRE, BATCH), fwhm,
        rng.uniform(0, TRAIL, BATCH), rng.uniform(0, np.pi, BATCH),
    )  # fmt: skip
    flux = snr * sigma / np.sqrt((light**2).sum(axis=(1, 2)))
    stamps = _noise(rng) * sigma[:, None, None] + light * (flux * real)[:, None, None]
    unknown = np.where(real, 1.0, np.nan)
    truth = (np.asarray(values * unknown, np.float32) for values in (snr, fwhm))
    return Stacks(np.asarray(stamps[:, None], np.float32), real, *truth)


def point_or_trail(x: Floats, y: Floats, fwhm: Floats, length: Floats, angle: Floats) -> Floats:
    """Unit flux through a Moffat PSF, smeared along a line; (n, 21, 21), axis 1 is y, integrated over pixels.

    x, y: of its middle, from the stamp's [px]; fwhm, length [px]; angle from x to y [rad]; each (n,).
    """
    n = len(x)
    core = fwhm / (2 * np.sqrt(2 ** (1 / BETA) - 1))
    fine = (np.arange(SIZE * _SUBPIXELS) + 0.5) / _SUBPIXELS - SIZE / 2
    image = np.zeros((n, len(fine), len(fine)))
    for along in np.linspace(-0.5, 0.5, _STEPS):
        dx = (fine - (x + along * length * np.cos(angle))[:, None]) / core[:, None]
        dy = (fine - (y + along * length * np.sin(angle))[:, None]) / core[:, None]
        image += (1 + dx[:, None, :] ** 2 + dy[:, :, None] ** 2) ** -BETA
    image *= ((BETA - 1) / (np.pi * core**2) / _STEPS)[:, None, None]
    blocks = image.reshape(n, SIZE, _SUBPIXELS, SIZE, _SUBPIXELS)
    pixels: Floats = blocks.mean(axis=(2, 4))
    return pixels


def _noise(rng: Rng) -> Floats:
    """(BATCH, 21, 21) of unit sigma, white or with correlated neighbours."""
    noise = rng.standard_normal((BATCH, SIZE, SIZE))
    width = rng.uniform(*SMOOTHING, BATCH) * (rng.random(BATCH) < CORRELATED)
    # By Fourier the stamp goes round: a pixel at the border has as many neighbours as any, and the same sigma.
    squared = np.fft.fftfreq(SIZE)[:, None] ** 2 + np.fft.rfftfreq(SIZE) ** 2
    smoothed = np.fft.rfft2(noise) * np.exp(-2 * np.pi**2 * squared * width[:, None, None] ** 2)
    frequencies = np.fft.fftfreq(SIZE)[:, None] ** 2 + np.fft.fftfreq(SIZE) ** 2
    kept = np.exp(-4 * np.pi**2 * frequencies * width[:, None, None] ** 2).mean(axis=(1, 2))
    result: Floats = np.fft.irfft2(smoothed, (SIZE, SIZE)) / np.sqrt(kept)[:, None, None]
    return result


def _log_uniform(rng: Rng, ends: tuple[float, float]) -> Floats:
    drawn: Floats = np.exp(rng.uniform(np.log(ends[0]), np.log(ends[1]), BATCH))
    return drawn
