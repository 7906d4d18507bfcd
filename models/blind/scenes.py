"""Real triplets made quiet: receivers of an event."""

from __future__ import annotations

import itertools

import numpy as np
from scipy import ndimage as ni

from blind.light import MID, R2, SIZE, Rng, Scene, X, Y, matched_flux, robust_sigma


def draw_transfer(rng: Rng) -> np.ndarray:
    """What one pixel of science leaves in the difference: 0.82, neighbours 0.05, next ring -0.04, sum near 1."""
    t = np.zeros((5, 5))
    (nx, ny), (fx, fy) = rng.normal(0.05, 0.015, 2), rng.normal(-0.04, 0.01, 2)
    t[2, [1, 3]], t[[1, 3], 2], t[2, [0, 4]], t[[0, 4], 2] = nx, ny, fx, fy
    t[2, 2] = np.clip(rng.normal(0.82, 0.04), 0.7, 0.92)
    t[1::2, 1::2] = (rng.normal(0.98, 0.01) - t.sum()) / 4
    return t


def unpack(stamp: np.ndarray, positive: bool) -> tuple[np.ndarray, np.ndarray]:
    """The triplet in float64, sign undone, NaN filled with the sky; and where it was NaN."""
    a = np.asarray(stamp, float).copy()
    bad = ~(np.abs(a) < 1e6)
    nan = bad.any(0)
    for c in range(3):
        good = a[c][~nan]
        a[c][nan] = 0.0 if c == 2 else (np.median(good) if good.size else 0.0)
    if not positive:
        a[2] *= -1
    return a, nan


def empty(a: np.ndarray, nan: np.ndarray, mf: np.ndarray, noise: float, sigma: float, rng: Rng) -> bool:
    """Takes the event from the middle: a noise patch of the same difference there, the same from the science."""
    r = np.sqrt(R2)
    core, rim = r < 8, (r > 8) & (r < 11)
    if nan[core].any() or np.abs(mf[core]).max() > 60 * noise or np.abs(a[2][rim]).max() > 6 * sigma:
        return False
    for _ in range(16):
        dy, dx = rng.integers(-22, 23, 2)
        if max(abs(dy), abs(dx)) < 17:
            continue
        there = (slice(MID + dy - 9, MID + dy + 10), slice(MID + dx - 9, MID + dx + 10))
        patch = a[2][there]
        if nan[there].any() or np.abs(patch).max() > 5 * sigma or np.abs(mf[there]).max() > 4.5 * noise:
            continue
        here = (slice(MID - 9, MID + 10),) * 2
        w = 1 / (1 + np.exp((r[here] - 6.5) / 0.7))
        change = (np.sqrt(w * w + (1 - w) ** 2) ** -1) * (w * patch + (1 - w) * a[2][here]) - a[2][here]
        change[w < 0.02] = 0
        a[2][here] += change
        a[0][here] += change
        return True
    return False


def moved(a: np.ndarray, nan: np.ndarray, y: int, x: int, mirror: bool) -> tuple[np.ndarray, np.ndarray]:
    """The scene with (y, x) in its middle; where it falls outside, NaN or its own mirror image."""
    dy, dx = y - MID, x - MID
    if mirror:
        rows, columns = (SIZE - 1 - np.abs(SIZE - 1 - np.abs(np.arange(SIZE) + d)) for d in (dy, dx))
        here = np.ix_(rows, columns)
        return a[:, here[0], here[1]], nan[here]
    out, mask = np.zeros_like(a), np.ones_like(nan)
    ty, tx = slice(max(0, -dy), SIZE - max(0, dy)), slice(max(0, -dx), SIZE - max(0, dx))
    sy, sx = slice(max(0, dy), SIZE + min(0, dy)), slice(max(0, dx), SIZE + min(0, dx))
    for c in range(2):
        out[c] = np.median(a[c])
    out[:, ty, tx] = a[:, sy, sx]
    mask[ty, tx] = nan[sy, sx]
    return out, mask


def places(a: np.ndarray, nan: np.ndarray, mf: np.ndarray, noise: float, want: str) -> np.ndarray:
    """Quiet places (y, x) off the middle where the template shows what is wanted."""
    quiet = (ni.maximum_filter(np.abs(mf), 9) < 4.2 * noise) & ~ni.binary_dilation(nan, iterations=4)
    quiet &= (np.maximum(np.abs(X), np.abs(Y)) <= 20) & (R2 > 144)
    if want == "any":
        return np.argwhere(quiet)
    light = ni.gaussian_filter(a[1], 0.8) - np.median(a[1])
    sig = robust_sigma(a[1])
    if want == "sky":
        return np.argwhere(quiet & (ni.maximum_filter(light, 5) < max(6 * sig, 6)))
    peak = quiet & (light == ni.maximum_filter(light, 7)) & (light > max(20 * sig, 40))
    if want == "galaxy":
        raw = np.maximum(a[1] - np.median(a[1]), 0)
        peak &= ni.uniform_filter(raw, 13) * 169 > 2.6 * ni.uniform_filter(raw, 5) * 25
    return np.argwhere(peak)


def prepare(stamps, positive, masked, order, want: str, rng: Rng) -> tuple[Scene, int]:  # noqa: RET503
    """The next receiver that can give a quiet scene of the wanted sort (an empty one where six have no galaxy)."""
    for tried in itertools.count():  # until one can
        want = "sky" if want == "galaxy" and tried >= 6 else want
        i = int(next(order))
        a, nan = unpack(stamps[i], bool(positive[i]))
        if nan.mean() > 0.5:
            continue
        mf = matched_flux(a[2])
        noise, sigma = robust_sigma(mf[~nan]), robust_sigma(a[2][~nan])
        if not 4 < noise < 300:
            continue
        done = False
        if rng.random() < 0.65:
            done = empty(a, nan, mf, noise, sigma, rng)
            if done and want in ("sky", "object", "galaxy"):
                here = a[1][MID - 3 : MID + 4, MID - 3 : MID + 4].max() - np.median(a[1])
                done = (here < max(8 * robust_sigma(a[1]), 8)) if want == "sky" else want == "object" and here > 40
        if not done:
            a, nan = unpack(stamps[i], bool(positive[i]))
            where = places(a, nan, mf, noise, want)
            if not len(where):
                continue
            a, nan = moved(a, nan, *where[rng.integers(len(where))], bool(rng.random() < 0.6))
        if rng.random() < 0.15:  # another stamp's mask
            other = np.isnan(stamps[int(rng.choice(masked))][2]) if len(masked) else nan
            if not other[MID - 6 : MID + 7, MID - 6 : MID + 7].any():
                nan = nan | other
        if nan[MID - 3 : MID + 4, MID - 3 : MID + 4].any():
            continue
        return Scene(a[0], a[1], a[2], nan, noise, draw_transfer(rng)), i
