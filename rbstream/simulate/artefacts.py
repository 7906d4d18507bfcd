"""The kinds of artefact that a detector or its optics make: light in one image that no sky sent."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .draw import X, Y, either, psf_flux, snr, somewhere
from .optics import CANVAS, CENTRE, Array, Rng, Sources, pixel_psf, render
from .scene import Scene, star


def track(rng: Rng, scene: Scene, longest: float) -> Array:
    """A charged particle's track in silicon: straight, 1 to `longest` px, uneven, hardly blurred."""
    x, y = somewhere(rng, scene)
    scenes, points = len(x), 24
    length = np.minimum(rng.exponential(2.5, scenes), longest)[:, None]
    angle = rng.uniform(0, np.pi, scenes)[:, None]
    along = np.linspace(-0.5, 0.5, points) * length
    # From a seventh of the flux of a star of the same significance, which in so few pixels is found as faint as stars
    # are, to twice: most tracks are far above the noise.
    total = psf_flux(scene, snr(rng, scene)) * np.exp(rng.uniform(-2, 0.7, scenes)).astype(np.float32)
    share = rng.gamma(2.0, 1.0, (scenes, points))
    share /= share.sum(axis=1, keepdims=True)
    path = Sources(
        (x[:, None] + along * np.cos(angle)).astype(np.float32),
        (y[:, None] + along * np.sin(angle)).astype(np.float32),
        (total[:, None] * share * (1 + 0.3 * length)).astype(np.float32),
        np.zeros((scenes, points), np.float32),
    )
    # Charge diffuses by 0 to 0.6 px: a perfect delta is too easily told from a star.
    return render(pixel_psf(rng.uniform(0, 0.6, scenes).astype(np.float32)), path)


def cosmic_ray(rng: Rng, scene: Scene) -> None:
    """A track in the science image alone."""
    scene.science += track(rng, scene, 15)


def hot_pixel(rng: Rng, scene: Scene) -> None:
    """One to three neighbouring pixels that are too high, or (a fifth) too low."""
    scenes = np.arange(len(scene.sky))
    share = np.exp(rng.uniform(-1.6, -0.35, len(scenes)))  # of a star's flux, as of tracks
    level = either(rng, len(scenes), 0.2) * psf_flux(scene, snr(rng, scene)) * share
    scene.science[scenes, CENTRE, CENTRE] += level
    for less in (0.5, 0.3):  # a second and third pixel have less, in half of the cases each
        step = rng.integers(-1, 2, (2, len(scenes)))
        partner = level * less * (rng.random(len(scenes)) < 0.5)
        scene.science[scenes, CENTRE + step[0], CENTRE + step[1]] += partner


def bad_column(rng: Rng, scene: Scene) -> None:
    """One or two columns too high or too low, over all or a part of the stamp."""
    scenes = len(scene.sky)
    level = either(rng, scenes, 0.5) * scene.noise * np.exp(rng.uniform(0.8, 3.5, scenes))
    uneven = 1 + 0.3 * rng.standard_normal((scenes, CANVAS, 1))
    begin = np.where(rng.random(scenes) < 0.5, -CANVAS, rng.uniform(-25, 1, scenes))[:, None, None]
    end = np.where(rng.random(scenes) < 0.5, CANVAS, rng.uniform(0, 25, scenes))[:, None, None]
    column = (X == 0) + (X == 1) * rng.uniform(0, 0.8, (scenes, 1, 1)) * (rng.random((scenes, 1, 1)) < 0.4)
    scene.science += (level[:, None, None] * uneven * column * (begin <= Y) * (end >= Y)).astype(np.float32)


def ghost(rng: Rng, scene: Scene) -> None:
    """Light reflected between filter and window: a disc or ring wider than the stamp's middle."""
    scenes = len(scene.sky)
    radius = rng.uniform(6, 30, scenes)
    hole = np.where(rng.random(scenes) < 0.5, 0, rng.uniform(0.3, 0.8, scenes))
    angle = rng.uniform(0, 2 * np.pi, scenes)
    # Its rim is in the middle.
    disc = _disc(radius * np.cos(angle), radius * np.sin(angle), radius, hole, rng.uniform(0.5, 2.0, scenes))
    level = scene.noise * np.exp(rng.uniform(0.3, 2.2, scenes)) * either(rng, scenes, 0.2)
    scene.science += level[:, None, None] * disc


def halo(rng: Rng, scene: Scene) -> None:
    """The reflection around a bright star: a disc whose rim is in the middle, displaced and of another strength in
    the reference. What is detected is its rim, and the glow within that the reference doesn't cancel."""
    scenes = len(scene.sky)
    radius = rng.uniform(35, 80, scenes)
    angle = rng.uniform(0, 2 * np.pi, scenes)
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    soft = rng.uniform(0.7, 2.5, scenes)
    level = scene.noise * np.exp(rng.uniform(0.5, 2.5, scenes))
    # Reflections wander with the star's place on the chip, and dithered exposures blur them.
    dx, dy = rng.normal(0, 3, (2, scenes))
    share = rng.uniform(0, 1.5, scenes)
    scene.science += level[:, None, None] * _glow(x, y, radius, soft)
    scene.reference += (level * share)[:, None, None] * _glow(x + dx, y + dy, radius, 2 * soft)
    scene.stars += star(x, y, rng.uniform(9.5, 12, scenes))  # saturated: the middle of it is masked
    half = rng.uniform(6, 11, scenes)[:, None, None]
    scene.masked |= np.maximum(np.abs(X - x[:, None, None]), np.abs(Y - y[:, None, None])) <= half


