"""Point-spread functions as sums of Gaussians, and the images of many sources through them.

A Gaussian along the pixel axes is a product of a row and a column, so a whole field of stars is one
matrix product for each Gaussian: fifty times cheaper than evaluating a Moffat at every pixel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Rng = np.random.Generator

MARGIN = 4  # px around the stamp: the room for moving the stamp onto what the detector finds
CANVAS = 63 + 2 * MARGIN
CENTRE = CANVAS // 2
GRID: Array = np.arange(CANVAS, dtype=np.float32) - CENTRE
SIGMA_PER_FWHM = 1 / 2.3548  # of a Gaussian
PIXEL_VARIANCE = 1 / 12  # px^2: integrating over a square pixel adds its variance to a Gaussian's

# A Moffat profile of beta 3.5, ZTF's, as three Gaussians (weights, widths in units of FWHM/2.35); the
# core is two lobes so that a PSF can lean. Then what a bright star shows along rows and columns (the
# spiders of the telescope and the bleeding towards the readout), stronger along the rows in ZTF's stamps.
_WEIGHT = np.array([0.36, 0.36, 0.22, 0.05, 0.007, 0.003], np.float32)
_WIDTH = np.array([0.87, 0.87, 1.55, 3.8, 0, 0], np.float32)
_SPIKE_LENGTH, _SPIKE_WIDTH = 9.0, 0.8  # px: how far the wings reach in the montage of real stamps


@dataclass(frozen=True)
class Psf:
    """For each of B scenes K Gaussians: weights, offsets and standard deviations in pixels, each (B,K)."""

    weight: Array
    dx: Array
    dy: Array
    sx: Array
    sy: Array


@dataclass(frozen=True)
class Sources:
    """For each of B scenes S round sources: centre and own size (sigma) in px, flux in DN, each (B,S)."""

    x: Array
    y: Array
    flux: Array
    size: Array

    def __add__(self, other: Sources) -> Sources:
        pairs = ((getattr(self, name), getattr(other, name)) for name in ("x", "y", "flux", "size"))
        return Sources(*(np.concatenate(pair, axis=1) for pair in pairs))


def no_sources(scenes: int, places: int = 0) -> Sources:
    """Nothing in each of the scenes, with places for sources."""
    return Sources(*(np.zeros((scenes, places), np.float32) for _ in range(4)))


def star_psf(rng: Rng, fwhm: Array) -> Psf:
    """A ZTF-like star for each FWHM (B,) in px: a leaning core, wings, faint spikes."""
    scenes = len(fwhm)
    sigma = fwhm[:, None] * SIGMA_PER_FWHM
    # 0.12: half the core's split in sigmas; gives elongations of 1.0 to 1.2, as the field `elong` has.
    lean = rng.normal(0, 0.12, (scenes, 1)) * sigma
    angle = rng.uniform(0, np.pi, (scenes, 1))
    sign = np.array([1, -1, 0, 0, 0, 0])
    stretch = 1 + rng.normal(0, 0.03, (scenes, 1))
    sx, sy = sigma * _WIDTH * stretch, sigma * _WIDTH / stretch
    sx[:, 4], sy[:, 4] = _SPIKE_LENGTH, _SPIKE_WIDTH
    sx[:, 5], sy[:, 5] = _SPIKE_WIDTH, _SPIKE_LENGTH
    weight = np.broadcast_to(_WEIGHT, (scenes, len(_WEIGHT)))
    columns = (weight, lean * np.cos(angle) * sign, lean * np.sin(angle) * sign, sx, sy)
    return Psf(*(np.ascontiguousarray(column, np.float32) for column in columns))


def pixel_psf(diffusion: Array) -> Psf:
    """What lands in the detector itself: no optics, only charge diffusion (sigma (B,) in px)."""
    one, zero = np.ones((len(diffusion), 1), np.float32), np.zeros((len(diffusion), 1), np.float32)
    # Below 0.2 px a Gaussian misses the pixel's centre and its flux; 0.2 px plus the pixel is one pixel.
    width = np.maximum(diffusion, 0.2).astype(np.float32)[:, None]
    return Psf(one, zero, zero, width, width)


def changed(psf: Psf, width: Array, shift_x: Array, shift_y: Array) -> Psf:
    """The PSF with its core `width` times as wide and moved by a shift in px, each (B,)."""
    core = np.where(_WIDTH > 0, width[:, None], 1).astype(np.float32)
    return replace(psf, sx=psf.sx * core, sy=psf.sy * core, dx=psf.dx + shift_x[:, None], dy=psf.dy + shift_y[:, None])


def misjudged(rng: Rng, psf: Psf, error: Array) -> Psf:
    """The PSF with each of its Gaussians moved and widened by about `error` (B,) of its width: what a match believes
    that doesn't know a star's colour or the detector's bias. What is left of the star has lobes of both signs."""
    shape = psf.weight.shape
    move_x, move_y, wide_x, wide_y = error[:, None] * rng.standard_normal((4, *shape), np.float32)
    return replace(
        psf,
        dx=psf.dx + psf.sx * move_x,
        dy=psf.dy + psf.sy * move_y,
        sx=psf.sx * np.exp(wide_x),
        sy=psf.sy * np.exp(wide_y),
    )


def render(psf: Psf, sources: Sources) -> Array:
    """The (B,CANVAS,CANVAS) image in DN of the sources through the PSF; axis 1 is y, axis 2 is x."""
    image: Array = np.zeros((len(sources.x), CANVAS, CANVAS), np.float32)
    if sources.x.shape[1] == 0:
        return image
    own = sources.size**2 + np.float32(PIXEL_VARIANCE)
    for k in range(psf.weight.shape[1]):
        column = _profile(sources.x + psf.dx[:, k, None], own + psf.sx[:, k, None] ** 2)
        row = _profile(sources.y + psf.dy[:, k, None], own + psf.sy[:, k, None] ** 2)
        row *= (sources.flux * psf.weight[:, k, None])[:, :, None]
        image += row.transpose(0, 2, 1) @ column
    return image


def light_in_middle(psf: Psf, sources: Sources) -> Array:
    """DN of the pixel in the middle (B,) of what `render` makes."""
    light: Array = np.zeros(len(sources.x), np.float32)
    own = sources.size**2 + np.float32(PIXEL_VARIANCE)
    for k in range(psf.weight.shape[1]):
        sx, sy = own + psf.sx[:, k, None] ** 2, own + psf.sy[:, k, None] ** 2
        square = (sources.x + psf.dx[:, k, None]) ** 2 / sx + (sources.y + psf.dy[:, k, None]) ** 2 / sy
        part = sources.flux * np.exp(-0.5 * square) / np.sqrt(sx * sy)
        light += psf.weight[:, k] * part.sum(axis=1) / np.float32(2 * np.pi)
    return light


def _profile(centre: Array, variance: Array) -> Array:
    """(B,S,CANVAS) Gaussians of unit sum."""
    distance = GRID - centre[:, :, None]
    distance *= distance
    distance *= (-0.5 / variance)[:, :, None]
    np.exp(distance, out=distance)
    distance *= (1 / np.sqrt(2 * np.pi * variance))[:, :, None]
    return distance
