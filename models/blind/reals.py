"""Real events: transients, variables, asteroids."""

from __future__ import annotations

from blind.kinds import GALAXY_MAG, hosted, kind
from blind.light import Light, Psf, Rng, Scene, galaxy, jitter, logu, star, trail


@kind("transient_sky", real=True, place=("sky",))
def transient_sky(scene: Scene, psf: Psf, rng: Rng) -> Light:
    return Light(psf.at(*jitter(rng)), sign=1)


@kind("transient_star", real=True, place=("sky", "object"))
def transient_star(scene: Scene, psf: Psf, rng: Rng) -> Light:
    x, y = jitter(rng)
    return hosted(Light(psf.at(x, y), sign=1), scene, psf, rng, star, (x, y), 1.5, (15, 20))


@kind("transient_galaxy", real=True, place=("sky", "sky", "galaxy"))
def transient_galaxy(scene: Scene, psf: Psf, rng: Rng) -> Light:
    x, y = jitter(rng)
    return hosted(Light(psf.at(x, y), sign=1), scene, psf, rng, galaxy, (x, y), 2.5, GALAXY_MAG)


def variable(psf: Psf, rng: Rng, sign: int) -> Light:
    """A star of flux F in the reference and F (1 + f) in science; one event carries both, so both scale."""
    x, y = jitter(rng)
    f = sign * (logu(rng, 0.05, 4) if sign > 0 else logu(rng, 0.05, 0.97))
    s, r, m = star(psf, rng, x, y, 1 / abs(f), error=0.015)
    return Light(s * (1 + f), r, m, sign=sign)


@kind("variable_positive", real=True, place=("sky", "any"))
def variable_positive(scene: Scene, psf: Psf, rng: Rng) -> Light:
    return variable(psf, rng, 1)


@kind("variable_negative", real=True, place=("sky", "any"))
def variable_negative(scene: Scene, psf: Psf, rng: Rng) -> Light:
    return variable(psf, rng, -1)


@kind("asteroid_trailed", real=True)
def asteroid_trailed(scene: Scene, psf: Psf, rng: Rng) -> Light:
    return Light(trail(psf, rng, logu(rng, 1.5, 10), *jitter(rng)), sign=1)


@kind("asteroid_point", real=True)
def asteroid_point(scene: Scene, psf: Psf, rng: Rng) -> Light:
    return Light(trail(psf, rng, rng.uniform(0, 1.2), *jitter(rng)), sign=1)