def _glow(x: np.ndarray, y: np.ndarray, radius: np.ndarray, soft: np.ndarray) -> Array:
    """A disc that is up to twice as bright towards its centre."""
    distance = np.hypot(X - x[:, None, None], Y - y[:, None, None])
    disc = _disc(x, y, radius, np.zeros(len(x)), soft)
    glow: Array = (disc * (2 - np.minimum(distance / radius[:, None, None], 1))).astype(np.float32)
    return glow


def _disc(x: np.ndarray, y: np.ndarray, radius: np.ndarray, hole: np.ndarray, soft: np.ndarray) -> Array:
    """(B,CANVAS,CANVAS) of unit height around x, y [px] (B,), with a hole [share of the radius] and soft rims [px]."""
    x, y, radius, hole, soft = (values[:, None, None] for values in (x, y, radius, hole, soft))
    distance = np.hypot(X - x, Y - y)
    return np.asarray(_step((radius - distance) / soft) * _step((distance - hole * radius) / soft), np.float32)


def _step(value: np.ndarray) -> np.ndarray:
    """0 to 1, soft over a unit."""
    return np.asarray(0.5 + 0.5 * np.tanh(value))


def edge(rng: Rng, scene: Scene) -> None:
    """A detection on the last rows before the chip's edge, where the background runs away."""
    scenes = len(scene.sky)
    angle = rng.integers(0, 4, scenes) * np.pi / 2 + rng.normal(0, 0.02, scenes)
    beyond = X * np.cos(angle)[:, None, None] + Y * np.sin(angle)[:, None, None]
    distance = rng.uniform(2, 7, scenes)[:, None, None]
    scene.masked |= beyond > distance
    scale = rng.uniform(0.8, 3.0, scenes)[:, None, None]
    level = (scene.noise * np.exp(rng.uniform(1, 4, scenes)) * either(rng, scenes, 0.5))[:, None, None]
    uneven = 1 + 0.3 * rng.standard_normal(scene.science.shape)
    scene.science += (level * uneven * np.exp(np.minimum(beyond - distance, 0) / scale)).astype(np.float32)


def reference_defect(rng: Rng, scene: Scene) -> None:
    """A track or a patch that only the reference has, or lacks: a detection with nothing to fade or to rise.

    A fifth are bites: the stack has clipped a part of what is there, as it does where stars saturate or move.
    """
    scenes = len(scene.sky)
    patch = _patch(rng, scene)
    # As if a PSF's flux were spread over the patch, but never thinner than over 12 px: it has to be seen.
    level = psf_flux(scene, snr(rng, scene)) / 12
    is_track = (rng.random(scenes) < 0.6)[:, None, None]
    defect = np.where(is_track, track(rng, scene, 10), patch.inside * level[:, None, None])
    # What the stacking clipped away is missing; what it didn't is too much.
    scene.reference += (either(rng, scenes, 0.4)[:, None, None] * defect).astype(np.float32)
    bitten = rng.random(scenes) < 0.2
    scene.reference[bitten] = -_bite(rng, scene, patch)[bitten]


class _Patch(NamedTuple):
    """Rectangles around the candidates: coordinates [px] along one side (B,CANVAS,CANVAS) and, unsigned, across it, and
    half the length of either side (B,1,1)."""

    along: np.ndarray
    across: np.ndarray
    half_length: np.ndarray
    half_width: np.ndarray

    @property
    def inside(self) -> np.ndarray:
        return np.asarray((np.abs(self.along) < self.half_length) & (self.across < self.half_width))


def _patch(rng: Rng, scene: Scene) -> _Patch:
    scenes = len(scene.sky)
    x, y = (place[:, None, None] for place in somewhere(rng, scene))
    half = np.exp(rng.uniform(np.log(0.5), np.log(6), (2, scenes)))[:, :, None, None]
    # Half keep to rows and columns, as detectors do; what other exposures were clipped by is turned.
    angle = np.where(rng.random(scenes) < 0.5, 0, rng.uniform(0, 2 * np.pi, scenes))[:, None, None]
    along = (X - x) * np.cos(angle) + (Y - y) * np.sin(angle)
    across = np.abs((Y - y) * np.cos(angle) - (X - x) * np.sin(angle))
    return _Patch(along, across, *half)


def _bite(rng: Rng, scene: Scene, patch: _Patch) -> np.ndarray:
    """Steady light (B,CANVAS,CANVAS) on one side of a rim through the middle: half a star, cut straight, is left."""
    scenes = len(scene.sky)
    rim = patch.along - rng.uniform(-1, 0.5, (scenes, 1, 1))
    clipped = (rim > 0) & (rim < np.minimum(2 * patch.half_length, 6)) & (patch.across < patch.half_width)
    return np.asarray(clipped * rng.uniform(0.3, 1, (scenes, 1, 1)) * render(scene.psf, scene.steady))
