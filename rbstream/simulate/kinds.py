"""Every kind of event by its name."""

from __future__ import annotations

from collections.abc import Callable

from . import artefacts, lines, reals, residuals
from .optics import Rng
from .scene import Scene

Kind = Callable[[Rng, Scene], None]

REAL: dict[str, Kind] = {
    "transient": reals.transient,
    "transient_on_star": reals.transient_on_star,
    "transient_in_galaxy": reals.transient_in_galaxy,
    "variable": reals.variable,
    "asteroid": reals.asteroid,
}
BOGUS: dict[str, Kind] = {
    "cosmic_ray": artefacts.cosmic_ray,
    "hot_pixel": artefacts.hot_pixel,
    "bad_column": artefacts.bad_column,
    "ghost": artefacts.ghost,
    "edge": artefacts.edge,
    "reference_defect": artefacts.reference_defect,
    "streak": lines.streak,
    "diffraction_spike": lines.diffraction_spike,
    "masked_star_spike": lines.masked_star_spike,
    "bleed": lines.bleed,
    "misaligned_star": residuals.misaligned_star,
    "misaligned_galaxy": residuals.misaligned_galaxy,
    "psf_ring": residuals.psf_ring,
    "rough_star": residuals.rough_star,
    "flux_scale": residuals.flux_scale,
}
