"""Training: from a data set and a recipe to a bundle, interrupted and resumed as often as it takes.

On a CPU the same data, recipe and torch give the same weights, bit for bit, whether it ran through or was killed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rbstream import __version__
from rbstream.errors import RbstreamError, UsageError
from rbstream.lab.checkpoint import State, checkpoint_path, is_done, read_checkpoint, write_checkpoint
from rbstream.lab.curves import Epoch, Verdict, best_epoch, draw_curves, history_csv, verdict
from rbstream.lab.dataset import DataError, DataSet
from rbstream.lab.loader import Loader
from rbstream.lab.losses import LOSSES
from rbstream.lab.networks import build
from rbstream.lab.normalize import NORMALIZATIONS, channels_out, preparation
from rbstream.lab.overlap import sketch
from rbstream.lab.plot import save
from rbstream.lab.recipe import Recipe
from rbstream.model.bundle import choose_device, load_bundle, torch_device, weights_sha256, write_bundle
from rbstream.model.golden import golden_triplets
from rbstream.model.manifest import Manifest
from rbstream.model.network import RealBogus
from rbstream.output import PartFile, atomic_write
from rbstream.progress import Progress

_LOOKED_AT = 20_000  # stamps that an epoch's loss is measured on: to 0.3% of accuracy, in seconds
_ALIKE = 256  # stamps compared to find a data set whose stamps are all the same
_AT_ONCE = 256  # stamps scored in one go


@dataclass(frozen=True)
class Trained:
    """What came of a training."""

    manifest: Manifest
    history: tuple[Epoch, ...]
    verdict: Verdict
    resumed: int
    """Step from which it went on, 0 for the beginning."""


def train(data: DataSet, recipe: Recipe, bundle: Path, *, resume: bool = False) -> Trained:
    """Train on the data set's train part, choose by its validation part, and write the bundle.

    Beside `bundle` lie its checkpoint, `.curves.png` and `.history.csv`. The weights kept are those of the epoch with
    the lowest validation loss. resume: go on from the checkpoint if there is one.
    Raises DataError or UsageError for data that can't teach what is asked, RbstreamError where the loss isn't finite.
    """
    rows = checked_rows(data)
    checkpoint = checkpoint_path(bundle)
    if checkpoint == bundle:
        raise UsageError(f"{bundle}: that is a checkpoint's name; end the bundle's in .pt")
    PartFile(bundle).discard()  # what can't be written is said now, not when all is trained
    training = _identity(data, recipe)
    state = _begin(checkpoint, training, resume)
    run = _Run(data, recipe, rows, state, lambda: write_checkpoint(checkpoint, state, training))
    resumed = state.step
    with Progress("training", run.total) as progress:
        run.go(progress)
    return _finish(run, bundle, resumed)


class _Run:
    """A training under way."""

    def __init__(
        self, data: DataSet, recipe: Recipe, rows: dict[str, NDArray[np.int64]], state: State, keep: Callable[[], None]
    ) -> None:
        self.data, self.recipe, self.state, self._keep = data, recipe, state, keep
        self.device = torch_device(choose_device(recipe.device))
        torch.set_num_threads(recipe.threads)
        torch.use_deterministic_algorithms(self.device.type == "cpu")
        torch.manual_seed(recipe.seed)
        self.module = new_module(data, recipe).to(self.device)
        # Fused over all weights or not, the sums are the same; plain loops are what is documented to be.
        self._optimizer = torch.optim.AdamW(
            self.module.network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, foreach=False
        )
        self._begun = state.step
        if state.network:
            self.module.network.load_state_dict(state.network)
            self._optimizer.load_state_dict(state.optimizer)
        self._loader = Loader(data, rows["train"], recipe, self._normalized)
        self._loss = LOSSES[recipe.loss]
        self._weights = class_weights(recipe, data.column("label")[rows["train"]]).to(self.device)
        sample = np.random.default_rng([recipe.seed, 2])
        self._looked_at = {
            part: np.sort(sample.permutation(rows[part])[:_LOOKED_AT]) for part in ("train", "validation")
        }
        # As many of one as of the other: a gap between them is not one of their sizes.
        fewer = min(map(len, self._looked_at.values()))
        self._looked_at["train"] = np.sort(sample.permutation(self._looked_at["train"])[:fewer])
        self.total = recipe.epochs * self._loader.steps
        if recipe.max_steps:
            self.total = min(self.total, recipe.max_steps)

    @property
    def history(self) -> tuple[Epoch, ...]:
        return tuple(Epoch(**epoch) for epoch in self.state.history)  # type: ignore[arg-type]

    def go(self, progress: Progress) -> None:
        """Train to the end, from wherever the state is."""
        while not self.state.done:
            self._epoch(progress)
            self._look()
            self.state.done = self.state.step >= self.total or self._patience_is_over()
            self._snapshot()

    def _epoch(self, progress: Progress) -> None:
        """The rest of the epoch that the state is in."""
        epoch, first = divmod(self.state.step, self._loader.steps)
        kept = time.monotonic()
        for batch in self._loader.epoch(epoch, first):
            loss = self._step(batch.step, batch.stamps, batch.labels.to(self.device))
            self.state.step = batch.step + 1
            seen = (self.state.step - self._begun) * self.recipe.batch
            progress.show(seen, self.state.step, epoch=epoch + 1, loss=round(loss, 4))
            if self.state.step == self.total:
                return
            ends = self.state.step % self._loader.steps == 0  # then what is measured belongs into the checkpoint
            if not ends and time.monotonic() - kept > self.recipe.checkpoint_seconds:
                self._snapshot()
                kept = time.monotonic()

    def _step(self, step: int, normalized: Tensor, labels: Tensor) -> float:
        # Dropout draws from a seed of the step: a resumed training needs no generator's state.
        torch.manual_seed(self.recipe.seed * 1_000_003 + step)
        self.module.network.train()
        for group in self._optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * rate(self.recipe.schedule, step, self.total)
        smooth = self.recipe.label_smoothing
        logits = self.module.network(normalized)
        loss = self._weighted(logits, labels * (1 - 2 * smooth) + smooth, labels).mean()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise RbstreamError(
                f"the loss is {value} in step {step + 1}: try a lower learning_rate than {self.recipe.learning_rate:g}"
            )
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return value

    @torch.no_grad()
    def _normalized(self, stamps: Tensor) -> Tensor:
        normalized: Tensor = self.module.normalize(stamps.to(self.device))
        return normalized

    def _weighted(self, logits: Tensor, targets: Tensor, labels: Tensor) -> Tensor:
        weight = self._weights[0] * (1 - labels) + self._weights[1] * labels
        return weight * self._loss(logits, targets)

    def _look(self) -> None:
        """Measure both parts and keep the weights if they are the best so far."""
        epoch = -(-self.state.step // self._loader.steps)
        train, validation = (self._measure(self._looked_at[part]) for part in ("train", "validation"))
        self.state.history.append(Epoch(epoch, self.state.step, *train, *validation)._asdict())
        lowest = min(past["validation_loss"] for past in self.state.history)
        if validation[0] <= lowest or not self.state.best:
            self.state.best = {
                name: value.detach().clone().cpu() for name, value in self.module.network.state_dict().items()
            }

    def _measure(self, rows: NDArray[np.int64]) -> tuple[float, float]:
        """Loss, as in training but without smoothing, and accuracy at 0.5."""
        self.module.network.eval()
        labels = self.data.column("label")
        loss = right = 0.0
        with torch.inference_mode():
            for part, stamps in self.data.batches(rows, _AT_ONCE):
                logits = self.module.network(self._normalized(torch.from_numpy(stamps)))
                truth = torch.from_numpy(labels[part]).to(self.device)
                loss += float(self._weighted(logits, truth, truth).double().sum())
                right += float(((logits >= 0) == (truth >= 0.5)).sum())
        return loss / len(rows), right / len(rows)

    def verdict(self) -> Verdict:
        """What the curves say, beside the best constant answer and the labels themselves as answers."""
        labels = torch.from_numpy(self.data.column("label")[self._looked_at["validation"]]).to(self.device)
        answers = torch.linspace(-12, 12, 241, device=self.device)  # logits: a class may be one in 100,000
        constant = min(float(self._weighted(answer.expand_as(labels), labels, labels).mean()) for answer in answers)
        perfect = float(self._weighted(torch.logit(labels, eps=1e-6), labels, labels).mean())
        real = int((labels >= 0.5).sum())
        stamps = min(map(len, self._looked_at.values()))
        return verdict(self.history, constant, perfect, stamps, min(real, len(labels) - real))

    def _patience_is_over(self) -> bool:
        if not self.recipe.patience:
            return False
        history = self.history
        return len(history) - history.index(best_epoch(history)) > self.recipe.patience

    def _snapshot(self) -> None:
        self.state.network = self.module.network.state_dict()
        self.state.optimizer = self._optimizer.state_dict()
        self._keep()


def new_module(data: DataSet, recipe: Recipe) -> RealBogus:
    """An untrained network with its normalisation, for the data set's stamps. Raises UsageError where it can't be."""
    names = data.about.channels
    missing = [name for name in recipe.channels if name not in names]
    if missing:
        raise UsageError(f"{data.path}: has no channel {', '.join(missing)}; it has {', '.join(names)}")
    if recipe.crop > data.about.size:
        raise UsageError(
            f"crop = {recipe.crop}, and the stamps of {data.path} have {data.about.size} px; crop at most that"
        )
    chosen = [names.index(name) for name in recipe.channels or names]
    side = recipe.crop or data.about.size
    if 2 * recipe.random_crop >= side:
        raise UsageError(
            f"random_crop = {recipe.random_crop} shifts the candidate out of the {side} px that are looked at; at most "
            f"{(side - 1) // 2}"
        )
    prepare = preparation(recipe.normalization, chosen, len(names), data.about.size, side)
    return RealBogus(prepare, build(recipe.arch, channels_out(prepare, len(names), data.about.size), side))


def rate(schedule: str, step: int, total: int) -> float:
    """The learning rate of a step as a share of the highest."""
    if schedule == "constant":
        return 1.0
    rise = max(1, total // 4)
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, total - rise)))


def class_weights(recipe: Recipe, labels: NDArray[np.float32]) -> Tensor:
    """Weights of bogus and real, their mean over the labels 1 where they are balanced."""
    if recipe.class_weights == "none":
        return torch.ones(2)
    if recipe.class_weights == "balanced":
        real = float(labels.mean())
        return torch.tensor([0.5 / (1 - real), 0.5 / real])
    return torch.tensor(recipe.class_weights)


def checked_rows(data: DataSet) -> dict[str, NDArray[np.int64]]:
    """The rows of both parts that training needs. Raises DataError where they can't teach anything."""
    rows = {part: data.rows(part) for part in ("train", "validation")}
    for part, chosen in rows.items():
        if not len(chosen):
            raise DataError(
                f"{data.path}: no labelled stamps in the {part} part; `rbstream data split` splits otherwise"
            )
        real = data.column("label")[chosen] >= 0.5
        if real.all() or not real.any():
            only = "real" if real.all() else "bogus"
            raise DataError(
                f"{data.path}: all {len(chosen):,} stamps of the {part} part are {only}: nothing to tell apart"
            )
        empty = chosen[data.column("masked")[chosen] >= 1]
        if len(empty):
            raise DataError(
                f"{data.path}: {len(empty):,} stamps of the {part} part have no data in any pixel (all NaN), the first "
                f"in row {empty[0]}; `rbstream data import {data.path} --drop-empty` leaves them out"
            )
    some = data.stamps(rows["train"][:_ALIKE])
    if len(some) > 1 and np.array_equal(some, np.broadcast_to(some[:1], some.shape), equal_nan=True):
        raise DataError(f"{data.path}: the first {len(some)} stamps are all alike: nothing to learn from")
    return rows


