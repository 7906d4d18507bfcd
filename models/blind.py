"""An independent generator of artificial ZTF alerts: real events and artefacts in real scenes.

`inject(stamps, positive, n, seed)` takes real triplets (science, template, difference), makes each a
quiet scene (emptied, re-centred, or wearing another stamp's mask), adds light of one kind of event to
science and reference, subtracts, and keeps what a 5-sigma detector would have found at the middle.

Light is in DN. The maps are 63x63 and the coordinates X, Y are zero at the middle pixel.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage as ni

SIZE, MID = 63, 31
GAIN = 6.2  # electrons per DN
FRAMES = 20  # frames in a reference
ZERO_POINT = 26.07
FULL_WELL = 55_000.0
FILTER_SIGMA = 0.95  # of the detection filter, px
FILTER_RECOVERS = 0.63  # of a Moffat's flux, measured on real alerts
FAINTEST, BRIGHTEST = 20.75, 13.8
SEEN = 5.0  # SNR of a detection
OUTSHINE = 2.0  # times what a scene and the host leave without the event
Y, X = (g.astype(float) for g in np.mgrid[-MID : MID + 1, -MID : MID + 1])
R2 = X**2 + Y**2
NEAR = R2 <= 2.3**2
Rng = np.random.Generator


# ---------------------------------------------------------------- light


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


# ---------------------------------------------------------------- the kinds
# A maker takes (scene, psf, rng) and returns Light. Its `place` says what lies at the scene's middle.


@dataclass
class Kind:
    make: Callable[[Scene, Psf, Rng], Light]
    real: bool
    place: tuple[str, ...] = ("any",)


KINDS: dict[str, Kind] = {}


def kind(name: str, real: bool = False, place: tuple[str, ...] = ("any",)):
    def keep(make):
        KINDS[name] = Kind(make, real, place)
        return make

    return keep


GALAXY_MAG = (14.5, 19.5)  # of hosts


def hosted(light: Light, scene: Scene, psf: Psf, rng: Rng, body, at, scatter: float, mag) -> Light:
    """The event with a host (`star` or `galaxy`) `scatter` px beside it, where the scene has nothing there already."""
    if not scene_has_object(scene):
        (x, y), r, a = at, abs(rng.normal(0, scatter)), rng.uniform(0, 2 * np.pi)
        host = body(psf, rng, x + r * np.cos(a), y + r * np.sin(a), flux_of(rng.uniform(*mag)))
        light.host_sci, light.host_ref, light.host_mat = host
    return light


@kind("transient_sky", real=True, place=("sky",))
def transient_sky(scene: Scene, psf: Psf, rng: Rng) -> Light:
    return Light(psf.at(*jitter(rng)), sign=1)


@kind("transient_star", real=True, place=("sky", "object"))
def transient_star(scene: Scene, psf: Psf, rng: Rng) -> Light:
    x, y = jitter(rng)
    return hosted(Light(psf.at(x, y), sign=1), scene, psf, rng, star, (x, y), 1.5, (15, 20))


@kind("transient_galaxy", real=True, place=("sky", "sky", "galaxy"))
def transient_galaxy(scene: Scene, psf: Psf, rng: Rng) -> Light:
    x, y = jitter(rng)
    return hosted(Light(psf.at(x, y), sign=1), scene, psf, rng, galaxy, (x, y), 2.5, GALAXY_MAG)


def variable(psf: Psf, rng: Rng, sign: int) -> Light:
    """A star of flux F in the reference and F (1 + f) in science; one event carries both, so both scale."""
    x, y = jitter(rng)
    f = sign * (logu(rng, 0.05, 4) if sign > 0 else logu(rng, 0.05, 0.97))
    s, r, m = star(psf, rng, x, y, 1 / abs(f), error=0.015)
    return Light(s * (1 + f), r, m, sign=sign)


@kind("variable_positive", real=True, place=("sky", "any"))
def variable_positive(scene: Scene, psf: Psf, rng: Rng) -> Light:
    return variable(psf, rng, 1)


@kind("variable_negative", real=True, place=("sky", "any"))
def variable_negative(scene: Scene, psf: Psf, rng: Rng) -> Light:
    return variable(psf, rng, -1)


@kind("asteroid_trailed", real=True)
def asteroid_trailed(scene: Scene, psf: Psf, rng: Rng) -> Light:
    return Light(trail(psf, rng, logu(rng, 1.5, 10), *jitter(rng)), sign=1)


@kind("asteroid_point", real=True)
def asteroid_point(scene: Scene, psf: Psf, rng: Rng) -> Light:
    return Light(trail(psf, rng, rng.uniform(0, 1.2), *jitter(rng)), sign=1)


def particle(rng: Rng) -> np.ndarray:
    """A cosmic ray: a hit of a pixel or two, a straight muon, or a scattered electron's worm."""
    x, y = jitter(rng)
    shape = rng.random()
    if shape < 0.45:  # sharper than any PSF of this telescope
        k = int(rng.integers(1, 3))
        points = np.array([[x, y]]) + rng.normal(0, 0.35, (k, 2)) * (k > 1)
        return deposits(points, rng.uniform(0.4, 1, k), rng.uniform(0, 0.45))
    step, angle = 0.5, rng.uniform(0, 2 * np.pi)
    length = logu(rng, 2.5, 14)
    k = int(length / step) + 1
    bend = 0.0 if shape < 0.8 else 0.35
    heading = angle + np.cumsum(rng.normal(0, bend, k))
    points = np.cumsum(np.c_[np.cos(heading), np.sin(heading)] * step, 0)
    points += np.array([x, y]) - points[rng.integers(k)]
    charge = np.maximum(0.1, 1 + 0.4 * rng.normal(size=k)) * np.linspace(1, rng.uniform(0.5, 1.5), k)
    return deposits(points, charge, rng.uniform(0, 0.6))


