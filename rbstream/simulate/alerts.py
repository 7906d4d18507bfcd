"""Alerts as the survey would have raised them: scenes are drawn until each kind has been detected."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from .detect import DETECTION, SIZE, Detection, observe
from .draw import X, Y
from .kinds import BOGUS, REAL
from .measure import measure
from .optics import Array, Rng
from .scene import Scene, draw_scene

BATCH = 128  # scenes drawn at once: 30 MB of canvases, and numpy's overhead is spread thin
REAL_SHARE = 0.5  # of the alerts: both classes equally well sampled; a survey's mix is not the aim
# Every kind of a class is equally frequent, but for the two that always have masked pixels: half, so that
# 14% of all alerts have NaN while a mask doesn't tell the class.
ALWAYS_MASKED = ("edge", "masked_star_spike")
_MASKED_REALS, _MASKED_BOGUS = 0.14, 0.07  # the rest of the bogus with NaN are those two kinds
_TRUNCATED = 0.01  # share of stamps cut short by the chip's edge, at most this many rows or columns:
_SHORTEST = 55  # ZTF's are 55 x 63 to 62 x 63, or the other way round
_OFF_TRUTH = 2  # px: a detection farther than this from a real source is of something else


@dataclass(frozen=True)
class Alerts:
    """N alerts with their truth: `found` as detected, what a packet's candidate says of it by field, the
    stamps' true shape (N,2) in rows and columns."""

    found: Detection
    measured: dict[str, Array]
    shape: np.ndarray
    real: np.ndarray
    kind: np.ndarray


def triplets(n: int, seed: int) -> tuple[Array, np.ndarray, np.ndarray]:
    """N simulated triplets and their truth: float32 (N,3,63,63) in DN, bool (N,), kind (N,) of str.

    The channels are science, template and difference; pixels that are masked or outside of the chip are
    NaN, and the difference of a negative detection is sign-flipped, as in ZTF's packets.
    """
    stamps = np.empty((n, 3, SIZE, SIZE), np.float32)
    real, kind = np.empty(n, bool), np.empty(n, "U24")
    done = 0
    for batch in alerts(n, seed):
        part = slice(done, done + len(batch.real))
        stamps[part], real[part], kind[part] = batch.found.stamps, batch.real, batch.kind
        done += len(batch.real)
    return stamps, real, kind


def alerts(n: int, seed: int) -> Iterator[Alerts]:
    """The same N alerts for the same seed, in batches; a longer night begins with the shorter one."""
    for batch, begin in enumerate(range(0, n, BATCH)):
        rng = np.random.default_rng([seed, batch])
        yield _first(_batch(rng), min(BATCH, n - begin))


def _first(batch: Alerts, n: int) -> Alerts:
    found = Detection(**{name: values[:n] for name, values in vars(batch.found).items()})
    measured = {name: values[:n] for name, values in batch.measured.items()}
    return Alerts(found, measured, batch.shape[:n], batch.real[:n], batch.kind[:n])


def _batch(rng: Rng) -> Alerts:
    """BATCH detected alerts of random kinds."""
    kind, real = draw_kinds(rng, BATCH)
    found = until_detected(kind, lambda missing: _observed(rng, kind[missing], real[missing]))
    measured = measure(found)
    return Alerts(found, measured, _truncate(rng, found.stamps), real, kind)


