"""How the shipped bundle is made, from data to bundle: `python models/recipe.py -o models/rbnet.pt`.

A network (`rbnet.toml`) learns from simulated events in real triplets, from simulated triplets, and from real ones:
those of the shared data, and what else was detected in them, with the mean of both BRAAI networks as soft label and
known asteroids as truth. The same seed gives the same weights on the same kind of CPU. Without the shared data only
simulated triplets are used, and the bundle says so. It takes 14 GB beside the bundle until it ends.

`python models/recipe.py --halves FOLDER` makes two more, to measure with: the same on each half of the nights,
`half0.pt` and `half1.pt`. What the card reports (`evaluate.py`) is of alerts scored by the one of these that has not
seen their night, and so is the bundle's threshold: the command prints what THRESHOLD has to be. 27 GB until it ends.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from rbstream import log
from rbstream.errors import ModelError
from rbstream.lab.dataset import DataSet
from rbstream.lab.recipe import load_recipe
from rbstream.lab.sources.arrays import Arrays
from rbstream.lab.sources.find import Input
from rbstream.lab.sources.simulated import MOST_RECEIVERS, Injected, Simulated, chosen_kinds
from rbstream.lab.sources.source import Reading
from rbstream.lab.sources.write import Wanted, write
from rbstream.lab.train import train
from rbstream.model.bundle import Scorer, load_bundle, write_with_threshold
from rbstream.model.keras import import_keras
from rbstream.model.manifest import read_bundle

Array = NDArray[np.float32]
Table = dict[str, NDArray[Any]]

TRAINING = Path(__file__).with_name("rbnet.toml")
INJECTED = 200_000  # events in real triplets: more were always better, and 27 GB of disk are a lot already
SIMULATED = 16_000  # triplets of nothing but simulation: scenes that the few real nights lack
ALONE = 60_000  # of them where there is nothing else
REAL = 1 / 4  # share of the real triplets in an epoch: shown again and again, each time turned, shifted and jittered
LOST = 0.02  # share of what both BRAAIs accept that the threshold may lose
THRESHOLD = {1: 0.36}  # by seed: the highest that loses no more, as `--halves` says
VALIDATION = 0.04  # share of the objects that choose the epoch: 8,000 triplets
BRAAI = {"d6_m7": ("d6_m7.h5", "l2-row"), "d6_m9": ("braai_d6_m9.h5", "l2-image")}

# What else was detected in a real triplet, beside its own candidate.
BESIDE_SNR = 6.0  # sigma: above the survey's 5, as noise has more chances here than in its middle
BESIDE = (5, 20)  # px from the middle: not the candidate itself, and at least half of the stamp is left
MOST_BESIDE = 6  # of a triplet: more are of a field that has gone wrong as a whole
FILTER = 0.95  # px: sigma of the matched filter, a PSF of 2.2 px FWHM
FILL = 1e30  # DN: fills such as -3.4e38 are no data


def real_triplets(shared: Path) -> Table | None:
    """The arrays of the shared data's stamps.npz, with `night`, `object` and `positive`; None where they aren't."""
    path = shared / "data/ztf/stamps.npz"
    if not path.exists():
        return None
    table = dict(np.load(path))
    meta = [json.loads(text) for text in table["meta"]]
    table["night"] = np.array([int(row["jd"]) for row in meta], np.int32)
    table["object"] = np.array([row["objectId"] for row in meta])
    table["positive"] = np.array([row["isdiffpos"] in ("t", "1") for row in meta], np.int8)
    return table


def rows(table: Table, chosen: NDArray[Any]) -> Table:
    """The chosen rows of all arrays."""
    return {name: values[chosen] for name, values in table.items()}


def halves(night: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """0 or 1 for each triplet: whole nights, the largest first, each into the smaller half."""
    nights, counts = np.unique(night, return_counts=True)
    size, half = [0, 0], {}
    for i in np.argsort(-counts, kind="stable"):
        half[int(nights[i])] = smaller = int(size[1] < size[0])
        size[smaller] += int(counts[i])
    return np.array([half[int(value)] for value in night])


def scored(scorer: Scorer, stamps: Array) -> Array:
    """Scores (N,) of triplets (N,3,63,63)."""
    return np.concatenate([scorer.score(stamps[i : i + 64]) for i in range(0, len(stamps), 64)])


def braai_scores(shared: Path, stamps: Array) -> Table:
    """What both BRAAI networks say of triplets (N,3,63,63): (N,) by their names."""
    scores: Table = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (file, normalization) in BRAAI.items():
            bundle = Path(folder) / f"{name}.pt"
            import_keras(shared / "data/braai" / file, bundle, normalization)
            scores[name] = scored(load_bundle(bundle), stamps)
    return scores


def beside(table: Table) -> Table:
    """What else is detected in each triplet, in the middle of a triplet of its own, NaN where that leaves the stamp.

    A survey's pipeline raises alerts of them too: real residuals on real scenes.
    """
    stamps, positive, source = [], [], []
    for i, (triplet, is_positive) in enumerate(zip(table["stamps"], table["positive"], strict=True)):
        difference = triplet[2] if is_positive else -triplet[2]
        for dy, dx, flux in _detections(difference):
            moved = _recentred(triplet, dy, dx)
            moved[2] *= 1 if (flux > 0) == is_positive else -1
            stamps.append(moved)
            positive.append(flux > 0)
            source.append(i)
    columns = {name: table[name][source] for name in ("night", "object")}
    return {"stamps": np.array(stamps, np.float32), "positive": np.array(positive, np.int8), **columns}


def _detections(difference: Array) -> list[tuple[int, int, float]]:
    """Peaks that are no candidate's: px from the middle, and the flux's sign; the most significant first."""
    valid = np.abs(difference) < FILL
    level = np.median(difference[valid])
    sigma = 1.4826 * np.median(np.abs(difference[valid] - level)) / np.sqrt(4 * np.pi * FILTER**2)
    flux = ndimage.gaussian_filter(np.where(valid, difference - level, 0), FILTER)
    snr = np.where(valid, np.abs(flux), 0) / max(sigma, 1e-6)  # no noise: a stamp without data, where all is 0
    peaks = np.argwhere((ndimage.maximum_filter(snr, 7) == snr) & (snr > BESIDE_SNR)) - len(snr) // 2
    middle = len(snr) // 2
    far = [(y, x) for y, x in peaks.tolist() if BESIDE[0] <= max(abs(y), abs(x)) <= BESIDE[1]]
    far.sort(key=lambda at: -snr[middle + at[0], middle + at[1]])
    return [(y, x, float(flux[middle + y, middle + x])) for y, x in far[:MOST_BESIDE]]


def _recentred(triplet: Array, dy: int, dx: int) -> Array:
    moved = np.full_like(triplet, np.nan)
    size = triplet.shape[-1]
    to = [slice(max(0, -d), size - max(0, d)) for d in (dy, dx)]
    of = [slice(max(0, d), size + min(0, d)) for d in (dy, dx)]
    moved[:, to[0], to[1]] = triplet[:, of[0], of[1]]
    return moved


def lessons(
    folder: Path, real: Table | None, braai: Path, seed: int, without: Sequence[str] = (), part: float = 1
) -> DataSet:
    """Everything to learn from, written below a folder.

    without: kinds of events to leave out. part: how much of it all; less is for comparisons among themselves.
    """
    kinds = chosen_kinds([], without)
    simulated, injected = round(part * (SIMULATED if real else ALONE)), round(part * INJECTED)
    inputs = [Input(Simulated(simulated, seed, kinds))]
    if real is not None:
        others = beside(real)
        others |= braai_scores(braai, others["stamps"])
        taken = [_stack(folder / "real.npz", real), _stack(folder / "beside.npz", others)]
        # Another stream than the simulated triplets': the same events twice teach nothing.
        inputs.append(Input(Injected(taken[:1], injected, seed + 1_000_000, kinds, MOST_RECEIVERS)))
        found = len(real["stamps"]) + len(others["stamps"])
        inputs += [Input(stack) for stack in taken] * max(1, round((simulated + injected) * REAL / (1 - REAL) / found))
    split = {"validation": VALIDATION, "test": 0.0, "seed": seed, "by": "object"}
    data, notes = write(inputs, folder / "lessons", Wanted(split=split, survey="ztf"), "making lessons")
    for note in notes:
        print(note)
    return data


def _stack(path: Path, table: Table) -> Arrays:
    np.savez(path, **table)
    return Arrays(str(path), Reading(soft=tuple(BRAAI)))


def make(
    output: Path,
    real: Table | None,
    shared: Path,
    seed: int,
    without: Sequence[str] = (),
    part: float = 1,
    threshold: float | None = None,
    **settings: Any,
) -> None:
    """A trained bundle, with its curves and history beside it, once all are whole.

    without, part: as `lessons` has them. threshold: the one that LOST asks for, where it is known.
    settings: of the training, others than `rbnet.toml`'s.
    """
    recipe = load_recipe(TRAINING, {"seed": seed, **settings})
    torch.set_num_threads(recipe.threads)  # for the soft labels too: another number sums in another order
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as folder, lessons(
        Path(folder), real, shared, seed, without, part
    ) as data:  # fmt: skip
        made = Path(folder) / output.name  # with its checkpoint, which would be in the way of another run
        print(train(data, recipe, made).verdict.words)
        if threshold is not None:
            rule = f"loses at most {LOST:.1%} of what both BRAAIs score above 0.9, on held-out nights"
            command = f"python models/recipe.py --seed {seed}"
            write_with_threshold(made, read_bundle(made), threshold, {"rule": rule, "made with": command})
        for kind in (".curves.png", ".history.csv", ".pt"):
            made.with_suffix(kind).replace(output.with_suffix(kind))


def make_halves(folder: Path, real: Table, shared: Path, seed: int) -> None:
    """`half0.pt` and `half1.pt` in a folder, at once: each has seen nothing of that half's nights."""
    with ProcessPoolExecutor(2) as pool:
        made = [pool.submit(make, folder / f"half{half}.pt", other_half(real, half), shared, seed) for half in range(2)]
        for each in made:
            each.result()