@kind("cosmic_ray")
def cosmic_ray(scene: Scene, psf: Psf, rng: Rng) -> Light:
    return Light(particle(rng), sign=1, most=25_000, least=6)


@kind("cosmic_ray_galaxy", place=("sky", "sky", "galaxy"))
def cosmic_ray_galaxy(scene: Scene, psf: Psf, rng: Rng) -> Light:
    light = Light(particle(rng), sign=1, most=25_000, least=6)
    return hosted(light, scene, psf, rng, galaxy, (0, 0), 1.2, GALAXY_MAG)


def pixels(rng: Rng) -> np.ndarray:
    """One to three whole pixels that touch."""
    out = np.zeros((SIZE, SIZE))
    y, x = MID + rng.integers(-1, 2, 2) * (rng.random(2) < 0.3)
    for _ in range(int(rng.integers(1, 4))):
        out[y, x] = rng.uniform(0.4, 1)
        y, x = (y + pick(rng, -1, 1), x) if rng.random() < 0.5 else (y, x + pick(rng, -1, 1))
    return out


@kind("hot_pixel")
def hot_pixel(scene: Scene, psf: Psf, rng: Rng) -> Light:
    sign = 1 if rng.random() < 0.65 else -1  # hot, or dead
    return Light(sign * pixels(rng), sign=sign, most=25_000)


@kind("bad_column")
def bad_column(scene: Scene, psf: Psf, rng: Rng) -> Light:
    sign = pick(rng, 1, -1)
    width, start = int(rng.integers(1, 3)), MID - int(rng.integers(0, 2))
    line = np.zeros((SIZE, SIZE))
    line[:, start : start + width] = np.abs(1 + rng.uniform(0, 0.25) * rng.normal(size=(SIZE, width)))
    ends = rng.random()
    if ends < 0.35:  # begins near the middle and runs to the edge
        line[: MID - int(rng.integers(2, 14))] = 0
    elif ends < 0.5:
        line[: MID - int(rng.integers(5, 14))] = 0
        line[MID + int(rng.integers(5, 14)) :] = 0
    line = line[::-1] if rng.random() < 0.5 else line
    return Light(sign * (line if rng.random() < 0.75 else line.T), sign=sign, most=8000)


def satellite(psf: Psf, rng: Rng) -> np.ndarray:
    """A line across the whole stamp: PSF-wide to out of focus, steady or tumbling."""
    angle, off = rng.uniform(0, np.pi), rng.normal(0, 0.4)
    u, v = X * np.cos(angle) + Y * np.sin(angle), Y * np.cos(angle) - X * np.sin(angle) - off
    soft = psf.sigma()
    if rng.random() < 0.6:
        profile = np.exp(-0.5 * (v / soft) ** 2)
    else:
        half = rng.uniform(1, 4.5)
        profile = 1 / (1 + np.exp(-(half - np.abs(v)) / (0.5 * soft)))
        if half > 3 and rng.random() < 0.5:
            profile *= 1 - 0.5 * np.exp(-0.5 * (v / (half / 2)) ** 2)
    return profile * lumps(rng, u, rng.uniform(4, 25), rng.uniform(0, 0.3))


