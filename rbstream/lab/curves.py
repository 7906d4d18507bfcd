"""Loss and accuracy over the epochs: as a figure, as a table, and as a verdict in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rbstream.lab.plot import BOGUS, REAL, THIRD, new_figure

_STILL_FALLING = 0.05  # of the loss: less in the last epochs is noise, or not worth the wait
_LAST = 0.2  # share of the epochs that tells whether it still falls
_LEARNED = 0.95  # of the loss of a constant answer: above, nothing was learned
_SMALL_GAP = 0.02  # of accuracy: not worth a word
_LARGE_GAP = 0.05
_LOSS_APART = 1.25  # validation's loss over training's: what is learned by heart shows there first
_LOSS_FAR_APART = 1.5
_FEW = 10  # of the rarer class in validation: with fewer, one alert moves its loss as much as an epoch does


class Epoch(NamedTuple):
    """After an epoch. Training is measured as validation is: without augmentation or dropout, on as many stamps."""

    epoch: int
    step: int
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float


class Verdict(NamedTuple):
    """What the curves say."""

    converged: bool
    best: int
    """Epoch with the lowest validation loss, whose weights are kept."""
    gap: float
    """Accuracy of training less that of validation, there."""
    words: str


def best_epoch(history: Sequence[Epoch]) -> Epoch:
    """The one with the lowest validation loss, the first of equals."""
    return min(history, key=lambda epoch: epoch.validation_loss)


def verdict(history: Sequence[Epoch], constant_loss: float, perfect_loss: float, stamps: int, rarer: int) -> Verdict:
    """What to make of the curves.

    constant_loss, perfect_loss: on the validation part, of the best constant answer, and of the labels as answers,
    which cost something where they are soft. stamps: that each of the two accuracies was measured on. rarer: how many
    of validation's are of the rarer class.
    """
    best = best_epoch(history)
    gap = best.train_accuracy - best.validation_accuracy
    tail = history[-max(2, math.ceil(_LAST * len(history))) :]
    before = min(epoch.validation_loss for epoch in history[: -len(tail) + 1] or history[:1]) - perfect_loss
    excess = best.validation_loss - perfect_loss
    fallen = (before - excess) / before if best.epoch >= tail[0].epoch and before > 0 else 0.0
    learned = excess < _LEARNED * (constant_loss - perfect_loss)
    converged = learned and len(history) > 2 and fallen < _STILL_FALLING
    words = " ".join(
        (
            _progress(history, best, fallen, len(tail) - 1, learned, converged),
            f"{_gap(best, gap, stamps)}{_apart(history, best)}" if learned else "The gap to training says nothing yet.",
            _level(best),
        )
    )
    if rarer < _FEW:
        words += f" But validation has only {rarer} of the rarer class, which decide all of this: split otherwise."
    return Verdict(converged, best.epoch, gap, words)


def _progress(history: Sequence[Epoch], best: Epoch, fallen: float, last: int, learned: bool, converged: bool) -> str:
    if not learned:
        return "Not converged: no better than a constant answer. Try another learning rate or normalisation."
    if len(history) <= 2:
        return f"Not converged, as far as {_epochs(len(history))} can tell: train for more."
    if not converged:
        fell = f"the validation loss still fell by {fallen:.0%} in the last {_epochs(last)}"
        return f"Not converged: {fell}. Train for longer."
    after = len(history) - best.epoch
    later = f", {after} before the last" if after else ""
    return f"Converged: the lowest validation loss came in epoch {best.epoch} of {len(history)}{later}."


def _epochs(number: int) -> str:
    return "epoch" if number == 1 else f"{number} epochs"


def _gap(best: Epoch, gap: float, stamps: int) -> str:
    size = f"{100 * gap:+.1f} points of accuracy"
    spread = sum(share * (1 - share) for share in (best.train_accuracy, best.validation_accuracy))
    if _SMALL_GAP < abs(gap) < 2 * math.sqrt(spread / stamps):  # two sigma
        return f"The gap to training ({size}) is within what chance gives for {stamps:,} stamps of each."
    if gap < -_SMALL_GAP:
        return f"Validation is easier than training ({size}): the parts differ."
    if gap > _LARGE_GAP:
        return f"The gap to training is wide ({size}): it knows its data by heart; more data, or fewer weights."
    if gap > _SMALL_GAP:
        return f"The gap to training is {size}: some is learned by heart; more data would help."
    return f"The gap to training is small ({size})."


def _apart(history: Sequence[Epoch], best: Epoch) -> str:
    """What the losses say of the gap, which accuracy hides: nothing where they are close."""
    last = history[-1]
    if last.epoch > best.epoch and last.validation_loss > _LOSS_FAR_APART * last.train_loss:
        ends = f"{last.validation_loss:.3f} in validation, {last.train_loss:.3f} in training at the end"
        return f" After the kept epoch the losses part ({ends}): from there on it learns by heart."
    if best.validation_loss > _LOSS_APART * best.train_loss:
        return " By its loss it is surer of what it has seen: some is learned by heart."
    return ""


def _level(best: Epoch) -> str:
    return (
        f"Level: accuracy {best.validation_accuracy:.1%} in validation and {best.train_accuracy:.1%} in training, "
        f"loss {best.validation_loss:.4f} and {best.train_loss:.4f}."
    )


def draw_curves(history: Sequence[Epoch], title: str) -> Figure:
    """Loss and accuracy of training and validation, the kept epoch marked."""
    figure, axes = new_figure(9.6, 3.8, 1, 2)
    epochs = [epoch.epoch for epoch in history]
    best = best_epoch(history)
    for axis, name in zip(axes, ("loss", "accuracy"), strict=True):
        for part, colour in (("train", THIRD), ("validation", REAL)):
            axis.plot(
                epochs, [getattr(epoch, f"{part}_{name}") for epoch in history], color=colour, marker=".", label=part
            )
        axis.axvline(best.epoch, color=BOGUS, linestyle=":", label="kept")
        axis.set(xlabel="epoch", ylabel=name)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.legend()
    axes[0].set_yscale("log")
    figure.suptitle(title)
    return figure


def history_csv(history: Sequence[Epoch]) -> str:
    """The same as a table."""
    lines = [",".join(Epoch._fields)]
    lines += [
        ",".join(f"{value:.6g}" if isinstance(value, float) else str(value) for value in epoch) for epoch in history
    ]
    return "\n".join(lines) + "\n"
