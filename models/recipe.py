"""How rbstream-compact is made: `python models/recipe.py -o models/rbstream-compact.pt`.

A compact network learns from simulated triplets, from simulated events in real triplets, and from the real
triplets themselves with the mean of both BRAAI networks as soft label. The same seed gives the same weights
on the same kind of CPU. Without the shared data only simulated triplets are used.

`--crossfit` trains the same on each half of the nights and scores the other half: what the card reports.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rbstream.model.bundle import write_bundle
from rbstream.model.compact import NORMALIZATION, CoreAndContext, RobustLog, fused
from rbstream.model.golden import golden_triplets
from rbstream.model.manifest import Manifest
from rbstream.model.network import RealBogus
from rbstream.simulate import triplets
from rbstream.simulate.inject import injections, receivers

Array = NDArray[np.float32]

VERSION = "rbstream-compact-1"
SIMULATED = 20_000  # triplets of nothing but simulation: clean examples of every kind
INJECTED = 36_000  # events in real triplets: 30 in each, every one in another place, mask or noise
REPEATED = 6  # times that each real triplet is shown an epoch: a tenth of what is learned
EPOCHS = 8  # 7 minutes on a core; the loss still fell a little from the seventh to the eighth
BATCH = 128  # 500 steps an epoch; not tuned
RATE = 3e-3  # peak of the one-cycle schedule: three times AdamW's default, as batch normalisation allows
DECAY = 1e-2  # AdamW's default
SMOOTHING = 0.01  # labels of 0.01 and 0.99: simulated truth has outliers that no detector could tell
# On held-out nights every known asteroid passes here, and 7.5% of what both BRAAIs reject: see the card.
THRESHOLD = 0.6


@dataclass(frozen=True)
class Real:
    """The 1,168 real triplets of the shared data, see SOURCES.md there."""

    stamps: Array
    positive: NDArray[np.bool_]
    label: Array
    night: NDArray[np.int64]

    def of(self, chosen: NDArray[np.bool_]) -> "Real":
        """The chosen ones."""
        return Real(self.stamps[chosen], self.positive[chosen], self.label[chosen], self.night[chosen])


def load_real(shared: Path) -> Real | None:
    """The real triplets, None where the shared data aren't."""
    path = shared / "data/ztf/stamps.npz"
    if not path.exists():
        return None
    table = np.load(path)
    meta = [json.loads(text) for text in table["meta"]]
    # A known asteroid is real whatever a network says of it.
    label = np.where(table["asteroid"], 1, (table["d6_m7"] + table["d6_m9"]) / 2)
    return Real(
        stamps=table["stamps"],
        positive=np.array([row["isdiffpos"] in ("t", "1") for row in meta]),
        label=label.astype(np.float32),
        night=np.array([int(row["jd"]) for row in meta]),
    )


def folds(night: NDArray[np.int64]) -> NDArray[np.int64]:
    """0 or 1 for each triplet: whole nights, the largest first, each into the smaller half."""
    nights, counts = np.unique(night, return_counts=True)
    size, half = [0, 0], {}
    for i in np.argsort(-counts, kind="stable"):
        half[int(nights[i])] = smaller = int(size[1] < size[0])
        size[smaller] += int(counts[i])
    return np.array([half[int(value)] for value in night])


class Lessons:
    """Normalised triplets in float16 (a quarter of the memory, 1e-3 of the value) with labels and weights."""

    def __init__(self) -> None:
        self.normalize = RobustLog()
        self.inputs: list[torch.Tensor] = []
        self.labels: list[torch.Tensor] = []

    def add(self, stamps: Array, labels: NDArray[np.generic]) -> None:
        for begin in range(0, len(stamps), 1024):
            batch = torch.from_numpy(np.ascontiguousarray(stamps[begin : begin + 1024]))
            self.inputs.append(self.normalize(batch).half())
        self.labels.append(torch.from_numpy(labels.astype(np.float32)))

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = torch.cat(self.inputs).contiguous(memory_format=torch.channels_last)
        return inputs, torch.cat(self.labels)


