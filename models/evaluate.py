"""The figures of the card: `python models/evaluate.py models/rbnet.pt HALVES` prints them as Markdown,
and writes them into it (`--card models/rbnet.md`).

HALVES is what `recipe.py --halves HALVES` wrote there: two networks, each of which has seen nothing of one half of the
nights. Every figure is of alerts scored by the one that has not seen their night; both BRAAI networks
(`../shared/data/braai`) stand beside it. Intervals (95%) are by bootstrap over scenes: the real triplets.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import recipe
import torch
from blind.injection import inject
from numpy.typing import NDArray
from recipe import BRAAI, FILL, Table, braai_scores, halves, rows, scored

from rbstream.lab.evaluate.calibration import MIXES, calibration_at
from rbstream.lab.evaluate.resample import Scenes, Share
from rbstream.lab.evaluate.words import number, percent, share
from rbstream.memory import keep_freed_memory
from rbstream.model.bundle import BareNetwork, Scorer, load_bundle
from rbstream.model.keras import import_keras
from rbstream.model.manifest import read_bundle
from rbstream.simulate.inject import added, injections, receivers
from rbstream.simulate.optics import MARGIN, Sources
from rbstream.simulate.scene import draw_scene, flux_of

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]
Generator = Callable[[Table, int], tuple[Array, Mask, NDArray[np.str_], NDArray[np.int64]]]
Rule = Callable[[NDArray[np.int64]], Mask]  # how often each event was drawn (N,) -> what passes

EVENTS, SEED = 8_000, 20_000_000  # in each half's triplets; a seed that the recipe doesn't use
KEPT = 0.99  # share of the injected transients that the compared threshold keeps
FPRS = (0.01, 0.05)
SWEPT = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)  # thresholds
MIDDLE = 0.5  # the threshold of who has not chosen one
MANY = 20  # alerts of a night that is shown by itself
BATCH, ROUNDS = 32, 400  # alerts at once, at which a core is fastest; rounds of which the best counts
OURS = "rbnet"


class Field(NamedTuple):
    """Stars that are put beside events: how many, how far from them [px], and their magnitudes."""

    stars: int
    distance: tuple[float, float]
    magnitude: tuple[float, float]


# Bright ones where a star's wings are no matter; and blends, not so bright that they hide the event.
FIELDS = {"eight bright stars": Field(8, (9, 32), (14.5, 18.5)), "six close stars": Field(6, (2, 9), (16.5, 19.5))}


@dataclass(frozen=True)
class Events:
    """N injected events, whatever the generator: all arrays are (N,), scores by network.

    half: of the nights. Each has its own network, and so a threshold of its own; BRAAI's too, to be treated alike.
    """

    real: Mask
    kind: NDArray[np.str_]
    scene: NDArray[np.int64]
    half: NDArray[np.int64]
    scores: dict[str, Array]

    @property
    def transient(self) -> Mask:
        return np.char.startswith(self.kind, "transient")

    def quantile(self, name: str, below: float, of: Mask, times: NDArray[np.int64]) -> Array:
        """For each half, the score that this share of some events is below, where each counts so many `times`."""
        parts = (np.repeat(self.scores[name][here], times[here]) for here in (of & (self.half == i) for i in range(2)))
        return np.array([np.quantile(part, below) for part in parts], np.float32)

    def threshold(self, name: str) -> Array:
        """For each half, the score from which KEPT of the transients pass."""
        return self.quantile(name, 1 - KEPT, self.transient, np.ones(len(self.kind), np.int64))

    def keeping(self, name: str, share: float) -> Rule:
        """What passes where this share of the transients does."""
        return lambda times: self.scores[name] >= self.quantile(name, 1 - share, self.transient, times)[self.half]

    def admitting(self, name: str, fpr: float) -> Rule:
        """What passes where this share of the artefacts does at most."""
        return lambda times: self.scores[name] > self.quantile(name, 1 - fpr, ~self.real, times)[self.half]


def ours(real: Table, half: int) -> tuple[Array, Mask, NDArray[np.str_], NDArray[np.int64]]:
    """Events of the generator that the network learned from: stamps, real, kind, receiver."""
    into = receivers(real["stamps"], real["positive"] == 1)
    batches = list(injections(into, EVENTS, SEED + half))
    stamps, is_real, kind, receiver = (
        np.concatenate([getattr(batch, name) for batch in batches]) for name in ("stamps", "real", "kind", "receiver")
    )
    return stamps, is_real, kind, receiver


def others(real: Table, half: int) -> tuple[Array, Mask, NDArray[np.str_], NDArray[np.int64]]:
    """Events of a generator that it has not learned from."""
    made = inject(real["stamps"], real["positive"] == 1, EVENTS, SEED + half)
    return made["stamps"], made["real"], made["kind"], made["receiver"]


def with_field(field: Field) -> Generator:
    """The events of `ours`, with the field's stars in front."""

    def generate(real: Table, half: int) -> tuple[Array, Mask, NDArray[np.str_], NDArray[np.int64]]:
        stamps, *truth = ours(real, half)
        return beside_stars(stamps, field, SEED + half), *truth

    return generate


