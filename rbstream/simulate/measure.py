"""What a candidate says of its detection, measured on the difference stamp."""

from __future__ import annotations

import numpy as np

from .detect import SIZE, Detection
from .optics import SIGMA_PER_FWHM, Array
from .scene import magnitude_of

_OFFSET = np.arange(SIZE) - SIZE // 2
_RADIUS = np.hypot(_OFFSET[:, None], _OFFSET[None, :])
_FLUX_ERROR_MAG = 1.0857  # 2.5 / ln 10: a relative error of a flux as one in magnitudes
_FLOOR = 0.004  # mag: the error of ZTF's brightest candidates, the calibration's


def measure(found: Detection) -> dict[str, Array]:
    """Fields of the candidates by name, each (N,) float32 in the units of the alert schema."""
    difference = np.nan_to_num(found.stamps[:, 2])
    middle = slice(SIZE // 2 - 2, SIZE // 2 + 3)
    core = difference[:, middle, middle]
    peak = np.maximum(difference[:, SIZE // 2, SIZE // 2], found.noise)
    magpsf = magnitude_of(found.flux)
    magap, sigmagap = _aperture(difference, found, 7)
    magapbig, sigmagapbig = _aperture(difference, found, 9)
    major, minor = _moments(core)
    # The width of a Gaussian with this flux and this peak.
    fwhm = np.clip(np.sqrt(found.flux / (2 * np.pi * peak)) / SIGMA_PER_FWHM, 0.9, 9)
    model = np.exp(-0.5 * (_RADIUS[middle, middle] / (found.fwhm * SIGMA_PER_FWHM)[:, None, None]) ** 2)
    model *= (found.flux / model.sum(axis=(1, 2)))[:, None, None]
    fields = {
        "magpsf": magpsf,
        "sigmapsf": np.hypot(_FLUX_ERROR_MAG / found.snr, _FLOOR),
        "chipsf": (((core - model) / found.noise[:, None, None]) ** 2).mean(axis=(1, 2)),
        "magap": magap,
        "sigmagap": sigmagap,
        "magapbig": magapbig,
        "sigmagapbig": sigmagapbig,
        "magdiff": magap - magpsf,
        "sky": np.median(difference[:, _RADIUS > 12], axis=1),
        "fwhm": fwhm,
        "seeratio": np.minimum(fwhm / found.fwhm, 2),  # ZTF's never says more than 2
        "aimage": major,
        "bimage": minor,
        "aimagerat": major / fwhm,
        "bimagerat": minor / fwhm,
        "elong": major / minor,
        "nneg": (core < 0).sum(axis=(1, 2)),
        "sumrat": core.sum(axis=(1, 2)) / np.maximum(np.abs(core).sum(axis=(1, 2)), 1e-3),
        "scorr": found.snr,
        "dsnrms": peak / found.noise,
        "ssnrms": found.snr,
        "dsdiff": peak / found.noise - found.snr,
        "distnr": found.distnr,
        "magnr": found.magnr,
    }
    return {name: np.asarray(values, np.float32) for name, values in fields.items()}


def _aperture(difference: Array, found: Detection, radius: float) -> tuple[Array, Array]:
    """Magnitude and its error within a radius in px; a sum lost in the noise counts as one sigma."""
    inside = radius >= _RADIUS
    error = found.noise * np.sqrt(inside.sum())
    flux = np.maximum(difference[:, inside].sum(axis=1), error)
    return magnitude_of(flux), _FLUX_ERROR_MAG * error / flux


def _moments(core: Array) -> tuple[Array, Array]:
    """Rms along the major and minor axes in px of the positive light in (N,5,5)."""
    weight = np.maximum(core, 0) + 1e-3
    weight /= weight.sum(axis=(1, 2), keepdims=True)
    offset = np.arange(5) - 2.0
    x, y = (weight * offset).sum(axis=(1, 2)), (weight * offset[:, None]).sum(axis=(1, 2))
    xx = (weight * offset**2).sum(axis=(1, 2)) - x * x
    yy = (weight * offset[:, None] ** 2).sum(axis=(1, 2)) - y * y
    xy = (weight * offset * offset[:, None]).sum(axis=(1, 2)) - x * y
    half, split = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    # 0.09 px^2: nothing is smaller than a pixel.
    return np.sqrt(np.maximum(half + split, 0.09)), np.sqrt(np.maximum(half - split, 0.09))