@kind("streak")
def streak(scene: Scene, psf: Psf, rng: Rng) -> Light:
    return Light(satellite(psf, rng), sign=1, most=5000)


def spike_angle(rng: Rng) -> float:
    """Toward the middle from where: mostly along rows, columns and diagonals."""
    base = pick(rng, 0, 0, 0.5, 0.5, 0.25, 0.75) * np.pi + pick(rng, 0, np.pi)
    return base + rng.normal(0, 0.05) if rng.random() < 0.8 else rng.uniform(0, 2 * np.pi)


def spiked(psf: Psf, rng: Rng, distance: float, angle: float, sign: int) -> tuple[Light, float, float]:
    """A bright star whose spike runs through the middle; the spike subtracts badly and in lumps."""
    x, y = -distance * np.cos(angle), -distance * np.sin(angle)
    r = np.hypot(X - x, Y - y)
    width, power = rng.uniform(0.8, 1.6), rng.uniform(1, 2)
    arm = spike(x, y, angle, width, power)
    cross = arm + rng.uniform(0.2, 0.9) * spike(x, y, angle + np.pi / 2, width, power)
    root = 1 / max(arm[MID, MID], 1e-4)
    glow = (1 + (r / rng.uniform(3, 6)) ** 2) ** -rng.uniform(1.2, 1.8)
    steady = root * cross * rng.uniform(0.7, 2.5) + root * rng.uniform(0.3, 1.5) * glow
    change = root * arm * lumps(rng, (X - x) * np.cos(angle) + (Y - y) * np.sin(angle), rng.uniform(2, 7), 0.6)
    # a turned spike leaves a stripe of each sign side by side
    turned = root * spike(x, y, angle + rng.normal(0, 0.03), width, power) - root * arm
    change = change + rng.uniform(0, 1) * turned
    sci, mat = (steady + change, steady) if sign > 0 else (steady, steady + change)
    return Light(sci, ni.gaussian_filter(mat, 0.4), mat, sign=sign, most=np.inf), x, y


@kind("diffraction_spike")
def diffraction_spike(scene: Scene, psf: Psf, rng: Rng) -> Light:
    light, _, _ = spiked(psf, rng, rng.uniform(27, 60), spike_angle(rng), pick(rng, 1, 1, -1))
    light.clip = FULL_WELL
    return light


@kind("masked_star_spike")
def masked_star_spike(scene: Scene, psf: Psf, rng: Rng) -> Light:
    distance, angle, sign = rng.uniform(11, 27), spike_angle(rng), pick(rng, 1, 1, -1)
    light, x, y = spiked(psf, rng, distance, angle, sign)
    size = rng.uniform(5, min(14, distance - 5))
    if rng.random() < 0.6:
        light.nan = np.maximum(np.abs(X - x), np.abs(Y - y)) < size
    else:
        light.nan = np.hypot(X - x, Y - y) < size
    x, y = jitter(rng)  # the blob: a lump of the spike, longer along it
    blob = rng.uniform(0.5, 4) * soft_blob(x, y, rng.uniform(1.5, 4), rng.uniform(0.8, 1.5), angle)
    if sign > 0:
        light.sci = light.sci + blob
    else:
        light.mat, light.ref = light.mat + blob, light.ref + blob
    return light


@kind("bleed")
def bleed(scene: Scene, psf: Psf, rng: Rng) -> Light:
    """Charge of a saturated star runs along its column, in science further (or less far) than in the reference."""
    up, down = rng.uniform(10, 45, 2)
    y = rng.uniform(-28, 28)
    x = rng.normal(0, 0.4)
    wide = rng.uniform(0.6, 1.6)
    column = 1 / (1 + np.exp((np.abs(X - x) - wide) / 0.25))

    def run(u: float, d: float) -> np.ndarray:
        d_y = Y - y
        return column * np.where(d_y > 0, 1 / (1 + np.exp((d_y - u) / 1.2)), 1 / (1 + np.exp((-d_y - d) / 1.2)))

    sign = pick(rng, 1, 1, -1)
    fade = 1 + np.abs(Y - y) / rng.uniform(8, 60)
    long = run(abs(y) + up, abs(y) + down) / fade
    short = run(rng.uniform(2, abs(y) + 3), rng.uniform(2, abs(y) + 3)) / fade
    long = long * lumps(rng, Y, rng.uniform(1, 8), rng.uniform(0.05, 0.5))
    level = logu(rng, 3, 40)
    body = level * psf.at(x, y) / psf.at(x, y).max()
    sci, mat = (long, short) if sign > 0 else (short, long)
    light = Light(sci + body, ni.gaussian_filter(mat, 0.4) + body, mat + body * rng.normal(1, 0.04), sign=sign)
    light.most = np.inf
    light.clip = FULL_WELL
    if abs(y) > 9 and rng.random() < 0.4:
        light.nan = np.maximum(np.abs(X - x), np.abs(Y - y)) < rng.uniform(4, 6.5)
    return light


