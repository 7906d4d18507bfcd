"""What a network makes of artefacts that it was never shown: `python models/leave_out.py LEFT_OUT`.

Each kind of artefact, and three groups of them, are left out of a training in turn, on PART of the recipe's events, in
EPOCHS, and one half of the nights. Prints what passes of them on the other half, where 99% of the injected transients
are kept, beside a network that was shown all, and writes it into the card (`--card models/rbnet.md`). The networks are
left in the folder LEFT_OUT. Left out is what is simulated: real triplets hold artefacts that nobody has named.
"""

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import recipe
from evaluate import KEPT, Rule, markdown, numbered, ours, put, put_into

from rbstream import log
from rbstream.lab.evaluate.resample import Scenes
from rbstream.lab.evaluate.words import share
from rbstream.model.bundle import load_bundle
from rbstream.simulate.kinds import BOGUS

FIGURE = "left out"  # its name in the card
HALF = 0  # that is judged; the networks learn from the other
PART, EPOCHS = 0.1, 6  # of the recipe's events, and how often: 6 minutes a network on one core
LINES = ("streak", "diffraction_spike", "masked_star_spike", "bleed", "bad_column")
SUBTRACTION = ("misaligned_star", "misaligned_galaxy", "psf_ring", "rough_star", "flux_scale")
SHARP = ("cosmic_ray", "cosmic_ray_in_galaxy", "hot_pixel", "reference_defect")  # smaller than a PSF, or cut off
LEFT_OUT: dict[str, tuple[str, ...]] = {
    "nothing": (),
    **{kind: (kind,) for kind in BOGUS},
    "all that is like a line": LINES,
    "all that a subtraction leaves": SUBTRACTION,
    "all that is sharper than a star": SHARP,
}


def bundle_of(folder: Path, name: str) -> Path:
    return folder / f"{name.replace(' ', '_')}.pt"


def _train(folder: Path, shared: Path, seed: int, name: str) -> None:
    real = recipe.real_triplets(shared)
    if real is not None:
        recipe.make(
            bundle_of(folder, name), recipe.other_half(real, HALF), shared, seed, LEFT_OUT[name], PART, epochs=EPOCHS
        )


def table(folder: Path, real: recipe.Table) -> str:
    """What passes of each kind that was left out, and of the same where nothing was."""
    here = np.flatnonzero(recipe.halves(real["night"]) == HALF)
    stamps, _, kind, receiver = ours(recipe.rows(real, here), HALF)
    scenes = Scenes(receiver, 0)

    transient = np.char.startswith(kind, "transient")

    def passing(name: str) -> Rule:
        score = recipe.scored(load_bundle(bundle_of(folder, name)), stamps)

        def passes(times: np.ndarray) -> np.ndarray:
            return score >= np.quantile(np.repeat(score[transient], times[transient]), 1 - KEPT)

        return passes

    def cells(passes: Rule, kinds: Sequence[str]) -> list[str]:
        return [share(each) for each in scenes.shares_of(numbered(kind, kinds), kinds, passes)]

    shown = passing("nothing")
    lines = []
    for name, kinds in list(LEFT_OUT.items())[1:]:
        lines += [[name, *line] for line in zip(kinds, cells(passing(name), kinds), cells(shown, kinds), strict=True)]
    return markdown(["left out", "of these kinds", "pass", "pass where nothing was left out"], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder of the shared data")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--card", type=Path, help="write the table into this card, too")
    options = parser.parse_args()
    log.set_up()
    real = recipe.real_triplets(options.shared)
    if real is None:
        parser.error(f"{options.shared} has no real triplets to measure on")
    if options.card:
        put(options.card.read_text(), FIGURE, "")  # now, and not after an hour
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(partial(_train, options.folder, options.shared, options.seed), LEFT_OUT))
    left_out = table(options.folder, real)
    print(left_out)
    if options.card:
        put_into(options.card, FIGURE, left_out)


if __name__ == "__main__":
    main()
