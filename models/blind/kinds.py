"""The kinds of events by name, and the host that some have.

A maker takes (scene, psf, rng) and returns Light. Its `place` says what lies at the scene's middle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from blind.light import Light, Psf, Rng, Scene, flux_of, scene_has_object


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