def disc(psf: Psf, rng: Rng) -> np.ndarray:
    """An out-of-focus ghost, its rim through the middle, with a bump of the rim there."""
    radius, angle = logu(rng, 9, 40), rng.uniform(0, 2 * np.pi)
    x, y = -radius * np.cos(angle), -radius * np.sin(angle)
    r = np.hypot(X - x, (Y - y))
    soft = rng.uniform(0.5, 1.5)
    inner = radius * rng.uniform(0.3, 0.9)
    body = 1 / (1 + np.exp((r - radius - 1.5) / soft)) - rng.uniform(0.5, 1) / (1 + np.exp((r - inner) / soft))
    rim = rng.uniform(0, 1.5) * np.exp(-0.5 * ((r - radius) / rng.uniform(0.8, 2)) ** 2)
    bump = rng.uniform(0.3, 2) * soft_blob(0, 0, rng.uniform(2, 5), rng.uniform(1.2, 2), angle + np.pi / 2)
    return np.maximum(body, 0) + rim + bump


@kind("ghost")
def ghost(scene: Scene, psf: Psf, rng: Rng) -> Light:
    return Light(disc(psf, rng), sign=1, most=800)


@kind("halo")
def halo(scene: Scene, psf: Psf, rng: Rng) -> Light:
    """The wings and rings of a bright star, scattered otherwise in science than in the reference."""
    distance, angle, sign = rng.uniform(9, 34), rng.uniform(0, 2 * np.pi), pick(rng, 1, 1, -1)
    x, y = distance * np.cos(angle), distance * np.sin(angle)
    r = np.hypot(X - x, Y - y)
    power, core = rng.uniform(1.0, 1.6), rng.uniform(2, 5)
    wings = (1 + (r / core) ** 2) ** -power
    wings /= wings[MID, MID]
    azimuth = np.arctan2(Y - y, X - x)
    rays = 1 + rng.uniform(0.2, 0.6) * np.cos(rng.integers(5, 14) * azimuth + rng.uniform(0, 6.3))
    change = wings / (1 + wings / 15) * rays * rng.uniform(0.3, 1)
    change += rng.uniform(0, 1) * np.exp(-0.5 * ((r - distance) / rng.uniform(1.2, 2.5)) ** 2)
    change += rng.uniform(0.4, 1.5) * soft_blob(0, 0, rng.uniform(2, 4), rng.uniform(1.3, 2.5), angle)
    steady = wings * rng.uniform(2, 10)
    sci, mat = (steady + change, steady) if sign > 0 else (steady, steady + change)
    light = Light(sci, mat, mat, sign=sign, most=np.inf, clip=FULL_WELL)
    if distance > 12 and rng.random() < 0.5:
        light.nan = r < rng.uniform(4, distance - 7)
    return light


def shifted(a: np.ndarray, dx: float, dy: float) -> np.ndarray:
    return ni.shift(a, (dy, dx), order=3, mode="nearest")


def dipole(scene: Scene, psf: Psf, rng: Rng, body) -> Light:
    """Science registered 0.3 to 1 px off the reference, here or in the whole field."""
    size, angle, sign = rng.uniform(0.3, 1), rng.uniform(0, 2 * np.pi), pick(rng, 1, -1)
    dx, dy = size * np.cos(angle), size * np.sin(angle)
    field_light = scene.stars()
    moved = shifted(field_light, dx, dy) - field_light
    if scene_has_object(scene):
        return Light(moved, fixed=True, least=6)
    lobe = sign * rng.uniform(0.2, 1.3)
    x, y = -lobe * np.cos(angle), -lobe * np.sin(angle)
    s, r, m = body(psf, rng, x, y, 1.0)
    light = Light(shifted(s, dx / 2, dy / 2), r, shifted(m, -dx / 2, -dy / 2), sign=sign, least=6)
    if rng.random() < 0.6:
        light.host_sci = moved
    return light


