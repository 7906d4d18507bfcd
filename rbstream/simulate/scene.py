"""What the telescope looks at: a sky, stars, galaxies and the two PSFs, for a batch of scenes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .optics import CANVAS, Array, Psf, Rng, Sources, no_sources, star_psf

ZEROPOINT = 26.1  # mag of 1 DN: the median `magzpsci` of ZTF's packets
GAIN = 6.2  # e-/DN of ZTF's amplifiers, from the noise of real stamps
REFERENCE_LIMIT = 22.5  # mag, where a reference of 15 to 40 exposures stops showing stars
MAX_STARS = 64  # a scene's most: the PS1 sources within 30" in ZTF's packets are 1 to 170, 7 at the median
MAX_HOST = 7  # sources of which a host is made: six are a galaxy, and it may have a nucleus
# Share of the scenes in which more stars lie beside the event, whatever it is, and how many at most. Wrong flux
# scales are told by bright ones: a network that had seen them there alone missed a tenth of the reals beside eight.
_CROWDED, _NEIGHBOURS = 0.25, 10
# Share of those that are close, and their scatter in px: a network that had seen few blends missed 5 to 7% of the
# variables that had another star within 4 px, and 6 to 8% of those in a group.
_CLOSE, _SCATTER = 0.4, 4.0
_BLENDED, _BESIDE = 0.15, 3  # share of the stars that are within so many px of another: pairs and chance
REACH = 6  # px outside the canvas from where a star's wings still matter


@dataclass
class Scene:
    """B scenes, as the truth behind three stamps.

    Fluxes in DN, lengths in px, coordinates from the middle of the canvas. `science` and `reference` are
    extra light in just one of the two images, behind the optics, as (B,CANVAS,CANVAS) images; `masked`
    are pixels without data in all three stamps.
    """

    stars: Sources  # in both images
    host: Sources  # in both images, beneath the event: see hosts.py
    new: Sources  # in the science image alone, signed
    sky: Array
    noise: Array  # sigma of a science pixel
    reference_noise: Array
    psf: Psf
    fwhm: Array
    reference_psf: Psf
    matched_psf: Psf  # the science image's, as the match has it, but for the errors below
    width_error: Array  # of the PSF to which the reference was matched, as a ratio
    shift_x: Array  # astrometric error of the reference
    shift_y: Array
    scale_error: Array  # of the reference's flux, as a ratio
    roughness: Array  # rms error of the matched reference from pixel to pixel, as a share of its light
    science: Array
    reference: Array
    masked: np.ndarray  # bool

    @property
    def steady(self) -> Sources:
        """Everything that is in both images."""
        return self.stars + self.host


def flux_of(magnitude: np.ndarray | np.float32) -> Array:
    """DN of a magnitude at the common zero point."""
    return np.asarray(10 ** (0.4 * (ZEROPOINT - magnitude)), np.float32)


def magnitude_of(flux: Array) -> Array:
    """Magnitude, at the same zero point, of a flux in DN."""
    return np.asarray(ZEROPOINT - 2.5 * np.log10(flux), np.float32)


def draw_scene(rng: Rng, scenes: int) -> Scene:
    """Scenes without any event or host: what is left in their difference is what a good subtraction leaves.

    The spreads are those of 3,700 real triplets.
    """
    # Sky of 128 DN at the median, 45 to 330 at 5 to 95%; a noise in excess of the photons' is the readout's.
    sky = 110 * np.exp(rng.normal(0, 0.55, scenes))
    noise = np.sqrt(1.4 * sky / GAIN + 6) * np.exp(rng.normal(0, 0.08, scenes))
    # 11% of ZTF's science stamps have a median under 50 DN, and the noisiest pixels with it.
    dark = rng.random(scenes) < 0.08
    sky[dark], noise[dark] = rng.uniform(5, 45, dark.sum()), rng.uniform(5, 17, dark.sum())
    # Difference FWHM 2.2 px, 1.7 to 3.4 at 5 to 95%; the reference is stacked from better nights.
    fwhm = _float(2.15 * np.exp(np.abs(rng.normal(0, 0.24, scenes)) - 0.12))
    reference_fwhm = _float(2.05 * np.exp(rng.normal(0, 0.1, scenes)))
    psf = star_psf(rng, fwhm)
    # Registration is good to 0.05 px at the median, 0.12 at 95%; worse ones are artefacts.
    shift = 0.05 * np.exp(rng.normal(0, 0.5, scenes))
    angle = rng.uniform(0, 2 * np.pi, scenes)
    blank = np.zeros((scenes, CANVAS, CANVAS), np.float32)
    return Scene(
        stars=_field(rng, scenes) + neighbours(rng, scenes),
        host=no_sources(scenes, MAX_HOST),
        new=no_sources(scenes),
        sky=_float(sky),
        noise=_float(noise),
        # 1.6 DN at the mean, 0.5 to 3 at 5 to 95%: 15 to 40 exposures deep.
        reference_noise=_float(1.4 * np.exp(rng.normal(0, 0.5, scenes))),
        psf=psf,
        fwhm=fwhm,
        reference_psf=star_psf(rng, reference_fwhm),
        matched_psf=psf,
        width_error=_float(1 + rng.normal(0, 0.01, scenes)),
        shift_x=_float(shift * np.cos(angle)),
        shift_y=_float(shift * np.sin(angle)),
        scale_error=_float(1 + rng.normal(0, 0.006, scenes)),
        # Interpolation and flat field: under 1%, which only stars brighter than 15 mag show.
        roughness=_float(0.006 * np.exp(rng.normal(0, 0.5, scenes))),
        science=blank.copy(),
        reference=blank.copy(),
        masked=np.zeros_like(blank, bool),
    )


def _field(rng: Rng, scenes: int) -> Sources:
    """Foreground stars, from empty to the galactic plane, some of them blended, and a few galaxies."""
    shape = (scenes, MAX_STARS)
    count = np.exp(rng.uniform(np.log(2), np.log(MAX_STARS), scenes))
    used = np.arange(MAX_STARS) < count[:, None]
    half = CANVAS / 2 + REACH
    # Star counts grow by 0.3 dex a magnitude.
    magnitude = np.maximum(REFERENCE_LIMIT - rng.exponential(1 / (0.3 * np.log(10)), shape), 11)
    x, y = rng.uniform(-half, half, shape), rng.uniform(-half, half, shape)
    blended = rng.random(shape) < _BLENDED
    for place in (x, y):
        beside = np.roll(place, 1, axis=1) + rng.uniform(-_BESIDE, _BESIDE, shape)
        place[blended] = beside[blended]
    stars = Sources(
        _float(x),
        _float(y),
        flux_of(magnitude) * used,
        np.zeros(shape, np.float32),
    )
    # At 22 mag galaxies are half of what is seen away from the plane; two a stamp is ZTF's depth.
    galaxies = galaxy(
        rng,
        _float(rng.uniform(-half, half, scenes)),
        _float(rng.uniform(-half, half, scenes)),
        _float(rng.uniform(17, 22.5, scenes)),
    )
    return stars + galaxies


def neighbours(rng: Rng, scenes: int) -> Sources:
    """Where it is crowded, one to ten stars a scene, bright and anywhere in the stamp or close to its middle; elsewhere
    none."""
    shape = (scenes, _NEIGHBOURS)
    count = np.where(rng.random(scenes) < _CROWDED, rng.integers(1, _NEIGHBOURS + 1, scenes), 0)
    close = rng.random(shape) < _CLOSE
    x, y = np.where(close, rng.normal(0, _SCATTER, (2, *shape)), rng.uniform(-34, 34, (2, *shape)))
    # Close ones are blends, as bright as what is detected. Of the others brighter ones are saturated and masked, and
    # fainter ones tell nothing of a wrong scale.
    magnitude = np.where(close, rng.uniform(14.5, 20.5, shape), rng.uniform(12.5, 18.5, shape))
    flux = flux_of(magnitude) * (np.arange(_NEIGHBOURS) < count[:, None])
    return Sources(_float(x), _float(y), _float(flux), np.zeros(shape, np.float32))


def galaxy(rng: Rng, x: np.ndarray, y: np.ndarray, magnitude: np.ndarray) -> Sources:
    """One galaxy a scene, at x, y with a total magnitude (B,): a bulge and a disc seen at some angle."""
    radius = rng.uniform(0.8, 4.0, len(x))[:, None]  # px: 1" to 4" half-light radius
    angle = rng.uniform(0, np.pi, len(x))[:, None]
    inclined = rng.uniform(0.2, 1.0, len(x))[:, None]
    along = np.array([0, -1.0, -0.5, 0, 0.5, 1.0]) * radius * (1.2 - inclined)
    weight = np.array([0.3, 0.1, 0.15, 0.2, 0.15, 0.1], np.float32)
    size = np.broadcast_to(np.array([0.3, 0.8, 0.8, 0.8, 0.8, 0.8]), along.shape) * radius * inclined
    return Sources(
        _float(x[:, None] + along * np.cos(angle)),
        _float(y[:, None] + along * np.sin(angle)),
        flux_of(magnitude)[:, None] * weight,
        _float(size),
    )


def star(x: np.ndarray, y: np.ndarray, magnitude: np.ndarray) -> Sources:
    """One star a scene."""
    return point(x, y, flux_of(magnitude))


def point(x: np.ndarray, y: np.ndarray, flux: np.ndarray) -> Sources:
    """One point source of a flux in DN a scene, each argument (B,)."""
    size = np.zeros((len(x), 1), np.float32)
    return Sources(_float(x)[:, None], _float(y)[:, None], _float(flux)[:, None], size)


def _float(values: np.ndarray) -> Array:
    return np.asarray(values, np.float32)
