"""Light added to a quiet scene, subtracted, and kept where a detector would have found it."""

from __future__ import annotations

import numpy as np
from scipy import ndimage as ni

from blind import detector, reals, residuals  # noqa: F401 - they name their kinds
from blind.kinds import KINDS
from blind.light import (
    MID,
    R2,
    SEEN,
    SIZE,
    ZERO_POINT,
    Light,
    Psf,
    Rng,
    Scene,
    X,
    matched_flux,
    pick,
)
from blind.scenes import prepare

GAIN = 6.2  # electrons per DN
FRAMES = 20  # frames in a reference
FAINTEST, BRIGHTEST = 20.75, 13.8  # mag, of a detection
OUTSHINE = 2.0  # times what a scene and the host leave without the event
NEAR = R2 <= 2.3**2  # where the detection is looked for


def expose(light: np.ndarray | float, frames: int, rng: Rng) -> np.ndarray:
    """Light with its photon noise."""
    a = np.broadcast_to(np.asarray(light, float), X.shape)
    return a + rng.normal(size=X.shape) * np.sqrt(np.maximum(a, 0) / (GAIN * frames))


def add(scene: Scene, light: Light, target: float, rng: Rng):
    """Science, template, difference, sign, SNR and magnitude; None where it would not have been detected."""
    nan = scene.nan if light.nan is None else scene.nan | light.nan
    if nan[MID - 2 : MID + 3, MID - 2 : MID + 3].any():
        return None
    amp = 1.0
    if not light.fixed:
        unit = matched_flux(ni.convolve(light.sci - light.mat + np.zeros_like(X), scene.transfer, mode="nearest"))[NEAR]
        best = (unit * light.sign).max() if light.sign else np.abs(unit).max()
        if best <= 0:
            return None
        amp = target * scene.noise / best
        highest = max(np.max(np.abs(light.sci)), np.max(np.abs(light.ref)))
        if amp * highest > light.most:
            return None
    sci, ref, mat = (
        amp * p + h for p, h in ((light.sci, light.host_sci), (light.ref, light.host_ref), (light.mat, light.host_mat))
    )
    s = expose(np.minimum(sci, light.clip), 1, rng)
    grain = expose(ref, FRAMES, rng) - ref
    r = np.minimum(ref, light.clip) + grain
    m = np.minimum(mat, light.clip) + ni.gaussian_filter(grain, 0.5)
    dif = scene.dif + ni.convolve(s - m, scene.transfer, mode="nearest")
    seen = matched_flux(np.where(nan, 0, dif))[NEAR]
    sign = light.sign or (1 if seen.max() > -seen.min() else -1)
    flux = (sign * seen).max()
    snr = flux / scene.noise
    if snr < light.least:
        return None
    mag = ZERO_POINT - 2.5 * np.log10(flux)
    if not BRIGHTEST <= mag <= FAINTEST:
        return None
    out = np.stack([scene.sci + s, scene.ref + r, sign * dif])
    out[:, nan] = np.nan
    return out, sign, snr, mag


def outshines(scene: Scene, light: Light, snr: float) -> bool:
    """Whether a detection is of the event: else what the host leaves of itself is told to be real.

    Asked of reals only: an artefact on a residual is bogus either way.
    """
    left = scene.dif + ni.convolve(light.host_sci - light.host_mat + np.zeros_like(X), scene.transfer, mode="nearest")
    alone = np.abs(matched_flux(left)[NEAR]).max() / scene.noise
    return alone < SEEN or snr >= OUTSHINE * alone


def inject(stamps: np.ndarray, positive: np.ndarray, n: int, seed: int, kinds: list[str] | None = None) -> dict:
    """n artificial alerts, half of them real (where `kinds` holds both classes), all kinds of a class equally often."""
    rng = np.random.default_rng(seed)
    names = list(KINDS) if kinds is None else list(kinds)
    groups = [g for g in ([k for k in names if KINDS[k].real], [k for k in names if not KINDS[k].real]) if g]
    todo = [g[(j // len(groups)) % len(g)] for j in range(n) for g in (groups[j % len(groups)],)]
    todo = [todo[j] for j in rng.permutation(n)]
    masked = np.flatnonzero(np.isnan(stamps[:, 2]).any((1, 2)))

    def endless():
        while True:
            yield from rng.permutation(len(stamps))

    order = endless()
    rows = []
    for name in todo:
        k = KINDS[name]
        want = pick(rng, *k.place)
        found = None
        while found is None:
            scene, i = prepare(stamps, positive, masked, order, want, rng)
            psf = Psf.draw(rng)
            target = 5.2 * 10 ** (1.9 * rng.random() ** 1.3)
            for _ in range(3):
                light = k.make(scene, psf, rng)
                seen = add(scene, light, target, rng)
                if seen is not None and (not k.real or outshines(scene, light, seen[2])):
                    found = seen
                    break
        rows.append((*found, i))
    return {
        "stamps": np.array([r[0] for r in rows], np.float32).reshape(-1, 3, SIZE, SIZE),
        "real": np.array([KINDS[k].real for k in todo], bool),
        "kind": np.array(todo, str),
        "receiver": np.array([r[4] for r in rows], int),
        "positive": np.array([r[1] > 0 for r in rows], bool),
        "snr": np.array([r[2] for r in rows], float),
        "mag": np.array([r[3] for r in rows], float),
    }