@kind("misaligned_star", place=("any", "object"))
def misaligned_star(scene: Scene, psf: Psf, rng: Rng) -> Light:
    return dipole(scene, psf, rng, star)


@kind("misaligned_galaxy", place=("any", "any", "galaxy"))
def misaligned_galaxy(scene: Scene, psf: Psf, rng: Rng) -> Light:
    return dipole(scene, psf, rng, galaxy)


@kind("psf_ring")
def psf_ring(scene: Scene, psf: Psf, rng: Rng) -> Light:
    """The same star under a PSF that was matched to the wrong width or shape: core and ring of opposite sign."""
    x, y = jitter(rng)
    other = Psf(psf.fwhm * np.exp(pick(rng, -1, 1) * rng.uniform(0.06, 0.3)), psf.beta, psf.e, psf.theta)
    if rng.random() < 0.4:
        other.e, other.theta = rng.uniform(0.1, 0.3), rng.uniform(0, np.pi)
    s, m = psf.at(x, y), other.at(x + rng.normal(0, 0.05), y + rng.normal(0, 0.05))
    if rng.random() < 0.4:  # the ringing of a noisy deconvolution
        a, f = rng.uniform(0, np.pi), rng.uniform(0.6, 0.95) * np.pi
        wave = np.cos(f * (X * np.cos(a) + Y * np.sin(a)) + rng.uniform(0, 6.3))
        m = m + rng.uniform(0.05, 0.3) * ni.gaussian_filter(m, 1) * wave
    return Light(s, reference_psf(psf, rng).at(x, y), m, least=8)


@kind("flux_scale", place=("any", "object"))
def flux_scale(scene: Scene, psf: Psf, rng: Rng) -> Light:
    """Science brighter or fainter than the reference by one factor: every star is left over, with one sign."""
    sign, f = pick(rng, 1, -1), logu(rng, 0.04, 0.4)
    f *= sign
    sky = scene.stars()
    host_sci, host_ref, host_mat = f * sky, 0.0, 0.0
    for _ in range(int(rng.integers(4, 12))):
        x, y = rng.uniform(-30, 30, 2)
        if x * x + y * y < 36:
            continue
        s, r, m = star(psf, rng, x, y, logu(rng, 8, 150) * scene.noise / abs(f))
        host_sci, host_ref, host_mat = host_sci + (1 + f) * s, host_ref + r, host_mat + m
    light = Light(host_sci=host_sci, host_ref=host_ref, host_mat=host_mat, sign=sign)
    if scene_has_object(scene):
        light.sci, light.fixed = np.zeros((SIZE, SIZE)), True
        return light
    s, r, m = star(psf, rng, *jitter(rng), 1 / abs(f))
    light.sci, light.ref, light.mat = (1 + f) * s, r, m
    return light


@kind("edge")
def edge(scene: Scene, psf: Psf, rng: Rng) -> Light:
    """The last pixels before a chip's edge, at another level; beyond them nothing, or a constant."""
    end, width, sign = int(rng.integers(3, 8)), rng.uniform(1.5, 5), pick(rng, 1, -1)
    inner = max(end - width, -2.0) if end < 5 else min(end - width, 0.5)
    step = 1 / (1 + np.exp(-(X - inner) / rng.uniform(0.2, 1.2)))
    step = step * lumps(rng, Y, rng.uniform(1, 5), rng.uniform(0.1, 0.7))
    nan = end <= X
    if rng.random() < 0.3:
        nan |= (end - 2 <= X) & (rng.integers(4, 25) < Y)
    turns = int(rng.integers(4))
    light = Light(sign * np.rot90(step, turns), sign=sign, most=3000)
    if rng.random() < 0.75:
        light.nan = np.ascontiguousarray(np.rot90(nan, turns))
    return light


def ragged_patch(rng: Rng) -> np.ndarray:
    """A rectangle of the coadd made from other frames: another level, sharp borders, its own rough texture."""
    w, h = rng.uniform(4, 20, 2)
    x, y = rng.uniform(-w / 2 + 1, w / 2 - 1), rng.uniform(-h / 2 + 1, h / 2 - 1)
    inside = (np.abs(X - x) < w / 2) & (np.abs(Y - y) < h / 2)
    return inside * (1 + rng.uniform(0.1, 0.6) * ni.gaussian_filter(rng.normal(size=X.shape), 1) * 3.5)


