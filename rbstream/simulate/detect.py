"""Subtraction and detection: what the survey's pipeline makes of a scene, and whether it raises an alert."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .optics import CENTRE, MARGIN, SIGMA_PER_FWHM, Array, Rng, changed, render
from .scene import GAIN, REFERENCE_LIMIT, Scene, flux_of, magnitude_of

DETECTION = 5.0  # sigma: ZTF's threshold on the matched-filtered difference
SIZE = 63  # px of a stamp
# What a single pixel of the science image becomes in the difference, measured on real triplets: itself
# times 0.82, its four neighbours 0.05, the next along the axes -0.04. The diagonals make the sum 1. Sharper
# subtractions, with a bright pixel's 0.95, are among them: up to so much of it is left out, at random.
_SHARPEST = 0.7
_TRANSFER = {(0, 0): 0.82, (1, 0): 0.05, (2, 0): -0.04, (1, 1): 0.035}
_REFERENCE_NEIGHBOUR = 0.15  # a [0.15, 1, 0.15] smoothing correlates neighbours by 0.29, as in references
_FILTER = 4  # px: half the width of the matched filter, beyond which a PSF of 3.4 px FWHM has nothing left
_NO_SOURCE = 40.0  # px: farther than a stamp's corner, where nothing is catalogued in it
_FRAMES = 15.0  # exposures in a reference: their photon noise is lower by this much


@dataclass(frozen=True)
class Detection:
    """B candidates. Stamps are (B,3,63,63) float32 in DN, the rest (B,)."""

    stamps: Array  # science, template, difference; NaN where masked; negative differences sign-flipped
    snr: Array  # of the matched-filtered difference, positive
    flux: Array  # PSF flux in DN, positive
    positive: np.ndarray  # bool: science brighter than reference
    x: np.ndarray  # int px from the scene's middle, where the stamp is centred
    y: np.ndarray
    noise: Array  # sigma of a pixel of the difference
    fwhm: Array  # px, of the science image's stars
    distnr: Array  # px to the nearest source of the reference
    magnr: Array  # its magnitude


def observe(rng: Rng, scene: Scene) -> Detection:
    """Expose, subtract and detect; the caller keeps what has `snr >= DETECTION`."""
    light = shine(rng, scene)
    grain = _noise(rng, light.science, scene.noise, 1.0)
    deep = _correlated(_noise(rng, light.template, scene.reference_noise, 1 / _FRAMES))
    sky = scene.sky[:, None, None]
    difference = transfer(rng, light.science + grain - light.matched - deep)
    stack = np.stack([light.science + grain + sky, light.template + deep + sky, difference], axis=1)
    return detect(scene, stack, light.matched)


@dataclass(frozen=True)
class Light:
    """What arrives from a scene without sky and noise, each (B,CANVAS,CANVAS) in DN."""

    science: Array
    template: Array
    matched: Array  # the reference as seen through the science image's PSF, with the errors of the match


def shine(rng: Rng, scene: Scene) -> Light:
    """The scene through its two PSFs."""
    psf = changed(scene.matched_psf, scene.width_error, scene.shift_x, scene.shift_y)
    steady = scene.steady
    matched = render(psf, steady) * scene.scale_error[:, None, None]
    rough = _correlated(rng.standard_normal(matched.shape, np.float32)) * scene.roughness[:, None, None]
    return Light(
        science=render(scene.psf, steady + scene.new) + scene.science,
        template=render(scene.reference_psf, steady) + scene.reference,
        matched=matched * (1 + rough) + scene.reference,
    )


def detect(scene: Scene, stack: Array, matched: Array) -> Detection:
    """Centre each stamp on the most significant peak near the middle of its scene.

    stack: science, template, difference as (B,3,CANVAS,CANVAS) in DN; the scene's masked pixels become NaN.
    """
    stack[np.broadcast_to(scene.masked[:, None], stack.shape)] = np.nan
    background = np.asarray(scene.noise**2 + scene.reference_noise**2, np.float32)[:, None, None]
    variance = np.asarray(background + np.maximum(matched, 0) / np.float32(GAIN), np.float32)
    flux, error = _matched_filter(stack[:, 2], variance, scene.fwhm)
    significance = np.abs(flux) / error
    scenes, width = len(flux), flux.shape[1]
    rows = np.arange(scenes)
    peak = significance.reshape(scenes, -1).argmax(axis=1)
    y, x = np.divmod(peak, width)
    best = flux[rows, y, x]
    stamps: Array = np.empty((scenes, 3, SIZE, SIZE), np.float32)
    for i in range(scenes):
        stamps[i] = stack[i, :, y[i] : y[i] + SIZE, x[i] : x[i] + SIZE]
    stamps[best < 0, 2] *= -1
    distance, magnitude = _nearest(scene, x - MARGIN, y - MARGIN)
    return Detection(
        stamps=stamps,
        snr=np.asarray(significance[rows, y, x], np.float32),
        flux=np.abs(best),
        positive=best > 0,
        x=x - MARGIN,
        y=y - MARGIN,
        noise=np.sqrt(scene.noise**2 + scene.reference_noise**2),
        fwhm=scene.fwhm,
        distnr=distance,
        magnr=magnitude,
    )


def _nearest(scene: Scene, x: np.ndarray, y: np.ndarray) -> tuple[Array, Array]:
    """Distance in px and magnitude of the source of the reference that is nearest to x, y, each (B,)."""
    rows, faintest = np.arange(len(x)), flux_of(np.float32(REFERENCE_LIMIT))
    steady = scene.steady
    distance = np.hypot(steady.x - x[:, None], steady.y - y[:, None])
    distance = np.where(steady.flux > faintest, distance, np.float32(_NO_SOURCE))
    nearest = distance.argmin(axis=1)
    flux = np.maximum(steady.flux[rows, nearest], faintest)
    return distance[rows, nearest], magnitude_of(flux)


def _matched_filter(difference: Array, variance: Array, fwhm: Array) -> tuple[Array, Array]:
    """PSF flux and its error in DN at each pixel within MARGIN of the middle, (B,9,9) each."""
    reach = MARGIN + _FILTER
    near = slice(CENTRE - reach, CENTRE + reach + 1)
    image, variance = np.nan_to_num(difference[:, near, near]), variance[:, near, near]
    offset = np.arange(-reach, reach + 1) - np.arange(-MARGIN, MARGIN + 1)[:, None]
    sigma = (fwhm * SIGMA_PER_FWHM)[:, None, None]
    profile = np.exp(-0.5 * (offset / sigma) ** 2) * (np.abs(offset) <= _FILTER)
    profile = np.asarray(profile / profile.sum(axis=2, keepdims=True), np.float32)
    norm = (profile**2).sum(axis=2)
    norm = norm[:, :, None] * norm[:, None, :]
    flux = profile @ image @ profile.transpose(0, 2, 1) / norm
    error = np.sqrt(profile**2 @ variance @ (profile**2).transpose(0, 2, 1)) / norm
    return flux, error


def _noise(rng: Rng, image: Array, sigma: Array, photons: float) -> Array:
    """Gaussian noise of the background and of the sources' photons."""
    grain = rng.standard_normal(image.shape, np.float32)
    grain *= np.sqrt(sigma[:, None, None] ** 2 + np.maximum(image, 0) * np.float32(photons / GAIN))
    return grain


