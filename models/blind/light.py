"""What events are made of: PSFs, stars, galaxies, trails, spikes, charges; and the scene that they are added to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage as ni

SIZE, MID = 63, 31
ZERO_POINT = 26.07
FULL_WELL = 55_000.0
FILTER_SIGMA = 0.95  # of the detection filter, px
FILTER_RECOVERS = 0.63  # of a Moffat's flux, measured on real alerts
SEEN = 5.0  # SNR of a detection
Y, X = (g.astype(float) for g in np.mgrid[-MID : MID + 1, -MID : MID + 1])
R2 = X**2 + Y**2
Rng = np.random.Generator


@dataclass
class Psf:
    """An elliptical Moffat."""

    fwhm: float
    beta: float
    e: float
    theta: float

    @classmethod
    def draw(cls, rng: Rng) -> Psf:
        fwhm = float(np.clip(rng.lognormal(np.log(2.2), 0.17), 1.7, 3.4))
        return cls(fwhm, rng.uniform(2.5, 5), rng.uniform(0, 0.15), rng.uniform(0, np.pi))

    def at(self, x: float, y: float) -> np.ndarray:
        """Unit flux centred on (x, y)."""
        c, s, q = np.cos(self.theta), np.sin(self.theta), np.sqrt(1 - self.e)
        dx, dy = X - x, Y - y
        u, v = (dx * c + dy * s) * q, (dy * c - dx * s) / q
        a2 = (self.fwhm / 2) ** 2 / (2 ** (1 / self.beta) - 1)
        return (self.beta - 1) / (np.pi * a2) * (1 + (u * u + v * v) / a2) ** -self.beta

    def like(self, rng: Rng, by: float) -> Psf:
        """Nearly the same PSF: the reference's after matching."""
        return Psf(self.fwhm * (1 + by * rng.normal()), self.beta, abs(self.e + by * rng.normal()), self.theta)

    def sigma(self) -> float:
        return self.fwhm / 2.355


@dataclass
class Light:
    """What an event adds: fixed light (host_*) and light still to be scaled to an amplitude.

    sci: to the science image; ref: to the template as shown; mat: to the template matched to the science.
    sign: of the difference at the middle that is wanted (0: whichever is stronger).
    """

    sci: np.ndarray | float = 0.0
    ref: np.ndarray | float = 0.0
    mat: np.ndarray | float = 0.0
    host_sci: np.ndarray | float = 0.0
    host_ref: np.ndarray | float = 0.0
    host_mat: np.ndarray | float = 0.0
    sign: int = 0
    nan: np.ndarray | None = None
    clip: float = np.inf  # saturation level of the science
    fixed: bool = False  # the scaled part keeps amplitude 1
    most: float = FULL_WELL  # highest pixel that the scaled light may reach
    least: float = SEEN  # SNR below which nobody could tell the kind from a real source


@dataclass
class Scene:
    """A prepared receiver, in float64, NaN filled, difference = science - reference."""

    sci: np.ndarray
    ref: np.ndarray
    dif: np.ndarray
    nan: np.ndarray
    noise: float  # of the detection filter's flux
    transfer: np.ndarray

    def stars(self) -> np.ndarray:
        """The light of the template's objects (sky removed)."""
        a = self.ref - np.median(self.ref)
        a[a < 2 * robust_sigma(a)] = 0
        a[ni.binary_dilation(self.nan, iterations=2)] = 0
        return a


def robust_sigma(a: np.ndarray) -> float:
    a = a.ravel()[::3]
    return 1.4826 * float(np.median(np.abs(a - np.median(a)))) + 1e-3


def matched_flux(dif: np.ndarray) -> np.ndarray:
    """Flux of a point source at every pixel."""
    g = ni.gaussian_filter(dif, FILTER_SIGMA, truncate=3.5)
    return g * (4 * np.pi * FILTER_SIGMA**2 / FILTER_RECOVERS)


def logu(rng: Rng, lo: float, hi: float) -> float:
    return float(np.exp(rng.uniform(np.log(lo), np.log(hi))))


def jitter(rng: Rng) -> tuple[float, float]:
    x, y = rng.normal(0, 0.3, 2)
    return float(np.clip(x, -1, 1)), float(np.clip(y, -1, 1))


def pick(rng: Rng, *options):
    return options[rng.integers(len(options))]


def flux_of(mag: float) -> float:
    return 10 ** (0.4 * (ZERO_POINT - mag))


def reference_psf(psf: Psf, rng: Rng) -> Psf:
    """A coadd of good frames: its own seeing, rounder."""
    return Psf(float(np.clip(rng.normal(2.15, 0.2), 1.7, 2.8)), psf.beta, psf.e / 2, psf.theta)


