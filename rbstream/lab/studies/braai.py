"""The study *BRAAI's exercise*: a small network on 800 reals and 800 boguses, and the questions it leaves open.

After the exercise that BRAAI's authors give to students (Duev et al. 2019, MNRAS 489, 3582): here with simulated
triplets, whose truth is known, and with 8,000 fresh ones to see what its numbers are worth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbstream.lab.curves import best_epoch, draw_curves
from rbstream.lab.dataset import DataSet
from rbstream.lab.evaluate import figures, metrics
from rbstream.lab.evaluate.evaluation import Asked, Evaluation, as_json, edges_of, evaluate
from rbstream.lab.evaluate.gallery import galleries
from rbstream.lab.evaluate.resample import Scenes, Share
from rbstream.lab.evaluate.scores import Part, read_part, score_rows
from rbstream.lab.evaluate.threshold import Rates, Rule, find_threshold, passes
from rbstream.lab.evaluate.words import number, percent, share
from rbstream.lab.folder import new_folder
from rbstream.lab.plot import stamp_figure
from rbstream.lab.recipe import Recipe
from rbstream.lab.sources.find import Input
from rbstream.lab.sources.simulated import Simulated
from rbstream.lab.sources.write import Wanted, write
from rbstream.lab.studies.walk import Walk
from rbstream.lab.train import Trained, train
from rbstream.model.bundle import load_bundle
from rbstream.simulate.kinds import BOGUS, REAL

EACH = 800  # of both classes, as in the exercise
HELD_OUT = 0.2  # 80/20, as in the exercise
FRESH = 4000  # of both classes: 1% of FPR is 40 of them, known to a sixth
EPOCHS = 40  # at a rate of 3e-3 the validation loss has its lowest before
RARE = 0.1  # share of reals in the second half: 90/10
SIDE = 21  # px, as in the exercise: ten FWHM
FPR = 0.01
COSMIC_RAYS = ("cosmic_ray", "cosmic_ray_in_galaxy")
SHOWN = 8  # of each class, to look at first
MOST_CONFIDENT = 3


def braai_exercise(folder: Path, seed: int, each: int = EACH, fresh: int = FRESH, epochs: int = EPOCHS) -> None:
    """Write the study into a new folder: `index.html`, its figures, `study.json`, data sets and bundles.

    each, fresh: triplets of each class to learn from, and to see what that is worth. The same seed gives the same
    numbers on the same kind of CPU. About three minutes on one core.
    Raises UsageError where the folder is there already.
    """
    with new_folder(folder) as place:
        study = _Study(place, seed, each, fresh, epochs)
        look(study)
        plain = learn(study)
        judge(study, plain)
        cosmic_rays(study, plain)
        imbalance(study)
        difference_only(study, plain)
        undecided(study, plain)
        study.walk.write()


@dataclass(frozen=True)
class Learned:
    """A network of the study: how it was trained, and its scores of the held-out fifth and of the fresh triplets."""

    trained: Trained
    held_out: NDArray[np.float32]
    fresh: NDArray[np.float32]


class _Study:
    """What all chapters share: data, and the page."""

    def __init__(self, folder: Path, seed: int, each: int, fresh: int, epochs: int) -> None:
        self.folder, self.seed, self._each, self._epochs = folder, seed, each, epochs
        self.walk = Walk(
            folder,
            "BRAAI's exercise",
            f"A small network learns to tell real from bogus on {each} + {each} triplets of {SIDE} x {SIDE} px. "
            f"Everything is simulated, so the truth is known; seed {seed}.",
        )
        self.data = self._simulated("exercise", each, each, 1, {"validation": HELD_OUT, "test": 0})
        self.fresh = self._simulated("fresh", fresh, fresh, 2, {"validation": 0, "test": 1})
        self.held_out_part, self.fresh_part = read_part(self.data, "validation"), read_part(self.fresh, "test")

    def _simulated(self, name: str, reals: int, boguses: int, stream: int, split: Mapping[str, float]) -> DataSet:
        seed = 10 * self.seed + 2 * stream  # no two data sets, nor those of two seeds, have an alert in common
        inputs = [Input(Simulated(reals, seed, list(REAL))), Input(Simulated(boguses, seed + 1, list(BOGUS)))]
        data, _ = write(inputs, self.folder / name, Wanted(split={**split, "seed": self.seed}), f"simulating {name}")
        return data

    def rare(self) -> DataSet:
        """As many triplets as the exercise has, a tenth of them real."""
        reals = round(2 * self._each * RARE)
        return self._simulated("rare", reals, 2 * self._each - reals, 3, {"validation": HELD_OUT, "test": 0})

    def train(self, name: str, data: DataSet, **changes: Any) -> Learned:
        """Train the exercise's network, but for `changes`."""
        recipe = Recipe(
            arch="cnn", crop=SIDE, epochs=self._epochs, learning_rate=3e-3, batch=32, seed=self.seed, **changes
        )
        path = self.folder / f"{name}.pt"
        trained = train(data, recipe, path)
        scorer = load_bundle(path)
        parts = (self.data, self.held_out_part), (self.fresh, self.fresh_part)
        return Learned(trained, *(score_rows(scorer, of, part.rows) for of, part in parts))

    def stamps(self, data: DataSet, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """What the network sees of them."""
        begin = (data.about.size - SIDE) // 2
        return data.stamps(rows)[:, :, begin : begin + SIDE, begin : begin + SIDE]

    def evaluate(self, learned: Learned, name: str, on: Part, scores: NDArray[np.float32]) -> Evaluation:
        """At the threshold of 1% FPR on the held-out fifth."""
        asked = Asked(Rule("fpr", FPR), RARE, (0.01, 0.99), self.seed)
        edges = edges_of(on, self.data.about.size)
        return evaluate(name, (self.held_out_part, learned.held_out), (on, scores), edges, asked)


def look(study: _Study) -> None:
    """Triplets first."""
    study.walk.chapter(
        "1. Look at triplets first",
        "Science, template and difference of one detection each, as the survey's pipeline cuts them out. A real one is "
        "in the science image and the difference, and looks like a star; the boguses are what optics, detector and "
        "subtraction leave behind. Which of them would fool you?",
    )
    label = study.data.column("label")
    for name, value in (("reals", 1), ("boguses", 0)):
        of_class = np.flatnonzero(label == value)
        rows = of_class[np.linspace(0, len(of_class) - 1, SHOWN).astype(int)]
        titles = [str(kind).replace("_", " ") for kind in study.data.column("kind")[rows]]
        figure = stamp_figure(study.stamps(study.data, rows), titles, 4)
        study.walk.figure(name, figure, f"{SHOWN} {name}: science, template, difference; {SIDE} px.")


def learn(study: _Study) -> Learned:
    """The network and its curves."""
    learned = study.train("plain", study.data)
    verdict, best = learned.trained.verdict, best_epoch(learned.trained.history)
    study.walk.chapter(
        "2. A small network learns",
        f"Three convolutions (rbstream model describe cnn --size {SIDE}) on logits, trained on four fifths; the "
        "other fifth says when it is best.",
        verdict.words,
    )
    study.walk.figure("curves", draw_curves(learned.trained.history, "cnn"), "Loss and accuracy over the epochs.")
    study.walk.numbers["learn"] = {**best._asdict(), "converged": verdict.converged, "gap": verdict.gap}
    return learned


def judge(study: _Study, learned: Learned) -> None:
    """ROC, the threshold for 1% FPR, the confusion at 0.5, and the most confident."""
    held_out = study.evaluate(learned, "held-out fifth", study.held_out_part, learned.held_out)
    fresh = study.evaluate(learned, "fresh", study.fresh_part, learned.fresh)
    boguses = study.held_out_part.boguses
    study.walk.chapter(
        "3. The threshold for 1% FPR, and what it is worth",
        f"On the held-out fifth the lowest threshold with an FPR of at most {percent(FPR)} is "
        f"{held_out.choice.threshold.value:.3f}. That is {boguses} boguses: {percent(FPR)} of them are "
        f"{FPR * boguses:.1f} alerts, so the threshold hangs on a stamp or two. Drawn again, 95% of such fifths give "
        f"a threshold of {held_out.choice.threshold.low:.3f} to {held_out.choice.threshold.high:.3f}.",
        f"On {len(study.fresh_part):,} fresh triplets the same threshold has an FPR of {share(fresh.fpr)} and a TPR of "
        f"{share(fresh.tpr)}. A threshold has to be chosen on enough boguses: ten false positives at least.",
    )
    study.walk.figure("roc", figures.roc([held_out, fresh]), "ROC of the held-out fifth and of the fresh triplets.")
    study.walk.numbers["threshold"] = {
        "value": held_out.choice.threshold.value,
        "expected_false_positives": FPR * boguses,
        "held_out": {"fpr": as_json(held_out.fpr), "tpr": as_json(held_out.tpr), "auc": as_json(held_out.auc)},
        "fresh": {"fpr": as_json(fresh.fpr), "tpr": as_json(fresh.tpr), "auc": as_json(fresh.auc)},
    }
    _confusion(study, learned)


def _confusion(study: _Study, learned: Learned) -> None:
    real, passing = study.held_out_part.real, passes(learned.held_out, 0.5)
    matrix = metrics.confusion(real, passing)
    study.walk.chapter(
        "4. Confusion at 0.5, and the most confident",
        f"At 0.5 the network is right in {matrix.trace()} of {matrix.sum()} of the held-out fifth. A confusion matrix "
        "is true for one threshold and one mixture of classes only; this fifth, which chose the epoch, flatters.",
    )
    study.walk.figure("confusion", figures.confusion(matrix), "Counts, and shares of the true class.")
    real_gallery, bogus_gallery, *_ = galleries(learned.held_out, passing, study.held_out_part)
    for name, gallery in (("real", real_gallery), ("bogus", bogus_gallery)):
        places = gallery.places[:MOST_CONFIDENT]
        figure = _gallery(study, study.data, study.held_out_part, places, learned.held_out, 3)
        study.walk.figure(f"confident-{name}", figure, f"The {MOST_CONFIDENT} it is most sure are {name}.")
    study.walk.numbers["confusion at 0.5"] = matrix.tolist()


def cosmic_rays(study: _Study, learned: Learned) -> None:
    """The kind of artefact that looks most like a star."""
    evaluation = study.evaluate(learned, "cnn", study.fresh_part, learned.fresh)
    kinds = {each.name: each for each in evaluation.kinds["bogus"]}
    rays = [kinds[name] for name in COSMIC_RAYS if name in kinds]
    worst = max(evaluation.kinds["bogus"], key=lambda each: each.value)
    of_kind = np.where(np.isin(study.fresh_part.kind, COSMIC_RAYS), 0, -1)
    scenes = Scenes(study.fresh_part.scene, study.seed)
    (at_half,) = scenes.shares(of_kind, ["cosmic rays"], passes(learned.fresh, 0.5))
    study.walk.chapter(
        "5. Cosmic rays on the core",
        "The average hides the kinds. A cosmic ray is sharper than any star, but on the core of a star or galaxy it "
        "has the right place and, after the subtraction, nearly the right shape.",
        "At the threshold of chapter 3 there pass "
        + "; ".join(f"{_spoken(each)}: {share(each)}" for each in rays)
        + f". At 0.5 it is {share(at_half)} of all cosmic rays. "
        f"The worst kind is {_spoken(worst)}: {share(worst)}.",
    )
    study.walk.figure("kinds", figures.kinds([evaluation]), "What passes, kind by kind, with 95% intervals.")
    part = study.fresh_part
    places = np.flatnonzero(np.isin(part.kind, COSMIC_RAYS) & passes(learned.fresh, evaluation.choice.threshold.value))
    if len(places):
        places = places[np.argsort(-learned.fresh[places], kind="stable")][:SHOWN]
        figure = _gallery(study, study.fresh, part, places, learned.fresh, 4)
        study.walk.figure("cosmic-rays", figure, "Cosmic rays that pass, the most real first.")
    study.walk.numbers["kinds"] = {each.name: each.value for group in evaluation.kinds.values() for each in group}


def imbalance(study: _Study) -> None:
    """One real in ten: why accuracy misleads, and what can be done."""
    data = study.rare()
    plain = study.train("rare", data)
    steps = plain.trained.history[-1].step  # balanced sampling makes longer epochs: as many steps for all
    networks = {
        "as it is": plain,
        "class weights": study.train("rare-weighted", data, class_weights="balanced"),
        "balanced sampling": study.train("rare-sampled", data, sampling="balanced", max_steps=steps),
    }
    part = study.fresh_part
    scenes = Scenes(part.scene, study.seed)
    rows = [["at 0.5, one real in ten", "accuracy", "precision", "recall", "F1", "AUC"]]
    constant = 1 - RARE
    rows.append(["nothing is real", percent(constant), "–", percent(0), "–", "0.5"])
    numbers: dict[str, Any] = {"constant accuracy": constant}
    for name, learned in networks.items():
        found = metrics.measures(part.real, passes(learned.fresh, 0.5), RARE, scenes)
        area = metrics.auc(learned.fresh, part.real, scenes)
        shown = [share(value) for value in (found.accuracy, found.precision, found.recall, found.f1)]
        rows.append([name, *shown, number(area)])
        numbers[name] = {key: getattr(found, key).value for key in ("accuracy", "precision", "recall", "f1")}
        numbers[name]["auc"] = area.value
    chapter = study.walk.chapter(
        "6. One real in ten",
        f"The sky is not half real. A network that calls everything bogus is right {percent(constant)} of the time, "
        "and useless: accuracy says little here. Precision and recall say what is let in and what is lost.",
        f"Trained on as many triplets, but {percent(RARE)} of them real, and measured on the fresh ones, translated to "
        f"the same mixture; {steps:,} steps each. Weights and sampling trade precision for recall, as moving the "
        "threshold does. Whether they teach is seen in the area under the curve, which knows no threshold.",
    )
    chapter.table = rows
    study.walk.numbers["imbalance"] = numbers


def difference_only(study: _Study, plain: Learned) -> None:
    """What science and template are good for."""
    alone = study.train("difference-only", study.data, channels=("difference",))
    both = {"three channels": plain, "difference only": alone}
    evaluations = [study.evaluate(each, name, study.fresh_part, each.fresh) for name, each in both.items()]
    real = study.fresh_part.real
    at_fpr = {
        name: float(passes(each.fresh, find_threshold(Rates(each.fresh, real), Rule("fpr", FPR)))[real].mean())
        for name, each in both.items()
    }
    study.walk.chapter(
        "7. The difference alone",
        "The difference image is where the detection was made. What do science and template add? "
        + " ".join(
            f"With {each.name}: AUC {each.auc.value:.4f}; at its threshold for {percent(FPR)} FPR a TPR of "
            f"{share(each.tpr)} and an FPR of {share(each.fpr)}."
            for each in evaluations
        ),
        "Two networks at two FPRs are not to be compared. Read off the curves where each has an FPR of "
        f"{percent(FPR)} on the fresh triplets: a TPR of "
        + " and ".join(f"{percent(tpr)} ({name})" for name, tpr in at_fpr.items())
        + ".",
    )
    study.walk.figure("difference-only", figures.roc(evaluations), "ROC on the fresh triplets.")
    study.walk.numbers["difference only"] = {
        each.name: {
            "auc": each.auc.value,
            "tpr": each.tpr.value,
            "fpr": each.fpr.value,
            "tpr at 1% fpr": at_fpr[each.name],
        }
        for each in evaluations
    }


def undecided(study: _Study, learned: Learned) -> None:
    """What lies at 0.5."""
    part = study.fresh_part
    shares = metrics.ambiguous(learned.fresh, part.real, Scenes(part.scene, study.seed))
    nearest = galleries(learned.fresh, passes(learned.fresh, 0.5), part)[-1].places[:SHOWN]
    study.walk.chapter(
        "8. What lies at 0.5",
        "Between 0.1 and 0.9 the network has no opinion worth the name: "
        + ", ".join(f"{share(each)} of {each.name}" for each in shares)
        + ". These are the ones to look at, and to label next.",
    )
    figure = _gallery(study, study.fresh, part, nearest, learned.fresh, 4)
    study.walk.figure("at-half", figure, "The fresh triplets nearest 0.5.")
    study.walk.numbers["ambiguous"] = {each.name: each.value for each in shares}


def _gallery(
    study: _Study, data: DataSet, part: Part, places: NDArray[np.int64], scores: NDArray[np.float32], across: int
) -> Any:
    titles = [
        f"{'real' if part.real[place] else 'bogus'}: {part.kind[place].replace('_', ' ')}, {scores[place]:.3f}"
        for place in places.tolist()
    ]
    return stamp_figure(study.stamps(data, part.rows[places]), titles, across)


def _spoken(kind: Share) -> str:
    return kind.name.replace("_", " ")