def draw_kinds(rng: Rng, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Names of kinds (n,) and whether each is real."""
    real = rng.random(n) < REAL_SHARE
    weight = np.array([0.5 if kind in ALWAYS_MASKED else 1.0 for kind in BOGUS])
    bogus = rng.choice(list(BOGUS), n, p=weight / weight.sum())
    return np.where(real, rng.choice(list(REAL), n), bogus), real


Attempt = Callable[[np.ndarray], tuple[Detection, np.ndarray]]


def until_detected(kind: np.ndarray, attempt: Attempt) -> Detection:
    """Try again for those of `kind` (N,) that `attempt` didn't find, until there is a detection for each.

    attempt: indices of the missing -> their detections, and True where one is good.
    """
    columns: dict[str, np.ndarray] = {}
    missing = np.arange(len(kind))
    while len(missing):
        found, good = attempt(missing)
        for name, values in vars(found).items():
            if name not in columns:
                columns[name] = np.empty((len(kind), *values.shape[1:]), values.dtype)
            columns[name][missing[good]] = values[good]
        missing = missing[~good]
    return Detection(**columns)


def _observed(rng: Rng, kind: np.ndarray, real: np.ndarray) -> tuple[Detection, np.ndarray]:
    """Draw a scene for each kind and observe it; True where an alert came of it."""

    def scene_of(name: str, chosen: np.ndarray) -> Detection:
        scene = draw_scene(rng, len(chosen))
        (REAL.get(name) or BOGUS[name])(rng, scene)
        if name not in ALWAYS_MASKED:
            _mask(rng, scene, _MASKED_REALS if name in REAL else _MASKED_BOGUS)
        return observe(rng, scene)

    found = by_kind(kind, scene_of)
    return found, is_alert(found, real)


def by_kind(kind: np.ndarray, detect: Callable[[str, np.ndarray], Detection]) -> Detection:
    """Call `detect` with each name in `kind` (N,) and its indices; answer in the order of `kind`."""
    groups = [np.flatnonzero(kind == name) for name in np.unique(kind)]
    parts = [detect(str(kind[group[0]]), group) for group in groups]
    back = np.argsort(np.concatenate(groups))
    return Detection(**{name: np.concatenate([getattr(part, name) for part in parts])[back] for name in vars(parts[0])})


def is_alert(found: Detection, real: np.ndarray) -> np.ndarray:
    """True where a survey would have raised an alert, and of the real source if there is one."""
    near = np.hypot(found.x, found.y) <= _OFF_TRUTH
    middle = found.stamps[:, 2, SIZE // 2, SIZE // 2]
    good: np.ndarray = (found.snr >= DETECTION) & (near | ~real) & np.isfinite(middle)
    return good


def _mask(rng: Rng, scene: Scene, share: float) -> None:
    """Put a chip's edge or a saturated star's mask into a share of the scenes, away from the middle."""
    scenes = len(scene.sky)
    chosen = rng.random(scenes) < share
    is_edge = rng.random(scenes) < 0.5
    # Most edges run along rows and columns; some are the straight border of a reference, at any angle.
    tilt = rng.uniform(-0.8, 0.8, scenes) * (rng.random(scenes) < 0.3)
    angle = rng.integers(0, 4, scenes) * np.pi / 2 + tilt
    beyond = X * np.cos(angle)[:, None, None] + Y * np.sin(angle)[:, None, None]
    border = beyond > rng.uniform(6, 30, scenes)[:, None, None]
    # Masks of saturated stars are boxes of 13 to 25 px in real stamps, cut by the stamp's border or not.
    half = rng.uniform(5, 12, scenes)
    far = half + rng.uniform(5, 24, scenes)
    turn = rng.uniform(0, 2 * np.pi, scenes)
    x, y = (far * np.cos(turn))[:, None, None], (far * np.sin(turn))[:, None, None]
    box = np.maximum(np.abs(X - x), np.abs(Y - y)) < half[:, None, None]
    clear = np.maximum(np.abs(X), np.abs(Y)) <= 4
    scene.masked |= np.where(is_edge[:, None, None], border, box) & chosen[:, None, None] & ~clear


def _truncate(rng: Rng, stamps: Array) -> np.ndarray:
    """Cut some stamps short in place: their pixels move to the first corner, the rest is NaN. (N,2)"""
    shape = np.full((len(stamps), 2), SIZE)
    for i in np.flatnonzero(rng.random(len(stamps)) < _TRUNCATED):
        axis, length, low = rng.integers(2), rng.integers(_SHORTEST, SIZE), rng.random() < 0.5
        shape[i, axis] = length
        cut = np.moveaxis(stamps[i], 1 + axis, 0)  # a view with the shortened axis first
        if low:
            cut[:length] = cut[SIZE - length :].copy()
        cut[length:] = np.nan
    return shape