def reference_defect(scene: Scene, psf: Psf, rng: Rng, sign: int) -> Light:
    """Light (or its lack) in the reference alone: the sharp defect in the template, matched in the difference."""
    match = rng.uniform(0.3, 0.9)
    what = rng.integers(7 if sign > 0 else 5)
    if what >= 5:  # a star of which the coadd lost a part (never all: that is a transient)
        x, y = rng.normal(0, 1.0, 2)
        s, r, m = star(psf, rng, x, y, 1.0)
        angle, cut = rng.uniform(0, 2 * np.pi), rng.uniform(-0.4, 0.8)
        lost = (X - x) * np.cos(angle) + (Y - y) * np.sin(angle) > cut
        lost &= np.abs((Y - y) * np.cos(angle) - (X - x) * np.sin(angle)) < rng.uniform(1, 8)
        return Light(s, np.where(lost, 0, r), np.where(lost, 0, m), sign=1, least=8)
    maker = (particle, lambda g: satellite(psf, g), pixels, lambda g: disc(psf, g), ragged_patch)[what]
    r = -sign * maker(rng)
    return Light(ref=r, mat=ni.gaussian_filter(r, match), sign=sign, most=10_000)


@kind("reference_defect_positive", place=("sky", "sky", "any"))
def reference_defect_positive(scene: Scene, psf: Psf, rng: Rng) -> Light:
    return reference_defect(scene, psf, rng, 1)


@kind("reference_defect_negative", place=("sky", "sky", "any"))
def reference_defect_negative(scene: Scene, psf: Psf, rng: Rng) -> Light:
    return reference_defect(scene, psf, rng, -1)


# ---------------------------------------------------------------- scenes


def scene_has_object(scene: Scene) -> bool:
    """A template object within 2 px of the middle."""
    a = scene.ref[MID - 2 : MID + 3, MID - 2 : MID + 3].max() - np.median(scene.ref)
    return bool(a > max(15 * robust_sigma(scene.ref), 25))


def draw_transfer(rng: Rng) -> np.ndarray:
    """What one pixel of science leaves in the difference: 0.82, neighbours 0.05, next ring -0.04, sum near 1."""
    t = np.zeros((5, 5))
    (nx, ny), (fx, fy) = rng.normal(0.05, 0.015, 2), rng.normal(-0.04, 0.01, 2)
    t[2, [1, 3]], t[[1, 3], 2], t[2, [0, 4]], t[[0, 4], 2] = nx, ny, fx, fy
    t[2, 2] = np.clip(rng.normal(0.82, 0.04), 0.7, 0.92)
    t[1::2, 1::2] = (rng.normal(0.98, 0.01) - t.sum()) / 4
    return t


def unpack(stamp: np.ndarray, positive: bool) -> tuple[np.ndarray, np.ndarray]:
    """The triplet in float64, sign undone, NaN filled with the sky; and where it was NaN."""
    a = np.asarray(stamp, float).copy()
    bad = ~(np.abs(a) < 1e6)
    nan = bad.any(0)
    for c in range(3):
        good = a[c][~nan]
        a[c][nan] = 0.0 if c == 2 else (np.median(good) if good.size else 0.0)
    if not positive:
        a[2] *= -1
    return a, nan


def empty(a: np.ndarray, nan: np.ndarray, mf: np.ndarray, noise: float, sigma: float, rng: Rng) -> bool:
    """Takes the event from the middle: a noise patch of the same difference there, the same from the science."""
    r = np.sqrt(R2)
    core, rim = r < 8, (r > 8) & (r < 11)
    if nan[core].any() or np.abs(mf[core]).max() > 60 * noise or np.abs(a[2][rim]).max() > 6 * sigma:
        return False
    for _ in range(16):
        dy, dx = rng.integers(-22, 23, 2)
        if max(abs(dy), abs(dx)) < 17:
            continue
        there = (slice(MID + dy - 9, MID + dy + 10), slice(MID + dx - 9, MID + dx + 10))
        patch = a[2][there]
        if nan[there].any() or np.abs(patch).max() > 5 * sigma or np.abs(mf[there]).max() > 4.5 * noise:
            continue
        here = (slice(MID - 9, MID + 10),) * 2
        w = 1 / (1 + np.exp((r[here] - 6.5) / 0.7))
        change = (np.sqrt(w * w + (1 - w) ** 2) ** -1) * (w * patch + (1 - w) * a[2][here]) - a[2][here]
        change[w < 0.02] = 0
        a[2][here] += change
        a[0][here] += change
        return True
    return False


