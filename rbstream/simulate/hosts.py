"""What an event happens on. One distribution for all: what is beneath an event must not tell what it is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .draw import background_flux, snr, somewhere
from .optics import Rng, Sources
from .scene import Scene, flux_of, galaxy, magnitude_of, point

_BRIGHTEST = 13.0  # mag: brighter stars are saturated in ZTF's 30 s, and masked
_FAINTEST = 21.5  # mag: a magnitude above the reference's limit
_NUCLEUS = 0.2  # share of the centred stars: at ZTF's depth active nuclei are fewer than variable stars


def _star(rng: Rng, scene: Scene) -> Sources:
    """A star within 3 px: a blend at ZTF's seeing."""
    x, y = somewhere(rng, scene, 3)
    return point(x, y, flux_of(rng.uniform(_BRIGHTEST, _FAINTEST, len(x))))


def _centred_star(rng: Rng, scene: Scene) -> Sources:
    """A star at the event's own place, 1 to 30 times what a new source there would be: what a variable needs. Some are
    the nucleus of a galaxy, and come before it: what varies is the first source."""
    x, y = somewhere(rng, scene)
    flux = 1.3 * background_flux(scene, snr(rng, scene)) * np.exp(rng.uniform(0, np.log(30), len(x)))
    flux = np.minimum(flux, flux_of(np.float32(_BRIGHTEST)))
    galaxies = galaxy(rng, x, y, magnitude_of(flux) + rng.uniform(-2.5, 1, len(x)))  # 0.4 to 10 times as bright
    galaxies.flux[rng.random(len(x)) >= _NUCLEUS] = 0
    return point(x, y, flux) + galaxies


def _galaxy(rng: Rng, scene: Scene) -> Sources:
    """A galaxy whose centre is mostly within 4 px; as bright as those that a reference misses by a pixel."""
    dx, dy = somewhere(rng, scene, 1)
    scatter = rng.exponential(1.5, len(dx)).astype(np.float32)
    return galaxy(rng, dx * scatter, dy * scatter, rng.uniform(13.5, _FAINTEST, len(dx)))


_PLACED: dict[str, Callable[[Rng, Scene], Sources]] = {
    "star": _star,
    "centred_star": _centred_star,
    "galaxy": _galaxy,
}
HOSTS = ("sky", "star", "galaxy", "centred_star", "centred_star")
"""What may lie beneath an event, each as often as it is named: two in five as variables need it."""


def give_hosts(rng: Rng, scene: Scene, host: np.ndarray) -> None:
    """Put what `host` (B,) names into each scene, in both images. All are drawn, those named are kept."""
    for name, place in _PLACED.items():
        placed = place(rng, scene)
        chosen = host == name
        for column in ("x", "y", "flux", "size"):
            values = getattr(placed, column)
            getattr(scene.host, column)[chosen, : values.shape[1]] = values[chosen]
