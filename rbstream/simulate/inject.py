"""Injection: simulated events in real triplets, so that everything but the event is real.

All kinds get the same receivers, prepared in the same ways and with the same hosts in equal shares, and a receiver is
kept until its event has been detected: nothing about it tells the class.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from .alerts import BATCH, Each, cut, until_detected
from .detect import SIZE, Detection, detect, shine, transfer
from .hosts import give_hosts
from .kinds import KINDS, draw_hosts, draw_kinds, is_real, known_kinds
from .measure import measure
from .optics import CANVAS, CENTRE, MARGIN, Array, Rng
from .scene import GAIN, Scene, draw_scene, neighbours

_EMPTIED = 7.0  # px around the middle that are replaced by noise: what a PSF of 3.4 px FWHM fills
_RECENTRED = 0.3  # share of receivers moved to another, quiet place instead of being emptied
_FARTHEST = 18  # px that a receiver is moved by: more would leave less than half of it
_QUIET = 4.0  # sigma of single pixels: a place without anything to detect
# DN: the peak of a 15 mag star. Nothing subtracts to mere noise there, so emptying it would teach a lie.
_BRIGHT = 4000
_MASKED = 0.1  # share that wear the NaN mask of another real triplet
_FILL = 1e30  # DN: fills such as -3.4e38 are no data
# Errors of the whole frame, which the receiver's own stars must show too.
_FRAME_KINDS = ("misaligned_star", "misaligned_galaxy", "flux_scale")


@dataclass(frozen=True)
class Receivers:
    """Real triplets to inject into: (R,3,63,63) float32 in DN with signs as subtracted, noise (R,) in DN, and the
    index (R,) of each in what `receivers` was given."""

    stamps: Array
    noise: Array
    index: np.ndarray


@dataclass(frozen=True)
class Injected:
    """N alerts, events in real triplets, with their truth.

    stamps (N,3,63,63) float32 in DN as `triplets` has them, the rest (N,): real bool, kind str, receiver (its index in
    what `receivers` was given: the scene), magpsf [mag], snr [sigma] and fwhm [px] as measured, positive bool (science
    brighter than reference: `isdiffpos`), host str (one of `hosts.HOSTS`).
    """

    stamps: Array
    real: np.ndarray
    kind: np.ndarray
    receiver: np.ndarray
    magpsf: Array
    snr: Array
    fwhm: Array
    positive: np.ndarray
    host: np.ndarray


@dataclass(frozen=True)
class _Place:
    """B receivers, ready for an event: which, their pixels (B,3,CANVAS,CANVAS), the optics and the host."""

    chosen: np.ndarray
    stack: Array
    scene: Scene


def receivers(stamps: Array, positive: np.ndarray) -> Receivers:
    """Receivers from triplets as published and whether the detection is positive (`isdiffpos`).

    Triplets with hardly any data, or none in the middle, are left out.
    """
    stamps = np.where(np.abs(stamps) < _FILL, stamps, np.float32(np.nan))
    middle = stamps[:, :, SIZE // 2 - 4 : SIZE // 2 + 5, SIZE // 2 - 4 : SIZE // 2 + 5]
    whole = np.isfinite(stamps).mean(axis=(1, 2, 3)) > 0.5
    good = whole & np.isfinite(middle).all(axis=(1, 2, 3))
    stamps, positive = stamps[good], positive[good]
    # The difference of a negative detection is stored as reference - science.
    stamps[~positive, 2] *= -1
    noise = 1.4826 * np.nanmedian(np.abs(stamps[:, 2] - _median(stamps[:, 2])), axis=(1, 2))
    usable = noise > 0
    index = np.flatnonzero(good)[usable]
    return Receivers(stamps[usable], np.asarray(noise[usable], np.float32), index)


def injections(
    receivers: Receivers, n: int, seed: int, kinds: Iterable[str] | None = None, each: Each = map
) -> Iterator[Injected]:
    """N alerts in batches, the same for the same seed; a longer run begins with the shorter one.

    kinds, each: as `alerts` has them. Raises ValueError for unknown names, and where there are no receivers.
    """
    names = known_kinds(kinds)
    if not len(receivers.noise):
        raise ValueError("no receivers: no triplet has data in its middle")
    return cut(each(partial(_batch, receivers, seed, names), range(-(-n // BATCH))), n)


def _batch(receivers: Receivers, seed: int, names: tuple[str, ...], number: int) -> Injected:
    """BATCH detected alerts of random kinds in random receivers, from a stream of their own."""
    rng = np.random.default_rng([seed, number])
    kind = draw_kinds(rng, BATCH, names)
    host = draw_hosts(rng, kind)
    receiver = np.empty(BATCH, np.int64)

    def places(missing: np.ndarray) -> _Place:
        chosen, stack = _choose(rng, receivers, len(missing))
        _wear_masks(rng, receivers, stack)
        receiver[missing] = receivers.index[chosen]
        return _Place(chosen, stack, _optics(rng, receivers.noise[chosen], host[missing]))

    found = until_detected(kind, places, lambda name, place: _inject(rng, name, place))
    measured = measure(found)
    return Injected(
        found.stamps,
        is_real(kind),
        kind,
        receiver,
        measured["magpsf"],
        found.snr,
        measured["fwhm"],
        found.positive,
        host,
    )


def _optics(rng: Rng, noise: Array, host: np.ndarray) -> Scene:
    """Scenes with nothing but optics, a host and, in some, neighbours: the field is in the receiver."""
    nothing = np.zeros(len(noise), np.float32)
    stars = neighbours(rng, len(noise))
    scene = replace(draw_scene(rng, len(noise)), stars=stars, noise=noise, reference_noise=nothing)
    give_hosts(rng, scene, host)
    return scene


def _inject(rng: Rng, name: str | None, place: _Place) -> Detection:
    """What is detected with an event of a kind in each place, or with none."""
    scene, stack = place.scene, place.stack
    if name is not None:
        KINDS[name].put(rng, scene)
    light, matched = added(rng, scene)
    if name in _FRAME_KINDS:
        light[:, 2] += _frame_error(stack[:, 1], scene.shift_x, scene.shift_y, scene.scale_error)
    stack += light
    return detect(scene, stack, matched)


def added(rng: Rng, scene: Scene) -> tuple[Array, Array]:
    """What scenes without a sky add to science, template and difference, with its photon noise, (B,3,CANVAS,CANVAS),
    and to the matched reference (B,CANVAS,CANVAS), in DN."""
    light = shine(rng, scene)
    photons = rng.standard_normal(light.science.shape, np.float32) * np.sqrt(
        np.maximum(light.science, 0) / np.float32(GAIN)
    )
    arrived = light.science + photons
    change = transfer(rng, arrived - light.matched)
    return np.stack([arrived, light.template, change], axis=1), light.matched


def _choose(rng: Rng, receivers: Receivers, n: int) -> tuple[np.ndarray, Array]:
    """n receivers at random, by index, and prepared (n,3,CANVAS,CANVAS)."""
    chosen: list[int] = []
    prepared: list[Array] = []
    while len(chosen) < n:
        i = int(rng.integers(len(receivers.noise)))
        canvas = _prepare(rng, receivers.stamps[i], receivers.noise[i])
        if canvas is not None:
            chosen.append(i)
            prepared.append(canvas)
    return np.array(chosen), np.stack(prepared)


def _prepare(rng: Rng, stamps: Array, noise: np.floating) -> Array | None:
    """A receiver without an event in its middle, as (3,CANVAS,CANVAS); None where there is no such place."""
    template = stamps[1] - np.nanmedian(stamps[1])
    bright = template[SIZE // 2 - 4 : SIZE // 2 + 5, SIZE // 2 - 4 : SIZE // 2 + 5].max() > _BRIGHT
    if bright or rng.random() < _RECENTRED:
        for dx, dy in rng.integers(-_FARTHEST, _FARTHEST + 1, (6, 2)):
            moved = _moved(stamps, int(dx), int(dy))
            near = moved[2, CENTRE - 6 : CENTRE + 7, CENTRE - 6 : CENTRE + 7]
            if np.isfinite(near).all() and np.abs(near).max() < _QUIET * noise:
                return moved
    if bright:
        return None
    return _emptied(rng, np.pad(stamps, ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)), mode="reflect"))


def _moved(stamps: Array, dx: int, dy: int) -> Array:
    """The receiver with another place in the middle; what falls outside is NaN, as at a chip's edge."""
    canvas = np.full((3, CANVAS, CANVAS), np.nan, np.float32)
    y, x = MARGIN + dy, MARGIN + dx
    rows = slice(max(y, 0), min(y + SIZE, CANVAS))
    columns = slice(max(x, 0), min(x + SIZE, CANVAS))
    canvas[:, rows, columns] = stamps[:, rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
    return canvas


def _emptied(rng: Rng, canvas: Array) -> Array:
    """Noise of the same difference in the middle; what that takes away is taken from the science too."""
    half = int(_EMPTIED)
    offset = np.arange(-half, half + 1)
    disc = np.hypot(offset[:, None], offset) <= _EMPTIED
    middle = slice(CENTRE - half, CENTRE + half + 1)
    patches = []
    for angle in rng.uniform(0, 2 * np.pi, 6):
        x, y = (CENTRE + int(rng.integers(16, 25) * trig(angle)) for trig in (np.cos, np.sin))
        patch = canvas[2, y - half : y + half + 1, x - half : x + half + 1]
        if np.isfinite(patch).all():
            patches.append(patch)
    if not patches:
        return canvas
    # The quietest of six: a neighbour's residual is no noise.
    patch = min(patches, key=lambda candidate: float(np.abs(candidate).max()))
    removed = np.where(disc, canvas[2, middle, middle] - patch, 0)
    canvas[0, middle, middle] -= removed
    canvas[2, middle, middle] -= removed
    return canvas


def _wear_masks(rng: Rng, receivers: Receivers, stack: Array) -> None:
    """Mask some receivers as another real triplet is masked, but for the middle."""
    masks = np.isnan(receivers.stamps[:, 2])
    donors = np.flatnonzero(masks.any(axis=(1, 2)))
    if not len(donors):
        return
    for i in np.flatnonzero(rng.random(len(stack)) < _MASKED):
        mask = np.pad(masks[rng.choice(donors)], MARGIN, mode="edge")
        mask[CENTRE - 4 : CENTRE + 5, CENTRE - 4 : CENTRE + 5] = False
        stack[i, :, mask] = np.nan


def _frame_error(template: Array, shift_x: Array, shift_y: Array, scale: Array) -> Array:
    """What a shifted or wrongly scaled reference adds to the difference of the receiver's own field.

    To first order: shift * gradient - (scale - 1) * light.
    """
    light = template - _median(template)
    slope_y, slope_x = np.gradient(light, axis=(1, 2))
    change = shift_x[:, None, None] * slope_x + shift_y[:, None, None] * slope_y
    change -= (scale - 1)[:, None, None] * light
    return np.asarray(np.nan_to_num(change), np.float32)


def _median(images: Array) -> Array:
    return np.asarray(np.nanmedian(images, axis=(1, 2), keepdims=True), np.float32)
