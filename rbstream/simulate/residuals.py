"""The kinds of artefact that a subtraction leaves behind.

Nothing is drawn (no dipole, no ring): the scene gets a star and an error, and the residual emerges.
"""

from __future__ import annotations

import numpy as np

from .draw import either, somewhere
from .optics import Array, Rng, misjudged
from .scene import Scene, galaxy, star


def misaligned_star(rng: Rng, scene: Scene) -> None:
    """A star in a reference that is 0.1 to 0.6 px off: a dipole."""
    x, y = somewhere(rng, scene)
    scene.stars += star(x, y, rng.uniform(12.0, 18.5, len(x)))
    _roughen(rng, scene)
    _misalign(rng, scene, 0.1, 0.6)


def misaligned_galaxy(rng: Rng, scene: Scene) -> None:
    """A galaxy in a reference that is 0.15 to 1 px off."""
    x, y = somewhere(rng, scene)
    scene.stars += galaxy(rng, x, y, rng.uniform(13.5, 18, len(x)))
    _misalign(rng, scene, 0.15, 1.0)


def _roughen(rng: Rng, scene: Scene) -> None:
    """What goes wrong for a star seldom goes wrong alone: 0.3 to 5% from pixel to pixel on top, and lobes."""
    scene.roughness = _between(rng, scene, 0.003, 0.05)
    scene.matched_psf = misjudged(rng, scene.psf, _between(rng, scene, 0.003, 0.1))


def _between(rng: Rng, scene: Scene, least: float, most: float) -> Array:
    """A number (B,), each order of magnitude as likely."""
    return np.exp(rng.uniform(np.log(least), np.log(most), len(scene.sky))).astype(np.float32)


def _misalign(rng: Rng, scene: Scene, least: float, most: float) -> None:
    shift = _between(rng, scene, least, most)
    angle = rng.uniform(0, 2 * np.pi, len(scene.sky))
    scene.shift_x = (shift * np.cos(angle)).astype(np.float32)
    scene.shift_y = (shift * np.sin(angle)).astype(np.float32)


def psf_ring(rng: Rng, scene: Scene) -> None:
    """A bright star whose reference was matched to a PSF 3 to 20% too wide or too narrow: a ring."""
    x, y = somewhere(rng, scene)
    scene.stars += star(x, y, rng.uniform(12.0, 17, len(x)))
    _roughen(rng, scene)
    error = _between(rng, scene, 0.03, 0.2) * either(rng, len(x), 0.5)
    scene.width_error = 1 + error


def rough_star(rng: Rng, scene: Scene) -> None:
    """A bright star whose core the match gets wrong: by 1 to 8% from pixel to pixel, its lobes by 3 to 20%, and its
    light by at most as much as its lobes, as it would where the detector's response isn't linear."""
    x, y = somewhere(rng, scene)
    lobes = _between(rng, scene, 0.03, 0.2)
    scene.stars += star(x, y, rng.uniform(12, 16.5, len(x)))
    scene.roughness = _between(rng, scene, 0.01, 0.08)
    scene.matched_psf = misjudged(rng, scene.psf, lobes)
    scene.width_error = (1 + rng.normal(0, 0.02, len(x))).astype(np.float32)
    # What is left of 51 real ones adds up to 1.5 to 4.2% of their light (10 to 90%), of either sign, and to 22 to 82%
    # of their residual's absolute. One of wrong light and no lobes would be a variable.
    scene.scale_error = (1 + lobes * rng.uniform(0, 1, len(x)) * either(rng, len(x), 0.5)).astype(np.float32)
    _misalign(rng, scene, 0.02, 0.25)


def flux_scale(rng: Rng, scene: Scene) -> None:
    """A reference scaled wrongly by 3 to 30%: every star of the field is left over with the same sign."""
    x, y = somewhere(rng, scene)
    scene.stars += star(x, y, rng.uniform(13, 18.5, len(x)))
    error = _between(rng, scene, 0.03, 0.3) * either(rng, len(x), 0.5)
    scene.scale_error = 1 + error
    # One star alone would be a variable: eight more of 15 to 18 mag make it the field's fault.
    for _ in range(8):
        scene.stars += star(*somewhere(rng, scene, 34), rng.uniform(14.5, 18.5, len(x)))