def beside_stars(stamps: Array, field: Field, seed: int) -> Array:
    """Triplets (N,3,63,63) with the field's stars more, well subtracted: what happened there is the same as before."""
    rng = np.random.default_rng(seed)
    made = []
    for part in np.array_split(stamps, -(-len(stamps) // 128)):
        shape = (len(part), field.stars)
        nearest, farthest = field.distance
        distance, angle = np.sqrt(rng.uniform(nearest**2, farthest**2, shape)), rng.uniform(0, 2 * np.pi, shape)
        x, y, flux = distance * np.cos(angle), distance * np.sin(angle), flux_of(rng.uniform(*field.magnitude, shape))
        stars = Sources(*(each.astype(np.float32) for each in (x, y, flux, np.zeros(shape))))
        scene = replace(draw_scene(rng, len(part)), stars=stars)
        light, _ = added(rng, scene)
        made.append(part + light[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN])
    return np.concatenate(made)


def scored_events(generator: Generator, real: Table, scorers: list[Scorer], shared: Path) -> Events:
    """Events in the triplets of both halves, each scored by the network that has not seen its half."""
    half = halves(real["night"])
    parts = []
    for i, scorer in enumerate(scorers):
        here = np.flatnonzero(half == i)
        stamps, is_real, kind, receiver = generator(rows(real, here), i)
        scores = {OURS: scored(scorer, stamps), **braai_scores(shared, stamps)}
        parts.append(Events(is_real, kind, here[receiver], np.full(len(kind), i), scores))
    scores = {name: np.concatenate([part.scores[name] for part in parts]) for name in parts[0].scores}
    columns = (np.concatenate([getattr(part, name) for part in parts]) for name in ("real", "kind", "scene", "half"))
    return Events(*columns, scores)


def numbered(kind: NDArray[np.str_], names: Sequence[str]) -> NDArray[np.int64]:
    """Which of some names each (N,) is, -1 for none of them."""
    numbers = {name: i for i, name in enumerate(names)}
    return np.array([numbers.get(name, -1) for name in kind])


def always(hit: Mask) -> Rule:
    """What passes whatever was drawn: a threshold that is given."""
    return lambda times: hit


def share_of(scenes: Scenes, chosen: Mask, hit: Mask) -> str:
    """The share of hits among the chosen, with its interval."""
    return share(scenes.shares(np.where(chosen, 0, -1), [""], hit)[0])


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table; a line's first cell is its name."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *lines))


def by_kind(events: Events, threshold: float) -> str:
    """What passes, by kind, where each network keeps KEPT of the transients; all at MIDDLE; and recalls at FPRS.

    threshold: the bundle's own, for one more column. Thresholds that are found on the events are found anew in each
    draw of the bootstrap.
    """
    scenes = Scenes(events.scene, 0)
    kinds = [*np.unique(events.kind[events.real]), *np.unique(events.kind[~events.real])]
    kind = numbered(events.kind, kinds)
    artefacts = [i for i, name in enumerate(kinds) if not events.real[events.kind == name].any()]

    def of_classes(rule: Rule) -> list[Share]:
        return scenes.shares_of(np.where(events.real, 0, 1), ["reals", "artefacts"], rule)

    def column(rule: Rule) -> list[str]:
        shares = scenes.shares_of(kind, kinds, rule)
        alike = float(np.mean([shares[i].value for i in artefacts]))
        return [*map(share, shares + of_classes(rule)), percent(alike)]

    columns = [column(events.keeping(name, KEPT)) for name in events.scores]
    columns.append(column(always(events.scores[OURS] >= np.float32(threshold))))
    names = [*kinds, "**all reals**", "**all artefacts**", "artefacts, all kinds weighed alike"]
    counts = [*np.bincount(kind), events.real.sum(), (~events.real).sum(), (~events.real).sum()]
    lines = [[name, str(n), *cells] for name, n, *cells in zip(names, counts, *columns, strict=True)]

    middle = [of_classes(always(score >= np.float32(MIDDLE))) for score in events.scores.values()]
    for i, what in enumerate(("reals", "artefacts")):
        lines.append([f"all {what} at {MIDDLE}", str(counts[len(kinds) + i]), *(share(each[i]) for each in middle), ""])
    for fpr in FPRS:
        found = [of_classes(events.admitting(name, fpr))[0] for name in events.scores]
        lines.append([f"recall at FPR {fpr:.0%}", str(events.real.sum()), *map(share, found), ""])
    heads = [f"{name} >= " + ", ".join(f"{at:.3g}" for at in events.threshold(name)) for name in events.scores]
    return markdown(["", "events", *heads, f"{OURS} >= {threshold:g}"], lines)


def in_front_of_stars(events: Events, fields: dict[str, Events]) -> str:
    """What passes of the same events with stars in front, by field, at the thresholds of `by_kind`."""
    scenes = Scenes(events.scene, 0)
    at = {name: events.threshold(name)[events.half] for name in events.scores}
    groups = {name: events.kind == name for name in np.unique(events.kind[events.real])}
    groups |= {"**all reals**": events.real, "**all artefacts**": ~events.real}
    lines = []
    for field, crowd in fields.items():
        for name, chosen in groups.items():
            passing = (share_of(scenes, chosen, crowd.scores[each] >= at[each]) for each in events.scores)
            lines.append([field, name, str(chosen.sum()), *passing])
    return markdown(["beside", "", "events", *events.scores], lines)


def calibration(events: Events) -> str:
    """ECE on reals and artefacts in several mixes, with intervals; where they aren't 1:1 also of scores that are
    converted to the mix by Bayes' rule, as the card has it."""
    scenes = Scenes(events.scene, 0)

    def cell(score: Array, prevalence: float) -> str:
        def ece(times: NDArray[np.int64]) -> float:
            drawn = np.repeat(np.arange(len(score)), times)
            return calibration_at(score[drawn], events.real[drawn], prevalence, "").ece

        return number(scenes.interval(calibration_at(score, events.real, prevalence, "").ece, ece))

    lines = []
    for name, prevalence in MIXES.items():
        lines.append([name, *(cell(score, prevalence) for score in events.scores.values())])
        if prevalence != MIXES["1:1"]:
            converted = (at_mix(score, prevalence) for score in events.scores.values())
            lines.append([f"{name}, converted", *(cell(score, prevalence) for score in converted)])
    return markdown(["reals to artefacts", *events.scores], lines)


def at_mix(score: Array, prevalence: float) -> Array:
    """Probabilities (N,) where this share is real, of probabilities where half are."""
    odds = prevalence / (1 - prevalence)
    converted: Array = odds * score / (odds * score + 1 - score)
    return converted


def on_real(real: Table, scores: dict[str, Array], threshold: float) -> str:
    """Pass rates on the real triplets at one threshold, by what is known of them."""
    scenes = Scenes(real["object"], 0)
    consensus = real["consensus"]
    masked = ~(np.abs(real["stamps"]) < FILL).all(axis=(1, 2, 3))
    groups = {
        "known asteroids": real["asteroid"],
        "both BRAAIs above 0.9": consensus == 1,
        "undecided": consensus == -1,
        "both BRAAIs under 0.1": consensus == 0,
        "both BRAAIs under 0.1, with masked pixels": (consensus == 0) & masked,
    }
    lines = []
    for name, chosen in groups.items():
        cells = [share_of(scenes, chosen, score >= np.float32(threshold)) for score in scores.values()]
        lines.append([name, str(chosen.sum()), *cells])
    return markdown([f"at {threshold:g}", "alerts", *scores], lines)


def by_night(real: Table, score: Array, threshold: float) -> str:
    """What goes wrong on real triplets, by night, and in all, with intervals by bootstrap over nights."""
    passes = score >= np.float32(threshold)
    wrong = {
        "known asteroids missed": (real["asteroid"], ~passes),
        "fail though both BRAAIs above 0.9": (real["consensus"] == 1, ~passes),
        "pass though both under 0.1": (real["consensus"] == 0, passes),
    }
    nights, counts = np.unique(real["night"], return_counts=True)
    shown = nights[(counts >= MANY) | np.isin(nights, real["night"][real["asteroid"]])]

    def line(name: str, here: Mask) -> list[str]:
        cells = (f"{(hit & of & here).sum()} of {(of & here).sum()}" for of, hit in wrong.values())
        return [name, str(here.sum()), *cells]

    lines = [line(str(night), real["night"] == night) for night in shown]
    lines.append(line(f"{len(nights) - len(shown)} others", ~np.isin(real["night"], shown)))
    scenes = Scenes(real["night"], 0)
    lines.append(["all", str(len(score)), *(share_of(scenes, of, hit) for of, hit in wrong.values())])
    return markdown(["night (JD)", "alerts", *wrong], lines)


def over_thresholds(real: Table, score: Array, threshold: float) -> str:
    """What passes on real triplets from each threshold on, the bundle's among them; from those that the rule finds on
    each half; and from those that it finds on the other."""
    groups = (real["asteroid"], real["consensus"] == 1, real["consensus"] == 0)
    half = halves(real["night"])
    own = np.array([recipe.best_threshold(score[half == i], rows(real, half == i)) for i in (0, 1)], np.float32)

    def line(name: str, thresholds: Array) -> list[str]:
        return [name, *(f"{(score >= thresholds)[group].mean():.1%}" for group in groups)]

    lines = [
        line(f"**{at:.2f}**" if at == threshold else f"{at:.2f}", np.full(len(score), at, np.float32))
        for at in sorted({*SWEPT, threshold})
    ]
    lines.append(line(", ".join(f"{at:.2f}" for at in own) + ", each half's own", own[half]))
    lines.append(line(", ".join(f"{at:.2f}" for at in own[::-1]) + ", each the other's", own[1 - half]))
    return markdown(["threshold", "asteroids", "both BRAAIs above 0.9", "both under 0.1"], lines)


def cost(bundle: Path, shared: Path) -> str:
    """Time of the whole bundle, normalisation included, over that of d6_m9's bare network; frozen, one thread."""
    keep_freed_memory()  # as the worker does: else fresh pages are part of it, now and then half as much again
    torch.set_num_threads(1)
    stamps = np.random.default_rng(0).normal(100, 10, (BATCH, 3, 63, 63)).astype(np.float32)
    scorer = load_bundle(bundle)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "d6_m9.pt"
        import_keras(shared / "data/braai" / BRAAI["d6_m9"][0], path, BRAAI["d6_m9"][1])
        bare = BareNetwork(read_bundle(path))
    normalized = [bare.normalize(stamps)]
    best = [np.inf, np.inf]
    for _ in range(ROUNDS):  # in turn, and the best of each: other processes only ever add time
        for i, run in enumerate((lambda: scorer.score(stamps), lambda: bare.run(normalized))):
            begin = time.perf_counter()
            run()
            best[i] = min(best[i], time.perf_counter() - begin)
    cpu = next(line.split(": ")[1] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line)
    kind = f"{cpu}, {torch.backends.cpu.get_cpu_capability()}"  # of one kind only the same seed gives the same weights
    return f"{best[0] / BATCH * 1e6:.0f} us an alert, {best[0] / best[1]:.2f} of d6_m9's network alone ({kind})."


def figures(bundle: Path, folder: Path, real: Table, shared: Path) -> Iterator[tuple[str, str]]:
    """Every figure of the card, by its name there."""
    scorers = [load_bundle(folder / f"half{i}.pt") for i in (0, 1)]
    threshold = load_bundle(bundle).manifest.threshold
    score = recipe.held_out(folder, real)
    yield "threshold", over_thresholds(real, score, threshold)
    yield "real", on_real(real, {OURS: score, "d6_m7": real["d6_m7"], "d6_m9": real["d6_m9"]}, threshold)
    yield "nights", by_night(real, score, threshold)
    for name, generator in (("own", ours), ("other", others)):
        events = scored_events(generator, real, scorers, shared)
        yield f"{name} kinds", by_kind(events, threshold)
        if generator is ours:
            fields = {each: scored_events(with_field(field), real, scorers, shared) for each, field in FIELDS.items()}
            yield "crowded", in_front_of_stars(events, fields)
        yield f"{name} calibration", calibration(events)
    yield "cost", cost(bundle, shared)


FIGURES = (
    "threshold",
    "real",
    "nights",
    "own kinds",
    "crowded",
    "own calibration",
    "other kinds",
    "other calibration",
    "cost",
)


def put(card: str, name: str, figure: str) -> str:
    """The card with a figure between its marks. Raises ValueError where it has none for it."""
    begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
    before, mark, rest = card.partition(begin)
    _, other_mark, after = rest.partition(end)
    if not (mark and other_mark):
        raise ValueError(f"the card has no marks for {name}")
    return before + begin + figure + end + after


def put_into(card: Path, name: str, figure: str) -> None:
    """As `put`, in the card's file."""
    card.write_text(put(card.read_text(), name, figure))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("halves", type=Path)
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder of the shared data")
    parser.add_argument("--card", type=Path, help="write the figures into this card, too")
    options = parser.parse_args()
    real = recipe.judged(parser, options)
    if options.card:
        card = options.card.read_text()
        for name in FIGURES:  # now, and not after minutes
            put(card, name, "")
    for name, figure in figures(options.bundle, options.halves, real, options.shared):
        print(f"## {name}\n\n{figure}\n", flush=True)
        if options.card:
            put_into(options.card, name, figure)


if __name__ == "__main__":
    main()
