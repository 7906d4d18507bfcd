"""What every kind of event draws from: a place, a significance, the flux that has it, a sign."""

from __future__ import annotations

import numpy as np

from .optics import GRID, SIGMA_PER_FWHM, Array, Rng, light_in_middle
from .scene import GAIN, Scene

X, Y = GRID[None, None, :], GRID[None, :, None]
_MATCH = 0.01  # of the light: what a good subtraction leaves of a star, from shift, width, scale and roughness


def somewhere(rng: Rng, scene: Scene, reach: float = 0.5) -> tuple[Array, Array]:
    """A place within `reach` px of the middle."""
    shape = (len(scene.sky),)
    return rng.uniform(-reach, reach, shape).astype(np.float32), rng.uniform(-reach, reach, shape).astype(np.float32)


def snr(rng: Rng, scene: Scene) -> Array:
    """Significances of 7 to 350 (5 to 95%), 23 at the median, which gives ZTF's magpsf of 14 to 20.5.

    They begin at the 5 sigma of the detection. In ideal noise ZTF's faintest candidates have 8 to 14; a network that
    has never seen fainter ones takes cosmic rays of 6 sigma for stars.
    """
    return np.asarray(5 * np.exp(rng.gamma(2.0, 0.9, len(scene.sky))), np.float32)


def psf_flux(scene: Scene, snr: Array) -> Array:
    """DN of a point source in the middle that a matched filter sees at a significance, whatever it lies on.

    Were it less on bright hosts, few of them would be detected, and the hosts would tell the kinds apart.
    """
    light = light_in_middle(scene.psf, scene.steady)
    host = np.sqrt(light / GAIN + (_MATCH * light) ** 2)
    return np.asarray(background_flux(scene, snr) * np.hypot(1, host / scene.noise), np.float32)


def background_flux(scene: Scene, snr: Array) -> Array:
    """The same on empty sky."""
    sigma = scene.fwhm * SIGMA_PER_FWHM
    return np.asarray(snr * scene.noise * sigma * np.sqrt(4 * np.pi), np.float32)


def either(rng: Rng, scenes: int, negative: float) -> Array:
    """A sign for each scene, negative with this probability."""
    return np.where(rng.random(scenes) < negative, -1, 1).astype(np.float32)
