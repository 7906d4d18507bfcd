"""Pictures for the card's judgements: `python models/gallery.py models/rbnet.pt HALVES -o FOLDER`.

Real triplets, each scored by the network that has not seen its night (HALVES as in `evaluate.py`): what breaks with
both BRAAI networks at the bundle's threshold, missed asteroids, and the strongest disagreements either way. These are
drawn without scores and in the order of their candids: judge them first, what is printed last says who said what. Real
stamps stay out of the repository: the card names them by candid. Beside them mistakes on simulated triplets, which it
shows.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import recipe
from evaluate import SEED
from numpy.typing import NDArray

from rbstream.lab.plot import save, stamp_figure
from rbstream.model.bundle import load_bundle
from rbstream.simulate import triplets

MOST = 30  # in a picture
ACROSS = 3  # triplets in a row
BLIND = ("higher_than_braai", "lower_than_braai")  # what is judged without scores
SIMULATED, SHOWN = 4_000, 12  # triplets, and how many of the worst the card shows


def strongest(rank: NDArray[np.floating], of: NDArray[np.bool_], most: int = MOST) -> NDArray[np.int64]:
    """Rows of the highest rank among some, at most so many."""
    chosen = np.flatnonzero(of)
    return chosen[np.argsort(-rank[chosen], kind="stable")][:most]


def rooms(real: recipe.Table, score: recipe.Array, threshold: float) -> dict[str, NDArray[np.int64]]:
    """Rows to look at, by the picture's name."""
    braai = (real["d6_m7"] + real["d6_m9"]) / 2
    passes = score >= np.float32(threshold)
    everyone = np.ones(len(score), bool)
    return {
        "passed_though_both_braais_under_0.1": strongest(score, passes & (real["consensus"] == 0)),
        "failed_though_both_braais_above_0.9": strongest(-score, ~passes & (real["consensus"] == 1)),
        "asteroids_missed": strongest(-score, ~passes & real["asteroid"]),
        "higher_than_braai": strongest(score - braai, everyone),
        "lower_than_braai": strongest(braai - score, everyone),
    }


def caption(real: recipe.Table, row: int) -> str:
    """What is known of an alert without any score."""
    said = json.loads(real["meta"][row])
    known = "asteroid" if real["asteroid"][row] else ""
    return f"{real['candid'][row]}  {known}\n{said['magpsf']:.1f} mag, {said.get('ndethist') or 0} detections"


def scores_of(real: recipe.Table, score: recipe.Array, row: int) -> str:
    return f"\n{score[row]:.2f}, d6_m7 {real['d6_m7'][row]:.2f}, d6_m9 {real['d6_m9'][row]:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("halves", type=Path)
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder of the shared data")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the pictures")
    options = parser.parse_args()
    real = recipe.judged(parser, options)
    options.output.mkdir(parents=True, exist_ok=True)
    scorer = load_bundle(options.bundle)
    score = recipe.held_out(options.halves, real)
    found = rooms(real, score, scorer.manifest.threshold)
    blind = np.concatenate([found[name] for name in BLIND])
    blind = blind[np.argsort(real["candid"][blind])]
    for name, chosen in found.items():
        if len(chosen) and name not in BLIND:
            titles = [caption(real, row) + scores_of(real, score, row) for row in chosen]
            save(stamp_figure(real["stamps"][chosen], titles, ACROSS), options.output / f"{name}.png")
    for number, chosen in enumerate(np.split(blind, range(MOST, len(blind), MOST)), 1):
        titles = [caption(real, row) for row in chosen]
        save(stamp_figure(real["stamps"][chosen], titles, ACROSS), options.output / f"disagreements_{number}.png")
    stamps, is_real, kind = triplets(SIMULATED, SEED)
    score = recipe.scored(scorer, stamps)
    mistakes = {
        "missed_reals": strongest(-score, is_real, SHOWN),
        "passed_artefacts": strongest(score, ~is_real, SHOWN),
    }
    for name, chosen in mistakes.items():
        titles = [f"{kind[row]} {score[row]:.3f}" for row in chosen]
        save(stamp_figure(stamps[chosen], titles, ACROSS), options.output / f"{name}.png")
    for name, chosen in found.items():
        print(f"{name}: {', '.join(map(str, real['candid'][chosen])) or 'none'}")


if __name__ == "__main__":
    main()
