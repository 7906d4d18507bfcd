"""Every kind of event by its name: how it is made, what it may lie on, how frequent it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from . import artefacts, lines, reals, residuals
from .hosts import HOSTS
from .optics import Rng
from .scene import Scene


@dataclass(frozen=True)
class Kind:
    """An event: what puts it into each scene of a batch, the hosts beneath it, its frequency within its class."""

    put: Callable[[Rng, Scene], None]
    hosts: tuple[str, ...] = HOSTS
    weight: float = 1.0


# Of each class, the weights of the kinds that are on some hosts only add up to the shares in HOSTS. The signs agree
# too: science noise is in the difference, so every pixel shows whether it was flipped. A third of ZTF's real alerts
# are negative; here variables, at 60%, make it 20% of the compact reals, and of the compact artefacts the dead pixels
# and what the reference has too much.
_SKY = ("sky",)  # for what brings a star of its own
# The two kinds that always have masked pixels are rare, so that 14% of all alerts have NaN while a mask
# doesn't tell the class.
_MASKED = 0.25
# What is told from a real source by little takes more examples: hot pixels and wrong flux scales by half, cosmic rays,
# what only the reference has and stars that are rough by more. Lines that cross the stamp take fewer, and so do stars
# and galaxies of which one thing alone is wrong.
_HARD = 1.5
_EASY = 0.75

REAL: dict[str, Kind] = {
    "transient": Kind(reals.transient, _SKY),
    "transient_on_star": Kind(reals.transient, ("star",)),
    "transient_in_galaxy": Kind(reals.transient, ("galaxy",)),
    "variable": Kind(reals.variable, ("centred_star",), 2),
    "asteroid": Kind(reals.asteroid),
}
BOGUS: dict[str, Kind] = {
    "cosmic_ray": Kind(artefacts.cosmic_ray, ("sky", "star", "centred_star", "centred_star"), 3.6),
    "cosmic_ray_in_galaxy": Kind(artefacts.cosmic_ray, ("galaxy",), 0.9),
    "hot_pixel": Kind(artefacts.hot_pixel, weight=_HARD),
    "reference_defect": Kind(artefacts.reference_defect, weight=2),
    "bad_column": Kind(artefacts.bad_column, weight=_EASY),
    "ghost": Kind(artefacts.ghost),
    "halo": Kind(artefacts.halo),
    "edge": Kind(artefacts.edge, weight=_MASKED),
    "streak": Kind(lines.streak, weight=_EASY),
    "diffraction_spike": Kind(lines.diffraction_spike, weight=_EASY),
    "masked_star_spike": Kind(lines.masked_star_spike, weight=2 * _MASKED),
    "bleed": Kind(lines.bleed, weight=_EASY),
    "misaligned_star": Kind(residuals.misaligned_star, _SKY, _EASY),
    "misaligned_galaxy": Kind(residuals.misaligned_galaxy, _SKY, _EASY),
    "psf_ring": Kind(residuals.psf_ring, _SKY, _EASY),
    "rough_star": Kind(residuals.rough_star, _SKY, 2),
    "flux_scale": Kind(residuals.flux_scale, _SKY, _HARD),
}
KINDS = REAL | BOGUS

FAR_REACHING: dict[str, str] = {
    "bad_column": "a column crosses the stamp",
    "ghost": "a disc of 6 to 30 px",
    "halo": "the disc around a bright star",
    "edge": "the chip ends beside it",
    "streak": "a trail crosses the stamp",
    "diffraction_spike": "a spike is as long as the stamp, and its star is bright",
    "masked_star_spike": "the star's spike and its mask",
    "bleed": "charge runs for up to 40 px, from a bright star",
    "misaligned_star": "needs a bright star, and the whole reference is off",
    "misaligned_galaxy": "needs a bright galaxy, and the whole reference is off",
    "psf_ring": "needs a bright star, whose wings are matched wrongly too",
    "rough_star": "needs a bright star, whose wings are rough too",
    "flux_scale": "every star of the field is left over",
}
"""Kinds whose own light, or cause, reaches beyond the stamp's middle, and why. Of the others nothing outside of it
may tell what they are: tests/simulate/test_leaks.py."""


def is_real(kind: np.ndarray) -> np.ndarray:
    """Whether each (N,) is a real event."""
    return np.isin(kind, list(REAL))


def draw_kinds(rng: Rng, n: int, names: tuple[str, ...]) -> np.ndarray:
    """Names of kinds (n,), from these; half of them of each class where there are both."""
    weight = np.array([KINDS[name].weight for name in names], float)
    real = is_real(np.array(names))
    for chosen in (real, ~real):
        weight[chosen] /= max(weight[chosen].sum(), 1e-9)  # no kinds of a class: nothing to divide
    return rng.choice(list(names), n, p=weight / weight.sum())


def draw_hosts(rng: Rng, kind: np.ndarray) -> np.ndarray:
    """A host (N,) for each kind (N,)."""
    drawn = rng.random(len(kind))
    hosts = [KINDS[name].hosts for name in kind.tolist()]
    return np.array([of[int(at * len(of))] for of, at in zip(hosts, drawn.tolist(), strict=True)])


def known_kinds(names: Iterable[str] | None) -> tuple[str, ...]:
    """The names, once each and in the order of `KINDS`; all for None. Raises ValueError for others and for none."""
    wanted = set(KINDS if names is None else names)
    if not wanted or wanted - set(KINDS):
        unknown = ", ".join(sorted(wanted - set(KINDS))) or "none"
        raise ValueError(f"no such kinds: {unknown}; there are {', '.join(KINDS)}")
    return tuple(name for name in KINDS if name in wanted)
