"""Artefacts of the sky, the optics and the detector."""

from __future__ import annotations

import numpy as np
from scipy import ndimage as ni

from blind.kinds import GALAXY_MAG, hosted, kind
from blind.light import (
    FULL_WELL,
    MID,
    SIZE,
    Light,
    Psf,
    Rng,
    Scene,
    X,
    Y,
    deposits,
    galaxy,
    jitter,
    logu,
    lumps,
    pick,
    soft_blob,
    spike,
)


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
