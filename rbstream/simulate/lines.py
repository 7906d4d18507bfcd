"""The kinds of artefact that are lines: trails, spikes, bleeding."""

from __future__ import annotations

import numpy as np

from .draw import X, Y, either
from .optics import SIGMA_PER_FWHM, Array, Rng, Sources
from .scene import Scene, star

_TURNED = 0.3  # share of the spikes that keep to no axis


def _line(rng: Rng, scene: Scene, angle: Array, width: Array) -> np.ndarray:
    """A straight line of unit height through the middle; width is its sigma in px."""
    offset = rng.uniform(-0.7, 0.7, len(angle))
    across = X * np.sin(angle)[:, None, None] - Y * np.cos(angle)[:, None, None] - offset[:, None, None]
    return np.exp(-0.5 * (across / width[:, None, None]) ** 2)


def streak(rng: Rng, scene: Scene) -> None:
    """A satellite's trail across the stamp, as wide as the PSF or out of focus; some flash."""
    scenes = len(scene.sky)
    angle = rng.uniform(0, np.pi, scenes).astype(np.float32)
    width = scene.fwhm * SIGMA_PER_FWHM * rng.uniform(1, 1.6, scenes).astype(np.float32)
    level = scene.noise * np.exp(rng.uniform(0.7, 3.5, scenes))
    along = X * np.cos(angle)[:, None, None] + Y * np.sin(angle)[:, None, None]
    period = rng.uniform(20, 80, scenes)[:, None, None]
    depth = (rng.uniform(0, 0.8, scenes) * (rng.random(scenes) < 0.4))[:, None, None]
    flash = 1 - depth * (0.5 - 0.5 * np.cos(2 * np.pi * along / period))
    scene.science += (level[:, None, None] * flash * _line(rng, scene, angle, width)).astype(np.float32)


def _spike(rng: Rng, scene: Scene, distance: Array, level: np.ndarray, width: tuple[float, float]) -> None:
    """A spike of a star `distance` px away along a row or column, in both images and not quite the same."""
    scenes = len(distance)
    # ZTF's spikes run along rows and columns, three in four of the visible ones along rows; a camera that is turned,
    # or another telescope, has them at any angle.
    angle = np.where(rng.random(scenes) < 0.75, 0, np.pi / 2) + rng.normal(0, 0.02, scenes)
    turned = rng.random(scenes) < _TURNED
    angle[turned] = rng.uniform(0, np.pi, turned.sum())
    side = either(rng, scenes, 0.5)
    along = (X * np.cos(angle)[:, None, None] + Y * np.sin(angle)[:, None, None]) * side[:, None, None]
    away = np.abs(along + distance[:, None, None]) + 4  # 4 px: where the star's own core takes over
    fall = ((distance[:, None, None] + 4) / away) ** 1.5  # between a spike's 1/r and a halo's 1/r^2
    sigma = rng.uniform(*width, scenes).astype(np.float32)
    profile = np.minimum(fall, 30) * _line(rng, scene, angle.astype(np.float32), sigma)
    # Half of them have a knot in the middle, 2 to 8 px long: wavelengths and seeing make spikes lumpy.
    lump = 1 + rng.uniform(0, 3, scenes) * (rng.random(scenes) < 0.5)
    length = rng.uniform(1, 4, scenes)[:, None, None]
    knot = 1 + (lump - 1)[:, None, None] * np.exp(-0.5 * (along / length) ** 2)
    line = (level[:, None, None] * profile).astype(np.float32)
    # Spikes turn and breathe with the field: the reference holds 0 to 1.6 times as much of it.
    share = rng.uniform(0, 1.6, scenes).astype(np.float32)[:, None, None]
    scene.science += (line * knot).astype(np.float32)
    scene.reference += line * share
    scene.stars += star(
        (-distance * side * np.cos(angle)).astype(np.float32),
        (-distance * side * np.sin(angle)).astype(np.float32),
        np.maximum(14.5 - 2.5 * np.log10(1 + level / 20), 10),
    )


def diffraction_spike(rng: Rng, scene: Scene) -> None:
    """A detection on the spike of a bright star that is 6 to 60 px away."""
    scenes = len(scene.sky)
    distance = rng.uniform(6, 60, scenes).astype(np.float32)
    level = scene.noise * np.exp(rng.uniform(1.2, 4, scenes))
    _spike(rng, scene, distance, level, (0.6, 1.2))


def masked_star_spike(rng: Rng, scene: Scene) -> None:
    """A detection on what sticks out of a saturated star whose middle is masked."""
    scenes = len(scene.sky)
    half = rng.uniform(4, 12, scenes).astype(np.float32)  # px: masked boxes in real stamps are 13 to 20 wide
    distance = half + rng.uniform(1.5, 12, scenes).astype(np.float32)
    level = scene.noise * np.exp(rng.uniform(0.8, 4.5, scenes))
    _spike(rng, scene, distance, level, (0.7, 1.8))
    host = Sources(*(column[:, -1:] for column in vars(scene.stars).values()))
    is_disc = (rng.random(scenes) < 0.3)[:, None, None]
    dx, dy = X - host.x[:, :1, None], Y - host.y[:, :1, None]
    disc = np.hypot(dx, dy) <= half[:, None, None]
    scene.masked |= np.where(is_disc, disc, _box(dx, dy, half[:, None, None]))


def _box(dx: Array, dy: Array, half: Array) -> np.ndarray:
    """A square mask with rounded corners, of the distances from its middle."""
    dx, dy = np.abs(dx), np.abs(dy)
    mask: np.ndarray = (np.maximum(dx, dy) <= half) & (dx + dy <= 1.7 * half)
    return mask


def bleed(rng: Rng, scene: Scene) -> None:
    """Charge of a saturated star that ran along its row: hard edges, 1 to 4 px wide, an end in the stamp."""
    scenes = len(scene.sky)
    distance = rng.uniform(3, 25, scenes)[:, None, None]
    length = rng.uniform(0, 15, scenes)[:, None, None]
    wide = rng.integers(1, 4, scenes)[:, None, None]
    side = either(rng, scenes, 0.5)[:, None, None]
    inside = (Y >= 0) & (wide > Y) & (X * side <= length) & (X * side >= -distance)
    level = (scene.noise * np.exp(rng.uniform(1.5, 5, scenes)) * either(rng, scenes, 0.3))[:, None, None]
    uneven = 1 + 0.15 * rng.standard_normal(inside.shape)
    scene.science += (inside * level * uneven).astype(np.float32)
    # A third of the bleeds are in the reference too, where they were deeper or shallower.
    share = rng.uniform(0.3, 1.5, scenes) * (rng.random(scenes) < 0.35)
    scene.reference += (inside * np.abs(level) * share[:, None, None]).astype(np.float32)
    scene.stars += star((-distance * side)[:, 0, 0], np.zeros(scenes, np.float32), rng.uniform(10.5, 13.5, scenes))