def _correlated(noise: Array) -> Array:
    """The same sigma with neighbours correlated, as resampling and stacking leave it."""
    a = np.float32(_REFERENCE_NEIGHBOUR)
    for axis in (1, 2):
        noise = noise + a * (np.roll(noise, 1, axis) + np.roll(noise, -1, axis))
    return np.asarray(noise / (1 + 2 * a * a), np.float32)


def transfer(rng: Rng, difference: Array) -> Array:
    """Pass what was subtracted (B,CANVAS,CANVAS) through the subtraction's response to a single pixel, each its own."""
    blurred = _blurred(difference)
    sharp = rng.uniform(0, _SHARPEST, (len(difference), 1, 1)).astype(np.float32)
    return np.asarray(blurred + sharp * (difference - blurred), np.float32)


def _blurred(difference: Array) -> Array:
    result = difference * np.float32(_TRANSFER[0, 0])
    along = np.roll(difference, 1, 1) + np.roll(difference, -1, 1)
    across = np.roll(difference, 1, 2) + np.roll(difference, -1, 2)
    result += np.float32(_TRANSFER[1, 0]) * (along + across)
    result += np.float32(_TRANSFER[1, 1]) * (np.roll(along, 1, 2) + np.roll(along, -1, 2))
    far = np.roll(difference, 2, 1) + np.roll(difference, -2, 1)
    far += np.roll(difference, 2, 2) + np.roll(difference, -2, 2)
    result += np.float32(_TRANSFER[2, 0]) * far
    return result