def other_half(real: Table, half: int) -> Table:
    """What a network that is judged on a half may learn from."""
    return rows(real, halves(real["night"]) != half)


def check_halves(folder: Path, bundle: Path) -> None:
    """Raises ModelError where there is no network of a half, or one that learned otherwise than the bundle."""
    own = _training(bundle)
    for path in (folder / f"half{half}.pt" for half in (0, 1)):
        if different := [name for name, value in _training(path).items() if value != own[name]]:
            raise ModelError(f"{path} was trained with other {different[0]} than {bundle}: make the halves anew")


def judged(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Table:
    """The real triplets that a bundle is judged on; wrong usage without them, or without its halves."""
    real = real_triplets(options.shared)
    if real is None:
        parser.error(f"{options.shared} has no real triplets to judge it on")
    try:
        check_halves(options.halves, options.bundle)
    except ModelError as error:
        parser.error(str(error))
    return real


def _training(bundle: Path) -> dict[str, Any]:
    """How a bundle was trained, but for its real triplets."""
    provenance = read_bundle(bundle).manifest.provenance
    sources = provenance.get("data", {}).get("source", {}).get("sources", [])
    simulated = [source for source in sources if "arrays" not in source]
    return {"settings": provenance.get("recipe"), "versions": provenance.get("torch"), "events": simulated}


def held_out(folder: Path, real: Table) -> Array:
    """A score (N,) of each real triplet, by the network that has not seen its night."""
    score, half = np.empty(len(real["night"]), np.float32), halves(real["night"])
    for i in (0, 1):
        score[half == i] = scored(load_bundle(folder / f"half{i}.pt"), real["stamps"][half == i])
    return score


def best_threshold(score: Array, real: Table) -> float:
    """The highest that loses no more than LOST of what both BRAAIs accept, down to a hundredth. score: (N,)."""
    accepted = score[real["consensus"] == 1]
    return math.floor(100 * float(np.quantile(accepted, LOST, method="lower"))) / 100


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder of the shared data")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, default=Path("models/rbnet.pt"))
    parser.add_argument("--halves", type=Path, help="make both halves' networks in this folder instead")
    options = parser.parse_args()
    log.set_up()
    real = real_triplets(options.shared)
    if options.halves:
        if real is None:
            parser.error(f"{options.shared} has no real triplets: there are no nights to halve")
        make_halves(options.halves, real, options.shared, options.seed)
        best = best_threshold(held_out(options.halves, real), real)
        known = THRESHOLD.get(options.seed)
        print(
            f"threshold {best:g}" + ("" if best == known else f", and THRESHOLD of the seed is {known}: write it there")
        )
        return
    if real is None:
        print(f"{options.shared}: no real triplets there. What is made of simulation alone is worse: do not ship it.")
    threshold = None if real is None else THRESHOLD.get(options.seed)
    if threshold is None:
        print("No threshold is known for these weights: the bundle has 0.5. With real triplets, --halves finds one.")
    make(options.output, real, options.shared, options.seed, threshold=threshold)


if __name__ == "__main__":
    main()
