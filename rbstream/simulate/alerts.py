"""Alerts as the survey would have raised them: events are drawn until each has been detected.

A scene comes first, with its host, masks and noise, and the event is put into it again and again until it is found:
were scenes thrown away with events, each kind would keep the scenes that suit it, and they would tell it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import numpy as np

from .columns import Batch, join, take
from .detect import DETECTION, SIZE, Detection, observe
from .draw import X, Y
from .hosts import give_hosts
from .kinds import FAR_REACHING, KINDS, draw_hosts, draw_kinds, is_real, known_kinds
from .measure import measure
from .optics import Array, Rng
from .scene import Scene, draw_scene

BATCH = 128  # scenes drawn at once: 30 MB of canvases, and numpy's overhead is spread thin
# Share of the scenes that get a mask. Of all alerts 14% have NaN, of each class about as many: two kinds are always
# masked by themselves and halos often, so that the other far-reaching kinds have fewer.
_MASKED, _MASKED_FAR = 0.125, 0.07
_ALWAYS_MASKED = ("edge", "masked_star_spike")
_TRUNCATED = 0.01  # share of stamps cut short by the chip's edge, at most this many rows or columns:
_SHORTEST = 55  # ZTF's are 55 x 63 to 62 x 63, or the other way round
_OFF_TRUTH = 2  # px: a detection farther than this from a compact event is of something else
# Times the significance of what a scene has without the event, where that alone would be detected: else a faint event
# on a bright star is told by the dipole that the subtraction leaves of the star, and its truth is a lie. What a scene
# has is measured in another draw of its noise: of the transients on hosts one or two in a hundred slip through.
_OUTSHINE = 2.0
# Events tried in a scene, then another is drawn: four in a thousand are so rough that nothing outshines them.
_PATIENCE = 25


class Each(Protocol):
    """Makes a batch of each number, in order: `map`, or what does as much in several processes."""

    def __call__(self, make: Callable[[int], Batch], numbers: Sequence[int], /) -> Iterable[Batch]: ...


@dataclass(frozen=True)
class Alerts:
    """N alerts with their truth: `found` as detected, what a packet's candidate says of it by field, the
    stamps' true shape (N,2) in rows and columns, kind and host (N,) of str."""

    found: Detection
    measured: dict[str, Array]
    shape: np.ndarray
    real: np.ndarray
    kind: np.ndarray
    host: np.ndarray


def triplets(n: int, seed: int, kinds: Iterable[str] | None = None) -> tuple[Array, np.ndarray, np.ndarray]:
    """N simulated triplets and their truth: float32 (N,3,63,63) in DN, bool (N,), kind (N,) of str.

    The channels are science, template and difference; pixels that are masked or outside of the chip are
    NaN, and the difference of a negative detection is sign-flipped, as in ZTF's packets. kinds: as `alerts` has them.
    """
    stamps = np.empty((n, 3, SIZE, SIZE), np.float32)
    real, kind = np.empty(n, bool), np.empty(n, "U24")
    done = 0
    for batch in alerts(n, seed, kinds):
        part = slice(done, done + len(batch.real))
        stamps[part], real[part], kind[part] = batch.found.stamps, batch.real, batch.kind
        done += len(batch.real)
    return stamps, real, kind


def alerts(n: int, seed: int, kinds: Iterable[str] | None = None, each: Each = map) -> Iterator[Alerts]:
    """The same N alerts for the same seed, in batches; a longer night begins with the shorter one.

    kinds: names of those to draw (None: all); half of the alerts are real where there are both classes among them.
    each: as `map`, for one that draws several batches at once. Raises ValueError for unknown names.
    """
    return cut(each(partial(_batch, seed, known_kinds(kinds)), range(-(-n // BATCH))), n)


def cut(batches: Iterable[Batch], n: int) -> Iterator[Batch]:
    """Batches of BATCH, the last one cut short where they would be more than n."""
    return (take(batch, slice(n - number * BATCH)) for number, batch in enumerate(batches))


def _batch(seed: int, names: tuple[str, ...], number: int) -> Alerts:
    """BATCH detected alerts of random kinds, from a stream of their own."""
    rng = np.random.default_rng([seed, number])
    kind = draw_kinds(rng, BATCH, names)
    host = draw_hosts(rng, kind)

    def scenes(missing: np.ndarray) -> Scene:
        scene = draw_scene(rng, len(missing))
        give_hosts(rng, scene, host[missing])
        _mask(rng, scene, _masked_share(kind[missing]))
        return scene

    def detected(name: str | None, scene: Scene) -> Detection:
        if name is not None:
            KINDS[name].put(rng, scene)
        return observe(rng, scene)

    found = until_detected(kind, scenes, detected)
    measured = measure(found)
    return Alerts(found, measured, _truncate(rng, found.stamps), is_real(kind), kind, host)


Places = TypeVar("Places")


def until_detected(
    kind: np.ndarray, prepare: Callable[[np.ndarray], Places], detect: Callable[[str | None, Places], Detection]
) -> Detection:
    """Put an event of each `kind` (N,) into a place until it is detected there, and outshines what is there without it.

    prepare: indices (n,) -> places, a batch of n. detect: kind, None for no event, and places, which are its own to
    change -> detections.
    """
    columns: dict[str, np.ndarray] = {}
    missing, tries = np.arange(len(kind)), 0
    while len(missing):
        if tries % _PATIENCE == 0:
            places = prepare(missing)
            alone = detect(None, take(places, np.arange(len(missing)))).snr
        tries += 1
        found = _by_kind(kind[missing], places, detect)
        good = _is_alert(found, kind[missing]) & ((alone < DETECTION) | (found.snr >= _OUTSHINE * alone))
        for name, values in vars(found).items():
            if name not in columns:
                columns[name] = np.empty((len(kind), *values.shape[1:]), values.dtype)
            columns[name][missing[good]] = values[good]
        missing, places, alone = missing[~good], take(places, ~good), alone[~good]
    return Detection(**columns)


def _by_kind(kind: np.ndarray, places: Places, detect: Callable[[str | None, Places], Detection]) -> Detection:
    """Detections in the order of `kind` (n,): each kind is made for all of its places at once."""
    groups = [np.flatnonzero(kind == name) for name in np.unique(kind)]
    found = join([detect(str(kind[group[0]]), take(places, group)) for group in groups])
    return take(found, np.argsort(np.concatenate(groups)))


def _is_alert(found: Detection, kind: np.ndarray) -> np.ndarray:
    """True where a survey would have raised an alert, and of the event itself if that has a place."""
    near = (np.hypot(found.x, found.y) <= _OFF_TRUTH) | np.isin(kind, list(FAR_REACHING))
    middle = found.stamps[:, 2, SIZE // 2, SIZE // 2]
    good: np.ndarray = (found.snr >= DETECTION) & near & np.isfinite(middle)
    return good


def _masked_share(kind: np.ndarray) -> np.ndarray:
    share = np.where(np.isin(kind, list(FAR_REACHING)), _MASKED_FAR, _MASKED)
    return np.where(np.isin(kind, _ALWAYS_MASKED), 0, share)


def _mask(rng: Rng, scene: Scene, share: np.ndarray) -> None:
    """Put a chip's edge or a saturated star's mask into a share (B,) of the scenes, away from the middle."""
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
