"""The kinds of real event: each a function that puts one into every scene of a batch, near its middle.

Amplitudes are drawn around what a 5-sigma detector notices, because most of what a survey finds is faint.
"""

from __future__ import annotations

import numpy as np

from .draw import either, psf_flux, snr, somewhere
from .optics import Rng, Sources
from .scene import Scene, point


def transient(rng: Rng, scene: Scene) -> None:
    """A new point source: a nova on empty sky, a flare beside a star, a supernova or a nucleus in a galaxy."""
    x, y = somewhere(rng, scene)
    scene.new = point(x, y, psf_flux(scene, snr(rng, scene)))


def variable(rng: Rng, scene: Scene) -> None:
    """A star, the host's first source, that became brighter or (a little more often) fainter, by at most its flux."""
    base = scene.host.flux[:, 0]
    change = np.minimum(psf_flux(scene, snr(rng, scene)), base)
    scene.new = point(scene.host.x[:, 0], scene.host.y[:, 0], either(rng, len(base), 0.6) * change)


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
