"""Artefacts of the subtraction and of the reference."""

from __future__ import annotations

import numpy as np
from scipy import ndimage as ni

from blind.detector import disc, particle, pixels, satellite
from blind.kinds import kind
from blind.light import (
    SIZE,
    Light,
    Psf,
    Rng,
    Scene,
    X,
    Y,
    galaxy,
    jitter,
    logu,
    lumps,
    pick,
    reference_psf,
    scene_has_object,
    star,
)


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
