"""The study *moving-object stamps*: three networks on coadded stamps of a shift-and-stack search.

After a course's exercise on the stamps of KBMOD (Whidden et al. 2019, AJ 157, 119), which has the per-pixel dense
network and the CNN; here with simulated sources of known signal-to-noise, or a user's own data set.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rbstream.lab.checkpoint import checkpoint_path
from rbstream.lab.curves import best_epoch, draw_curves
from rbstream.lab.dataset import DataSet, DataWriter
from rbstream.lab.evaluate import figures, metrics, words
from rbstream.lab.evaluate.evaluation import Asked, Evaluation, Results, as_json, evaluate_all
from rbstream.lab.evaluate.gallery import MOST, Gallery, galleries, galleries_of_two
from rbstream.lab.evaluate.page import write_page
from rbstream.lab.evaluate.resample import Scenes, Share
from rbstream.lab.evaluate.scores import read_part, score_rows
from rbstream.lab.evaluate.threshold import Rule
from rbstream.lab.explain.figures import EVIDENCE
from rbstream.lab.explain.occlusion import occlusion
from rbstream.lab.folder import new_folder
from rbstream.lab.plot import draw_stamp, new_figure, stamp_figure
from rbstream.lab.recipe import Recipe
from rbstream.lab.studies.walk import Walk
from rbstream.lab.train import Trained, checked_rows, train
from rbstream.model.bundle import Scorer, load_module, load_scorer
from rbstream.model.manifest import read_bundle
from rbstream.progress import Progress
from rbstream.simulate.moving import SNR, stacks

EACH = 4000
"""Sources, and stamps of noise: accuracy on the test part is then known to half a point."""

SPLIT = {"validation": 0.15, "test": 0.15}
NETWORKS = {
    "fc": "dense: every pixel to 64, 32 and 1",
    "pixelwise": "per pixel: two dense layers of 30 on each pixel alone, then one over all",
    "cnn": "three convolutions, of 8, 16 and 32",
}
EPOCHS = 40  # the per-pixel network starts late: it falls in the 8th and has converged in the 35th
RATE = 1e-3  # at 3e-3 the per-pixel network, whose inputs sum to 1 over 441 pixels, often stays constant
THRESHOLD = 0.5  # the course's; a threshold for a rate is BRAAI's exercise
CONFIDENT = (0.01, 0.99)
PREVALENCE = 0.1  # what the report translates to: most candidates of a search are noise
SNR_EDGES = np.array([3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 100.0])
EXPLAINED = 60  # of each class: means over them are smooth to a tenth
KERNEL = 5
SHOWN = 12


@dataclass(frozen=True)
class Learned:
    """A network of the study, and its maps."""

    trained: Trained
    parameters: int
    scorer: Scorer


def moving_objects(folder: Path, seed: int, data: Path | None = None, each: int = EACH, epochs: int = EPOCHS) -> None:
    """Write the study into a new folder: `index.html` with figures, `study.json`, `evaluation.html`, data and bundles.

    data: a labelled data set to use instead of simulated stamps. each: simulated stamps of each class.
    The same seed (and data) gives the same numbers on the same kind of CPU. About five minutes on one core.
    Raises UsageError where the folder is there already, DataError for data that can't teach.
    """
    with new_folder(folder) as place, _opened(place, seed, data, each) as stamps:
        checked_rows(stamps)
        read_part(stamps, "test")  # what can't be evaluated needs no training
        walk = Walk(
            place,
            "Moving-object stamps",
            f"Three networks tell sources from noise on {stamps.about.size} x {stamps.about.size} px of "
            f"{', '.join(stamps.about.channels)}, {_origin(data)}; seed {seed}.",
        )
        look(walk, stamps, data is None)
        learned = learn(walk, place, stamps, seed, epochs)
        results = judge(walk, place, stamps, learned, seed)
        faint(walk, stamps, results)
        probabilities(walk, results)
        misclassified(walk, stamps, results)
        where_they_look(walk, stamps, results, learned)
        walk.write()


def _origin(data: Path | None) -> str:
    return "simulated" if data is None else f"from {data.name}"


def _opened(folder: Path, seed: int, data: Path | None, each: int) -> DataSet:
    if data is not None:
        return DataSet(data)
    with DataWriter(folder / "data", ("coadd",), 21, "simulated", {"study": "moving-objects", "seed": seed}) as writer:
        for batch in stacks(2 * each, seed):
            kind = np.where(batch.real, "source", "noise")
            label = batch.real.astype(np.float32)
            writer.add(batch.stamps, label=label, label_source="simulated", kind=kind, snr=batch.snr, fwhm=batch.fwhm)
        return writer.commit({**SPLIT, "seed": seed})


def look(walk: Walk, data: DataSet, simulated: bool) -> None:
    """The stamps first, and how many there are."""
    label, parts = data.column("label"), {}
    for part in ("train", "validation", "test"):
        real = label[data.rows(part)] >= 0.5
        parts[part] = {"sources": int(real.sum()), "noise": int((~real).sum())}
    how = (
        f"Sources have a signal-to-noise of {SNR[0]:g} to {SNR[1]:g}, evenly in its logarithm, through a Moffat PSF of "
        "2.5 to 5 px, half a pixel or so off the middle and trailed by up to 3 px. Noise is noise alone, as in the "
        "course, white or with correlated neighbours. A real search also finds hot pixels, cosmic rays of a single "
        "exposure and residuals of stars: nothing here says how these networks would take them."
    )
    chapter = walk.chapter("1. Look at the stamps first", *([how] if simulated else []))
    chapter.table = [
        ("part", "sources", "noise"),
        *((name, f"{n['sources']:,}", f"{n['noise']:,}") for name, n in parts.items()),
    ]
    walk.numbers["data"] = {"identity": data.identity, "parts": parts}
    rows, snr = data.rows(), data.column("snr")
    for name, of_class in (("sources", rows[label[rows] >= 0.5]), ("noise", rows[label[rows] < 0.5])):
        known = name == "sources" and np.isfinite(snr[of_class]).all()
        ordered = of_class[np.argsort(snr[of_class], kind="stable")] if known else of_class
        chosen = ordered[np.linspace(0, len(ordered) - 1, min(SHOWN, len(ordered))).astype(int)]
        titles = [f"S/N {snr[row]:.1f}" if known else "" for row in chosen.tolist()]
        caption = f"{len(chosen)} of the {name}" + (", from the faintest to the brightest." if known else ".")
        walk.figure(name, stamp_figure(data.stamps(chosen), titles, 6), caption)


def learn(walk: Walk, folder: Path, data: DataSet, seed: int, epochs: int) -> dict[str, Learned]:
    """One recipe for all: only the architecture differs."""
    chapter = walk.chapter(
        "2. Three networks learn",
        "Each stamp is clipped below its median - 2 sigmaG, shifted to 0 and divided by its sum (sigmaG = 0.7413 "
        "(p75 - p25)): what is left is the shape of the light, and neither level nor depth.",
        f"All with the same recipe: {epochs} epochs, a learning rate of {RATE:g}, mirrored and turned at random; the "
        "weights kept are those of the lowest validation loss.",
    )
    learned, numbers = {}, {}
    table = [("network", "parameters", "best epoch", "validation loss", "accuracy", "gap to training")]
    for name, what in NETWORKS.items():
        path = folder / f"{name}.pt"
        recipe = Recipe(arch=name, normalization="sigmag", epochs=epochs, learning_rate=RATE, seed=seed)
        trained = train(data, recipe, path)
        for leftover in (checkpoint_path(path), path.with_suffix(".curves.png")):  # done; and the page has its own
            leftover.unlink(missing_ok=True)
        bundle = read_bundle(path)
        module = load_module(bundle, torch.device("cpu"))
        parameters = sum(weight.numel() for weight in module.network.parameters())
        learned[name] = Learned(trained, parameters, load_scorer(bundle, "cpu"))
        verdict = trained.verdict
        best = best_epoch(trained.history)
        table.append(
            (
                name, f"{parameters:,}", f"{best.epoch}", f"{best.validation_loss:.4f}",
                f"{best.validation_accuracy:.1%}", f"{100 * verdict.gap:+.1f} points",
            )
        )  # fmt: skip
        chapter.say(f"{name} ({what}): {verdict.words}")
        numbers[name] = {"parameters": parameters, **best._asdict(), **verdict._asdict()}
        walk.figure(f"curves-{name}", draw_curves(trained.history, name), f"Loss and accuracy of {name}.")
    chapter.table = table
    walk.numbers["learning"] = numbers
    return learned


def judge(walk: Walk, folder: Path, data: DataSet, learned: dict[str, Learned], seed: int) -> Results:
    """Confusion on the test part."""
    test = read_part(data, "test")
    scores = {name: (None, score_rows(each.scorer, data, test.rows)) for name, each in learned.items()}
    asked = Asked(Rule("threshold", THRESHOLD), PREVALENCE, CONFIDENT, seed)
    results = evaluate_all(scores, None, test, data.about.size, asked)
    write_page(folder / "evaluation.html", data, results)
    chapter = walk.chapter(
        "3. Confusion",
        f"On the test part, which no choice was made by, at a probability of {THRESHOLD:g}. The whole evaluation (ROC, "
        "calibration, galleries) is in evaluation.html beside this page.",
    )
    chapter.table = [
        ("network", "accuracy", "precision", "recall", "AUC"),
        *(
            (each.name, *(words.share(value) for value in _measured(each)), words.number(each.auc))
            for each in results.evaluations
        ),
    ]
    for each in results.evaluations:
        walk.figure(f"confusion-{each.name}", figures.confusion(each.confusion), f"Confusion of {each.name}.")
    walk.numbers["evaluation"] = {each.name: _numbers(each) for each in results.evaluations}
    walk.numbers["comparisons"] = as_json(results.comparisons)
    return results


def _measured(each: Evaluation) -> tuple[Any, Any, Any]:
    there = each.measures[0]
    return there.accuracy, there.precision, there.recall


def _numbers(each: Evaluation) -> dict[str, Any]:
    found: dict[str, Any] = as_json(each)
    del found["curves"]  # of figures, not of the text; and most of the bytes
    return found


def faint(walk: Walk, data: DataSet, results: Results) -> None:
    """Recall against signal-to-noise, where it is known."""
    snr = np.where(results.test.real, data.column("snr")[results.test.rows], np.nan).astype(np.float32)
    if not np.isfinite(snr).any():
        return
    edges = SNR_EDGES.copy()
    edges[0], edges[-1] = (
        min(edges[0], np.nanmin(snr)),
        max(edges[-1], np.nextafter(np.float64(np.nanmax(snr)), np.inf)),
    )
    scenes = Scenes(results.test.scene, results.asked.seed)
    names = [each.name for each in results.evaluations]
    found = {
        name: metrics.against(snr, edges, passing, scenes) for name, passing in zip(names, results.passing, strict=True)
    }
    walk.chapter(
        "4. What is lost is faint",
        "The share of the sources that is found, by signal-to-noise. A source of 3 sigma is no brighter than noise's "
        "brightest spots. How many of the faintest are found hangs on how much noise 0.5 lets pass: "
        + "; ".join(
            f"{each.name} finds {words.share(found[each.name][0])} at {found[each.name][0].name} sigma and passes "
            f"{words.percent(each.fpr.value)} of the noise"
            for each in results.evaluations
        )
        + ".",
    )
    walk.figure("recall", _recall_figure(found, edges), "Recall against signal-to-noise, with 95% intervals.")
    walk.numbers["recall"] = {name: as_json(each) for name, each in found.items()}


def _recall_figure(found: dict[str, list[Share]], edges: NDArray[np.float64]) -> Figure:
    figure, axis = new_figure()
    middle = np.sqrt(edges[1:] * edges[:-1])
    for i, (name, shares) in enumerate(found.items()):
        value = np.array([share.value for share in shares])
        ends = np.array([[share.value - share.low, share.high - share.value] for share in shares]).T
        at = middle * 1.02 ** (i - 1)  # beside each other, or one hides the next
        axis.errorbar(at, value, yerr=np.clip(np.nan_to_num(ends), 0, None), marker="os^"[i], capsize=2, label=name)
    axis.set(xscale="log", xlabel="signal-to-noise", ylabel="share of the sources that is found")
    axis.set_xticks([3, 5, 10, 20, 50, 100], ["3", "5", "10", "20", "50", "100"])
    axis.minorticks_off()
    axis.legend()
    return figure


def probabilities(walk: Walk, results: Results) -> None:
    """How sure they are, and whether they may be."""
    chapter = walk.chapter(
        "5. How sure they are",
        "A probability is worth something where it is right as often as it says. The confident are those up to "
        f"{CONFIDENT[0]:g} or from {CONFIDENT[1]:g}.",
        *(f"{each.name}: {words.confident(each)} {words.probabilities(each)}" for each in results.evaluations),
    )
    chapter.table = [
        ("network", "confident", "of these called noise, right", "called source, right", "between 0.1 and 0.9"),
        *(
            (
                each.name, words.percent(each.confident.share),
                *(words.share(one) for one in each.confident.purity),
                words.percent(sum(one.hits for one in each.ambiguous) / len(results.test)),
            )
            for each in results.evaluations
        ),
    ]  # fmt: skip
    for each in results.evaluations:
        name = each.name
        walk.figure(f"probabilities-{name}", figures.probabilities(each), f"Probabilities of {name}, by class.")
        walk.figure(
            f"errors-{name}", figures.probabilities_of_misclassified(each), f"The same, of what {name} misclassifies."
        )


def misclassified(walk: Walk, data: DataSet, results: Results) -> None:
    """What each misses, and what they miss together."""
    wrong = {
        each.name: passing != results.test.real
        for each, passing in zip(results.evaluations, results.passing, strict=True)
    }
    scores = {each.name: score for each, score in zip(results.evaluations, results.scores, strict=True)}
    every = np.logical_and.reduce(list(wrong.values()))
    walk.chapter(
        "6. What they get wrong",
        f"All three misclassify {every.sum():,} of {len(every):,}. "
        + " ".join(words.comparison(pair) for pair in results.comparisons),
        "What all miss says more of the data than of the networks; what one alone misses says something of it.",
    )
    walk.numbers["misclassified"] = {**{name: int(each.sum()) for name, each in wrong.items()}, "all": int(every.sum())}
    for each, score, passing in zip(results.evaluations, results.scores, results.passing, strict=True):
        _, _, missed, passed, _ = galleries(score, passing, results.test)
        for what, gallery in (("missed", missed), ("passed", passed)):
            said = "sources that it misses" if what == "missed" else "noise that it takes for sources"
            _hang(walk, data, results, f"{what}-{each.name}", f"{each.name}: {said}", gallery, [score])
    pair = ("pixelwise", "cnn")  # the course's two
    both = [scores[name] for name in pair], [wrong[name] for name in pair]
    for what, gallery in zip(("both", *pair), galleries_of_two(*both, pair, results.test), strict=True):
        alone = "both get" if what == "both" else f"{what} alone gets"
        _hang(walk, data, results, f"wrong-{what}", f"Of pixelwise and cnn, {alone} wrong", gallery, both[0])


def _hang(
    walk: Walk, data: DataSet, results: Results, name: str, said: str, gallery: Gallery,
    scores: list[NDArray[np.float32]],
) -> None:  # fmt: skip
    if not len(gallery.places):
        return
    snr, rows = data.column("snr"), results.test.rows[gallery.places]
    titles = [
        " / ".join(f"{score[place]:.3f}" for score in scores) + (f"\nS/N {snr[row]:.1f}" if snr[row] > 0 else "\nnoise")
        for place, row in zip(gallery.places.tolist(), rows.tolist(), strict=True)
    ]
    shown = f"{len(titles)} of {gallery.n}, the worst first" if gallery.n > MOST else f"all {len(titles)} shown"
    walk.figure(name, stamp_figure(data.stamps(rows), titles, 6), f"{said}: {shown}.")


def where_they_look(walk: Walk, data: DataSet, results: Results, learned: dict[str, Learned]) -> None:
    """Mean occlusion maps of sources and noise, and whether they agree."""
    classes = {"sources": results.test.rows[results.test.real], "noise": results.test.rows[~results.test.real]}
    chosen = {
        name: rows[np.linspace(0, len(rows) - 1, min(EXPLAINED, len(rows))).astype(int)]
        for name, rows in classes.items()
    }
    maps: dict[str, dict[str, NDArray[np.float64]]] = {name: {} for name in learned}
    with Progress("occluding", len(learned) * sum(map(len, chosen.values()))) as progress:
        done = 0
        for name, each in learned.items():
            for group, rows in chosen.items():
                total = np.zeros(data.shape)
                for _, stamps in data.batches(rows, 1):
                    total += occlusion(each.scorer, stamps[0], KERNEL, fill="median")
                    done += 1
                    progress.show(done, done)
                maps[name][group] = total.sum(axis=0) / len(rows)
    pairs = {f"{a} and {b}": _agreement(maps[a]["sources"], maps[b]["sources"]) for a, b in combinations(maps, 2)}
    peaks = {name: {group: _peak(found) for group, found in each.items()} for name, each in maps.items()}
    chapter = walk.chapter(
        "7. Where they look",
        f"A patch of {KERNEL} x {KERNEL} px is set to the stamp's median, the stamp is normalised again, and the score "
        f"that it loses is drawn where the patch was: the mean of {len(chosen['sources'])} sources and of "
        f"{len(chosen['noise'])} stamps of noise. Green speaks for a source, red against.",
        "Do they look at the same place? "
        + " ".join(
            f"{pair}: the maps of sources correlate by {found['correlation']:.3f}, their peaks are "
            f"{found['distance']:.1f} px apart."
            for pair, found in pairs.items()
        ),
    )
    chapter.table = [
        ("network", "most lost, sources", "at x, y", "half of it within", "most lost, noise"),
        *(
            (
                name, f"{found['sources']['value']:.3f}", f"{found['sources']['x']}, {found['sources']['y']}",
                f"{found['sources']['half_within']:.1f} px", f"{found['noise']['value']:.3f}",
            )
            for name, found in peaks.items()
        ),
    ]  # fmt: skip
    means = {name: data.stamps(rows).sum(axis=1).mean(axis=0) for name, rows in chosen.items()}
    walk.figure(
        "occlusion", _maps_figure(means, maps), "The mean stamp of each class, and the mean map of each network."
    )
    walk.numbers["occlusion"] = {"peaks": peaks, "agreement": pairs}


def _peak(values: NDArray[np.float64]) -> dict[str, float]:
    """The highest pixel of a map, and the radius around it that holds half of all that is positive [px]."""
    y, x = (int(i) for i in np.unravel_index(values.argmax(), values.shape))
    rows, columns = np.indices(values.shape)
    distance, light = np.hypot(rows - y, columns - x).ravel(), np.clip(values, 0, None).ravel()
    order = np.argsort(distance, kind="stable")
    inside = np.cumsum(light[order])
    half = float(distance[order][np.searchsorted(inside, inside[-1] / 2)])
    return {"x": x, "y": y, "value": float(values.max()), "half_within": half}


def _agreement(first: NDArray[np.float64], second: NDArray[np.float64]) -> dict[str, float]:
    """Pearson's correlation of two maps (0 where one is constant), and the distance of their peaks [px]."""
    varied = first.std() > 0 and second.std() > 0
    one, other = _peak(first), _peak(second)
    return {
        "correlation": float(np.corrcoef(first.ravel(), second.ravel())[0, 1]) if varied else 0.0,
        "distance": math.hypot(one["x"] - other["x"], one["y"] - other["y"]),
    }


def _maps_figure(means: dict[str, NDArray[np.float32]], maps: dict[str, dict[str, NDArray[np.float64]]]) -> Figure:
    figure, axes = new_figure(2.6 * (1 + len(maps)), 5.4, 2, 1 + len(maps))
    for row, group in zip(axes, means, strict=True):
        draw_stamp(row[0], means[group])
        row[0].set_title(f"mean of {group}")
        for axis, (name, found) in zip(row[1:], maps.items(), strict=True):
            limit = float(np.abs(found[group]).max()) or 1.0
            image = axis.imshow(
                found[group], EVIDENCE, vmin=-limit, vmax=limit, origin="lower", interpolation="nearest"
            )
            axis.set(xticks=[], yticks=[], title=f"{name}, {group}")
            axis.grid(visible=False)
            figure.colorbar(image, ax=axis, shrink=0.75)
    return figure