def lessons(real: Real | None, seed: int) -> Lessons:
    """Everything to learn from."""
    result = Lessons()
    stamps, truth, _ = triplets(SIMULATED, seed)
    result.add(stamps, truth)
    if real is not None:
        # Another stream than the simulated triplets': the same events twice teach nothing.
        for batch in injections(receivers(real.stamps, real.positive), INJECTED, seed + 1_000_000):
            result.add(batch.stamps, batch.real)
        for _ in range(REPEATED):
            result.add(real.stamps, real.label)
    return result


def train(real: Real | None, seed: int) -> RealBogus:
    """A trained network."""
    torch.set_num_threads(1)  # the machine's way of dividing work must not change the sums
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    started = time.monotonic()
    with torch.no_grad():
        inputs, labels = lessons(real, seed).tensors()
    print(f"{len(labels)} triplets after {time.monotonic() - started:.0f} s", flush=True)
    network = CoreAndContext().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    batches = len(labels) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=EPOCHS * batches)
    for epoch in range(1, EPOCHS + 1):
        total = 0.0
        order = torch.randperm(len(labels))
        for batch in range(batches):
            chosen = order[batch * BATCH : (batch + 1) * BATCH]
            loss = step(network, inputs[chosen].float(), labels[chosen])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            total += loss.item()
        elapsed = time.monotonic() - started
        print(f"epoch {epoch} of {EPOCHS}: loss {total / batches:.4f} after {elapsed:.0f} s", flush=True)
    return RealBogus(RobustLog(), fused(network)).eval()


def step(network: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The loss of one batch, mirrored at random: the sky has no left or right, but columns stay columns."""
    if torch.rand(()) < 0.5:
        inputs = inputs.flip(2)
    if torch.rand(()) < 0.5:
        inputs = inputs.flip(3)
    logits = network(inputs.contiguous(memory_format=torch.channels_last)).squeeze(1)
    return nn.functional.binary_cross_entropy_with_logits(logits, labels * (1 - 2 * SMOOTHING) + SMOOTHING)


def score(module: RealBogus, stamps: Array) -> Array:
    """Scores (N,) of triplets (N,3,63,63)."""
    with torch.inference_mode():
        parts = [module(torch.from_numpy(stamps[i : i + 64])).numpy() for i in range(0, len(stamps), 64)]
    return np.concatenate(parts)


def crossfit(real: Real, seed: int) -> Array:
    """A score for each real triplet from a network that has seen none of its half of the nights."""
    half = folds(real.night)
    scores = np.empty(len(half), np.float32)
    for fold in (0, 1):
        module = train(real.of(half != fold), seed)
        scores[half == fold] = score(module, real.stamps[half == fold])
    return scores


def manifest(real: Real | None, seed: int) -> Manifest:
    """What the bundle says of itself."""
    return Manifest(
        name="rbstream-compact",
        version=VERSION,
        normalization=NORMALIZATION,
        threshold=THRESHOLD,
        provenance={
            "recipe": f"python models/recipe.py --seed {seed}",
            "seed": seed,
            "simulated": SIMULATED,
            "injected": 0 if real is None else INJECTED,
            "real": 0 if real is None else len(real.label),
            "labels of the real": "mean of BRAAI d6_m7 and d6_m9; known asteroids 1",
            "torch": torch.__version__,
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder of the shared data")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, default=Path("models/rbstream-compact.pt"))
    parser.add_argument("--crossfit", type=Path, help="write held-out scores here (.npy) instead of a bundle")
    options = parser.parse_args()
    real = load_real(options.shared)
    if options.crossfit is not None:
        if real is None:
            parser.error(f"{options.shared} has no real triplets to hold out")
        np.save(options.crossfit, crossfit(real, options.seed))
        return
    described = manifest(real, options.seed)
    write_bundle(options.output, train(real, options.seed), described, golden_triplets(described))


if __name__ == "__main__":
    main()
