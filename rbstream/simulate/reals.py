"""The kinds of real event: each a function that puts one into every scene of a batch, near its middle.

Amplitudes are drawn around what a 5-sigma detector notices, because most of what a survey finds is faint.
"""

from __future__ import annotations

import numpy as np

from .draw import either, psf_flux, snr, somewhere
from .optics import Rng, Sources
from .scene import Scene, galaxy, point, star


def transient(rng: Rng, scene: Scene) -> None:
    """A new point source wherever it happens to be: mostly on empty sky."""
    x, y = somewhere(rng, scene)
    scene.new = point(x, y, psf_flux(scene, snr(rng, scene)))


def transient_on_star(rng: Rng, scene: Scene) -> None:
    """A new point source beside a star, within 3 px."""
    x, y = somewhere(rng, scene)
    dx, dy = somewhere(rng, scene, 3)
    scene.stars += star(x + dx, y + dy, rng.uniform(15, 21.5, len(x)))
    scene.new = point(x, y, 1.5 * psf_flux(scene, snr(rng, scene)))


def transient_in_galaxy(rng: Rng, scene: Scene) -> None:
    """A supernova or a nucleus: a new point source within 4 px of a galaxy's centre."""
    x, y = somewhere(rng, scene)
    dx, dy = somewhere(rng, scene, 1)
    scatter = rng.exponential(1.5, len(x)).astype(np.float32)
    scene.stars += galaxy(rng, x + dx * scatter, y + dy * scatter, rng.uniform(15, 21, len(x)))
    scene.new = point(x, y, 1.2 * psf_flux(scene, snr(rng, scene)))


def variable(rng: Rng, scene: Scene) -> None:
    """A star that became brighter or fainter, by 3% to all of its flux."""
    x, y = somewhere(rng, scene)
    sign = either(rng, len(x), 0.5)
    change = 1.3 * psf_flux(scene, snr(rng, scene))
    # The star is 1 to 30 times the change: a fading star can't lose more than it has.
    base = change * np.exp(rng.uniform(0, np.log(30), len(x))).astype(np.float32)
    scene.stars += point(x, y, base)
    scene.new = point(x, y, sign * change)


def asteroid(rng: Rng, scene: Scene) -> None:
    """A moving point source, trailed over the exposure by 0 to 12 px."""
    x, y = somewhere(rng, scene)
    # Main-belt objects move 0.3 px in 30 s; near-Earth ones trail. Trails beyond 12 px are streaks.
    length = np.minimum(rng.exponential(2.5, len(x)), 12)[:, None]
    angle = rng.uniform(0, np.pi, len(x))[:, None]
    along = np.linspace(-0.5, 0.5, 9) * length
    flux = psf_flux(scene, snr(rng, scene) * (1 + 0.3 * length[:, 0]).astype(np.float32))
    scene.new = Sources(
        (x[:, None] + along * np.cos(angle)).astype(np.float32),
        (y[:, None] + along * np.sin(angle)).astype(np.float32),
        np.repeat(flux[:, None] / 9, 9, axis=1).astype(np.float32),
        np.zeros((len(x), 9), np.float32),
    )