def moved(a: np.ndarray, nan: np.ndarray, y: int, x: int, mirror: bool) -> tuple[np.ndarray, np.ndarray]:
    """The scene with (y, x) in its middle; where it falls outside, NaN or its own mirror image."""
    dy, dx = y - MID, x - MID
    if mirror:
        rows, columns = (SIZE - 1 - np.abs(SIZE - 1 - np.abs(np.arange(SIZE) + d)) for d in (dy, dx))
        here = np.ix_(rows, columns)
        return a[:, here[0], here[1]], nan[here]
    out, mask = np.zeros_like(a), np.ones_like(nan)
    ty, tx = slice(max(0, -dy), SIZE - max(0, dy)), slice(max(0, -dx), SIZE - max(0, dx))
    sy, sx = slice(max(0, dy), SIZE + min(0, dy)), slice(max(0, dx), SIZE + min(0, dx))
    for c in range(2):
        out[c] = np.median(a[c])
    out[:, ty, tx] = a[:, sy, sx]
    mask[ty, tx] = nan[sy, sx]
    return out, mask


def places(a: np.ndarray, nan: np.ndarray, mf: np.ndarray, noise: float, want: str) -> np.ndarray:
    """Quiet places (y, x) off the middle where the template shows what is wanted."""
    quiet = (ni.maximum_filter(np.abs(mf), 9) < 4.2 * noise) & ~ni.binary_dilation(nan, iterations=4)
    quiet &= (np.maximum(np.abs(X), np.abs(Y)) <= 20) & (R2 > 144)
    if want == "any":
        return np.argwhere(quiet)
    light = ni.gaussian_filter(a[1], 0.8) - np.median(a[1])
    sig = robust_sigma(a[1])
    if want == "sky":
        return np.argwhere(quiet & (ni.maximum_filter(light, 5) < max(6 * sig, 6)))
    peak = quiet & (light == ni.maximum_filter(light, 7)) & (light > max(20 * sig, 40))
    if want == "galaxy":
        raw = np.maximum(a[1] - np.median(a[1]), 0)
        peak &= ni.uniform_filter(raw, 13) * 169 > 2.6 * ni.uniform_filter(raw, 5) * 25
    return np.argwhere(peak)


def prepare(stamps, positive, masked, order, want: str, rng: Rng) -> tuple[Scene, int]:  # noqa: RET503
    """The next receiver that can give a quiet scene of the wanted sort (an empty one where six have no galaxy)."""
    for tried in itertools.count():  # until one can
        want = "sky" if want == "galaxy" and tried >= 6 else want
        i = int(next(order))
        a, nan = unpack(stamps[i], bool(positive[i]))
        if nan.mean() > 0.5:
            continue
        mf = matched_flux(a[2])
        noise, sigma = robust_sigma(mf[~nan]), robust_sigma(a[2][~nan])
        if not 4 < noise < 300:
            continue
        done = False
        if rng.random() < 0.65:
            done = empty(a, nan, mf, noise, sigma, rng)
            if done and want in ("sky", "object", "galaxy"):
                here = a[1][MID - 3 : MID + 4, MID - 3 : MID + 4].max() - np.median(a[1])
                done = (here < max(8 * robust_sigma(a[1]), 8)) if want == "sky" else want == "object" and here > 40
        if not done:
            a, nan = unpack(stamps[i], bool(positive[i]))
            where = places(a, nan, mf, noise, want)
            if not len(where):
                continue
            a, nan = moved(a, nan, *where[rng.integers(len(where))], bool(rng.random() < 0.6))
        if rng.random() < 0.15:  # another stamp's mask
            other = np.isnan(stamps[int(rng.choice(masked))][2]) if len(masked) else nan
            if not other[MID - 6 : MID + 7, MID - 6 : MID + 7].any():
                nan = nan | other
        if nan[MID - 3 : MID + 4, MID - 3 : MID + 4].any():
            continue
        return Scene(a[0], a[1], a[2], nan, noise, draw_transfer(rng)), i


# ---------------------------------------------------------------- subtraction and detection