def soft_blob(x: float, y: float, long: float, short: float, angle: float) -> np.ndarray:
    """A Gaussian of unit peak."""
    c, s = np.cos(angle), np.sin(angle)
    u, v = (X - x) * c + (Y - y) * s, (Y - y) * c - (X - x) * s
    return np.exp(-0.5 * ((u / long) ** 2 + (v / short) ** 2))


def deposits(points: np.ndarray, charges: np.ndarray, sigma: float) -> np.ndarray:
    """Point charges (x, y), shared bilinearly among pixels, then diffused by sigma."""
    out = np.zeros((SIZE, SIZE))
    x, y = points[:, 0] + MID, points[:, 1] + MID
    if sigma < 0.12:  # no diffusion: whole pixels
        np.add.at(out, (np.clip(np.rint(y).astype(int), 0, 62), np.clip(np.rint(x).astype(int), 0, 62)), charges)
        return out
    reach = 4
    for px, py, q in zip(x, y, charges, strict=True):
        cx, cy = round(px), round(py)
        if not (reach <= cx < SIZE - reach and reach <= cy < SIZE - reach):
            continue
        k = np.arange(-reach, reach + 1)
        gx, gy = cell(cx + k - px, sigma), cell(cy + k - py, sigma)
        out[cy - reach : cy + reach + 1, cx - reach : cx + reach + 1] += q * np.outer(gy, gx)
    return out


def cell(d: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian integrated over pixels (three-point)."""
    g = sum(np.exp(-0.5 * ((d + o) / sigma) ** 2) for o in (-0.33, 0.0, 0.33))
    return g / g.sum()


def star(psf: Psf, rng: Rng, x: float, y: float, flux: float, error: float = 0.02) -> tuple[np.ndarray, ...]:
    """Science, template as shown and matched template of one star; the match is good, not perfect."""
    dx, dy = rng.normal(0, error, 2)
    return (
        flux * psf.at(x, y),
        flux * reference_psf(psf, rng).at(x, y),
        flux * psf.like(rng, error / 4).at(x + dx, y + dy),
    )


def galaxy(psf: Psf, rng: Rng, x: float, y: float, flux: float, error: float = 0.02) -> tuple[np.ndarray, ...]:
    """The same of a Sersic galaxy."""
    n, q, th, re = rng.uniform(0.8, 3.5), rng.uniform(0.3, 1), rng.uniform(0, np.pi), logu(rng, 1.8, 7)
    b = 2 * n - 1 / 3

    def body(dx: float, dy: float, fwhm: float) -> np.ndarray:
        c, s = np.cos(th), np.sin(th)
        u, v = (X - x - dx) * c + (Y - y - dy) * s, (Y - y - dy) * c - (X - x - dx) * s
        r = np.sqrt(u * u + (v / q) ** 2 + 0.1)
        g = ni.gaussian_filter(np.exp(-b * (r / re) ** (1 / n)), fwhm / 2.355)
        return flux * g / g.sum()

    dx, dy = rng.normal(0, error, 2)
    shown = reference_psf(psf, rng)
    return body(0, 0, psf.fwhm), body(0, 0, shown.fwhm), body(dx, dy, psf.fwhm * (1 + error / 4 * rng.normal()))


def trail(psf: Psf, rng: Rng, length: float, x: float, y: float) -> np.ndarray:
    angle, k = rng.uniform(0, np.pi), max(2, int(np.ceil(length / 0.7)) + 1)
    t = np.linspace(-length / 2, length / 2, k)
    return sum(psf.at(x + a * np.cos(angle), y + a * np.sin(angle)) for a in t) / k


def spike(x: float, y: float, angle: float, width: float, power: float, core: float = 4.0) -> np.ndarray:
    """The diffraction spike (both arms) of a star at (x, y): 1 at its root."""
    c, s = np.cos(angle), np.sin(angle)
    u, v = np.abs((X - x) * c + (Y - y) * s), (Y - y) * c - (X - x) * s
    return (1 + u / core) ** -power * np.exp(-0.5 * (v / (width * (1 + u / 150))) ** 2)


def lumps(rng: Rng, coordinate: np.ndarray, scale: float, depth: float) -> np.ndarray:
    """A smooth random modulation (mean 1) along a coordinate."""
    wave = ni.gaussian_filter1d(rng.normal(size=220), scale)
    wave = 1 + depth * wave / wave.std()
    return np.interp(coordinate + 110, np.arange(220), np.maximum(wave, 0))


def scene_has_object(scene: Scene) -> bool:
    """A template object within 2 px of the middle."""
    a = scene.ref[MID - 2 : MID + 3, MID - 2 : MID + 3].max() - np.median(scene.ref)
    return bool(a > max(15 * robust_sigma(scene.ref), 25))