def _identity(data: DataSet, recipe: Recipe) -> dict[str, Any]:
    """What must not change between the parts of a training."""
    settings = recipe.model_dump(mode="json", exclude={"checkpoint_seconds", "device"})
    return {"data": data.identity, **settings, "torch": str(torch.__version__)}


def _begin(checkpoint: Path, training: dict[str, Any], resume: bool) -> State:
    if not checkpoint.exists():
        return State()
    if resume:
        return read_checkpoint(checkpoint, training)
    if is_done(checkpoint):
        return State()
    raise UsageError(f"{checkpoint}: a training has begun there; --resume goes on with it, deleting it begins anew")


def _finish(run: _Run, bundle: Path, resumed: int) -> Trained:
    """Write the bundle of the best weights, and what is beside it."""
    run.module.network.load_state_dict(run.state.best)
    module = run.module.cpu().eval()
    judged = run.verdict()
    manifest = _manifest(run, module, bundle.stem, judged)
    written = write_bundle(bundle, module, manifest, golden_triplets(manifest))
    load_bundle(bundle)  # it is served only where it reproduces its golden scores: that is seen here, not at night
    save(draw_curves(run.history, f"{run.recipe.arch} on {run.data.path.name}"), bundle.with_suffix(".curves.png"))
    with atomic_write(bundle.with_suffix(".history.csv")) as file:
        file.write(history_csv(run.history).encode())
    return Trained(written, run.history, judged, resumed)


def _manifest(run: _Run, module: RealBogus, name: str, judged: Verdict) -> Manifest:
    about, recipe = run.data.about, run.recipe
    best = best_epoch(run.history)
    window = f"{', '.join(recipe.channels or about.channels)}; the middle {recipe.crop or about.size} px; "
    return Manifest(
        name=name,
        version=f"{name}-{weights_sha256(torch.jit.script(module))[:8]}",
        survey=about.survey,
        size=about.size,
        channels=about.channels,
        normalization=window + NORMALIZATIONS[recipe.normalization][1],
        threshold=0.5,  # the middle, until `rbstream model evaluate` chooses one
        provenance={
            "made_by": f"rbstream {__version__}",
            "recipe": recipe.model_dump(mode="json"),
            "data": {
                "identity": run.data.identity,
                "rows": about.rows,
                "source": about.source,
                "split": about.split,
                "scenes": sketch(run.data.scenes()[run.data.rows("train")].tolist()),
            },
            "best": best._asdict(),
            "steps": run.state.step,
            "verdict": judged.words,
            "torch": str(torch.__version__),
        },
    )