def expose(light: np.ndarray | float, frames: int, rng: Rng) -> np.ndarray:
    """Light with its photon noise."""
    a = np.broadcast_to(np.asarray(light, float), X.shape)
    return a + rng.normal(size=X.shape) * np.sqrt(np.maximum(a, 0) / (GAIN * frames))


def add(scene: Scene, light: Light, target: float, rng: Rng):
    """Science, template, difference, sign, SNR and magnitude; None where it would not have been detected."""
    nan = scene.nan if light.nan is None else scene.nan | light.nan
    if nan[MID - 2 : MID + 3, MID - 2 : MID + 3].any():
        return None
    amp = 1.0
    if not light.fixed:
        unit = matched_flux(ni.convolve(light.sci - light.mat + np.zeros_like(X), scene.transfer, mode="nearest"))[NEAR]
        best = (unit * light.sign).max() if light.sign else np.abs(unit).max()
        if best <= 0:
            return None
        amp = target * scene.noise / best
        highest = max(np.max(np.abs(light.sci)), np.max(np.abs(light.ref)))
        if amp * highest > light.most:
            return None
    sci, ref, mat = (
        amp * p + h for p, h in ((light.sci, light.host_sci), (light.ref, light.host_ref), (light.mat, light.host_mat))
    )
    s = expose(np.minimum(sci, light.clip), 1, rng)
    grain = expose(ref, FRAMES, rng) - ref
    r = np.minimum(ref, light.clip) + grain
    m = np.minimum(mat, light.clip) + ni.gaussian_filter(grain, 0.5)
    dif = scene.dif + ni.convolve(s - m, scene.transfer, mode="nearest")
    seen = matched_flux(np.where(nan, 0, dif))[NEAR]
    sign = light.sign or (1 if seen.max() > -seen.min() else -1)
    flux = (sign * seen).max()
    snr = flux / scene.noise
    if snr < light.least:
        return None
    mag = ZERO_POINT - 2.5 * np.log10(flux)
    if not BRIGHTEST <= mag <= FAINTEST:
        return None
    out = np.stack([scene.sci + s, scene.ref + r, sign * dif])
    out[:, nan] = np.nan
    return out, sign, snr, mag


def outshines(scene: Scene, light: Light, snr: float) -> bool:
    """Whether a detection is of the event: else what the host leaves of itself is told to be real.

    Asked of reals only: an artefact on a residual is bogus either way.
    """
    left = scene.dif + ni.convolve(light.host_sci - light.host_mat + np.zeros_like(X), scene.transfer, mode="nearest")
    alone = np.abs(matched_flux(left)[NEAR]).max() / scene.noise
    return alone < SEEN or snr >= OUTSHINE * alone


def inject(stamps: np.ndarray, positive: np.ndarray, n: int, seed: int, kinds: list[str] | None = None) -> dict:
    """n artificial alerts, half of them real (where `kinds` holds both classes), all kinds of a class equally often."""
    rng = np.random.default_rng(seed)
    names = list(KINDS) if kinds is None else list(kinds)
    groups = [g for g in ([k for k in names if KINDS[k].real], [k for k in names if not KINDS[k].real]) if g]
    todo = [g[(j // len(groups)) % len(g)] for j in range(n) for g in (groups[j % len(groups)],)]
    todo = [todo[j] for j in rng.permutation(n)]
    masked = np.flatnonzero(np.isnan(stamps[:, 2]).any((1, 2)))

    def endless():
        while True:
            yield from rng.permutation(len(stamps))

    order = endless()
    rows = []
    for name in todo:
        k = KINDS[name]
        want = pick(rng, *k.place)
        found = None
        while found is None:
            scene, i = prepare(stamps, positive, masked, order, want, rng)
            psf = Psf.draw(rng)
            target = 5.2 * 10 ** (1.9 * rng.random() ** 1.3)
            for _ in range(3):
                light = k.make(scene, psf, rng)
                seen = add(scene, light, target, rng)
                if seen is not None and (not k.real or outshines(scene, light, seen[2])):
                    found = seen
                    break
        rows.append((*found, i))
    return {
        "stamps": np.array([r[0] for r in rows], np.float32).reshape(-1, 3, SIZE, SIZE),
        "real": np.array([KINDS[k].real for k in todo], bool),
        "kind": np.array(todo, str),
        "receiver": np.array([r[4] for r in rows], int),
        "positive": np.array([r[1] > 0 for r in rows], bool),
        "snr": np.array([r[2] for r in rows], float),
        "mag": np.array([r[3] for r in rows], float),
    }
