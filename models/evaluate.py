"""What a bundle does on real and simulated triplets: `python models/evaluate.py models/rbstream-compact.pt`.

Prints the tables of the card. BRAAI (`../shared/data/braai`) is measured beside it.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rbstream.model.bundle import Scorer, load_bundle
from rbstream.model.keras import import_keras
from rbstream.simulate import triplets
from rbstream.simulate.detect import observe
from rbstream.simulate.scene import draw_scene

Scores = NDArray[np.float32]
Mask = NDArray[np.bool_]

SIMULATED, SEED = 12_000, 20_000_000  # a seed that the recipe doesn't use; 12,000 give each kind 200 or more
KEPT = 0.99  # share of the simulated reals that the compared threshold keeps


class Real:
    """The real triplets and what is known of them."""

    def __init__(self, shared: Path) -> None:
        table = np.load(shared / "data/ztf/stamps.npz")
        self.stamps: Scores = table["stamps"]
        self.asteroid: Mask = table["asteroid"]
        self.consensus = table["consensus"]
        self.braai: dict[str, Scores] = {name: table[name] for name in ("d6_m7", "d6_m9")}
        self.often = np.array([(json.loads(text).get("ndethist") or 0) > 100 for text in table["meta"]])
        self.masked = ~(np.abs(self.stamps) < 1e30).all(axis=(1, 2, 3))

    def groups(self) -> dict[str, Mask]:
        """The rows of the table."""
        bogus, real = self.consensus == 0, self.consensus == 1
        return {
            "known asteroids": self.asteroid,
            "`consensus == 1`": real,
            "`consensus == 1`, more than 100 earlier detections": real & self.often,
            "`consensus == -1`": self.consensus == -1,
            "`consensus == 0`": bogus,
            "`consensus == 0`, more than 100 earlier detections": bogus & self.often,
            "`consensus == 0`, with masked pixels": bogus & self.masked,
        }


def table(rows: dict[str, Mask], columns: dict[str, tuple[Scores, float]]) -> str:
    """Markdown: the share of each row's alerts that each column's scores pass at its threshold."""
    lines = ["| | alerts | " + " | ".join(columns) + " |", "|---|---|" + "---|" * len(columns)]
    for name, chosen in rows.items():
        if not chosen.any():
            continue
        cells = [f"{(scores[chosen] >= at).mean():.1%}" for scores, at in columns.values()]
        lines.append(f"| {name} | {chosen.sum()} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def on_real(real: Real, columns: dict[str, Scores], threshold: float) -> str:
    """Pass rates on the real triplets at one threshold for all."""
    rated = {f"{name} >= {threshold:g}": (scores, threshold) for name, scores in columns.items()}
    agreed = real.consensus >= 0
    lines = [table(real.groups(), rated), ""]
    for name, scores in columns.items():
        same = (scores >= threshold) == (real.consensus == 1)
        lines.append(f"Agreement of {name} with `consensus` where it is 0 or 1: {same[agreed].mean():.1%}.")
    return "\n".join(lines)


def thresholds(real: Real, scores: Scores) -> str:
    """Recall and pass rate over thresholds."""
    lines = [
        "| threshold | asteroids pass | `consensus == 1` pass | `consensus == 0` pass |",
        "|---|---|---|---|",
    ]
    groups = (real.asteroid, real.consensus == 1, real.consensus == 0)
    for at in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        cells = [f"{(scores[group] >= at).mean():.1%}" for group in groups]
        lines.append(f"| {at} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def on_simulated(scorers: dict[str, Scorer], threshold: float) -> str:
    """Pass rates by kind: at the bundle's threshold, and of all where they keep the same share of reals."""
    stamps, real, kind = triplets(SIMULATED, SEED)
    rows = {name: kind == name for name in (*np.unique(kind[real]), *np.unique(kind[~real]))}
    rows |= {"all real": real, "all bogus": ~real}
    columns: dict[str, tuple[Scores, float]] = {}
    for name, scorer in scorers.items():
        scores = scored(scorer, stamps)
        if not columns:
            columns[f"{name} >= {threshold:g}"] = scores, threshold
        at = float(np.quantile(scores[real], 1 - KEPT))
        columns[f"{name} >= {at:.3g}"] = scores, at
    return table(rows, columns)


def on_nothing(scorers: dict[str, Scorer]) -> str:
    """Share of scenes without any event that each network calls real, at its own threshold."""
    rng = np.random.default_rng(SEED)
    stamps = np.concatenate([empty_scenes(rng, 100) for _ in range(20)])
    lines = ["| | threshold | scenes without an event that pass |", "|---|---|---|"]
    for name, scorer in scorers.items():
        at = scorer.manifest.threshold
        lines.append(f"| {name} | {at:g} | {(scored(scorer, stamps) >= at).mean():.1%} |")
    return "\n".join(lines)


def empty_scenes(rng: np.random.Generator, n: int) -> Scores:
    """Triplets (n,3,63,63) of which nothing was found: the best peak near the middle is under 4 sigma."""
    found = observe(rng, draw_scene(rng, n))
    return found.stamps[found.snr < 4]


def speed(scorers: dict[str, Scorer]) -> str:
    """Microseconds an alert of each network with its normalisation, one core, float32."""
    batch = triplets(32, SEED)[0]  # the batch at which a core is fastest
    best = dict.fromkeys(scorers, np.inf)
    for _ in range(60):  # interleaved, and the best of them: other processes only ever add time
        for name, scorer in scorers.items():
            begin = time.perf_counter()
            scorer.score(batch)
            best[name] = min(best[name], (time.perf_counter() - begin) / len(batch) * 1e6)
    return "\n".join(["| | us an alert |", "|---|---|", *(f"| {name} | {value:.0f} |" for name, value in best.items())])


def scored(scorer: Scorer, stamps: Scores) -> Scores:
    """Scores (N,) of triplets (N,3,63,63)."""
    return np.concatenate([scorer.score(stamps[i : i + 64]) for i in range(0, len(stamps), 64)])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder of the shared data")
    parser.add_argument("--heldout", type=Path, help="scores of `recipe.py --crossfit` (.npy)")
    options = parser.parse_args()
    scorer = load_bundle(options.bundle)
    threshold, name = scorer.manifest.threshold, scorer.manifest.version
    real = Real(options.shared)
    columns = {name: scored(scorer, real.stamps)}
    if options.heldout is not None:
        columns = {"held out": np.load(options.heldout), **columns}
    print(f"## Real triplets\n\n{on_real(real, columns | real.braai, threshold)}")
    for column, of in columns.items():
        print(f"\n### {column}\n\n{thresholds(real, of)}")
    scorers = {name: scorer}
    with tempfile.TemporaryDirectory() as folder:
        for network, normalization in (("d6_m7", "l2-row"), ("d6_m9", "l2-image")):
            source = options.shared / f"data/braai/{'braai_' if network == 'd6_m9' else ''}{network}.h5"
            bundle = Path(folder) / f"{network}.pt"
            import_keras(source, bundle, normalization)
            scorers[network] = load_bundle(bundle)
    print(f"\n## Simulated triplets by kind\n\n{on_simulated(scorers, threshold)}")
    print(f"\n## Nothing there\n\n{on_nothing(scorers)}")
    print(f"\n## Speed\n\n{speed(scorers)}")


if __name__ == "__main__":
    main()
