"""What a training needs to go on after it was killed, and whether a checkpoint is this training's."""

from __future__ import annotations

import io
import pickle
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from rbstream.errors import RbstreamError, UsageError
from rbstream.output import atomic_write

FORMAT = 1
"""Version of the file's content."""


@dataclass
class State:
    """Where a training is. What is drawn at random in a step follows from seed and step, and needs no state."""

    step: int = 0
    """Steps done."""
    network: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    """An epoch each: see `rbstream.lab.curves.Epoch`."""
    best: dict[str, Any] = field(default_factory=dict)
    """Weights of the epoch with the lowest validation loss."""
    done: bool = False


def checkpoint_path(bundle: Path) -> Path:
    """Where the checkpoint of a bundle to be lies: `net.checkpoint` beside `net.pt`."""
    return bundle.with_suffix(".checkpoint")


def write_checkpoint(path: Path, state: State, training: dict[str, Any]) -> None:
    """Write it whole or not at all. training: what has to be the same for it to go on. Raises OutputError."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "training": training, **vars(state)}, buffer)
    with atomic_write(path) as file:
        file.write(buffer.getvalue())


def is_done(path: Path) -> bool:
    """Whether a checkpoint is that of a training that came to its end. Raises as `read_checkpoint`."""
    return _read(path)[0].done


def read_checkpoint(path: Path, training: dict[str, Any]) -> State:
    """The state, if it is one of this training.

    Raises RbstreamError where the file is damaged, UsageError where it is of another training, naming the difference.
    """
    state, theirs = _read(path)
    different = [name for name in training if theirs.get(name) != training[name]]
    if different:
        listed = "; ".join(f"{name} was {theirs.get(name)!r} and is {training[name]!r}" for name in different)
        raise UsageError(f"{path}: is of another training: {listed}; go on as it began, or delete it and train anew")
    return state


def _read(path: Path) -> tuple[State, dict[str, Any]]:
    """The state, and what its training was."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's advice on what is no checkpoint: load it as code
            # weights_only: tensors and plain values; a checkpoint runs no code.
            content = torch.load(path, map_location="cpu", weights_only=True)
        written, theirs = content.pop("format"), content.pop("training")
        state = State(**content)
    except (OSError, RuntimeError, pickle.UnpicklingError, LookupError, TypeError, ValueError, EOFError) as error:
        what = f" ({error.strerror})" if isinstance(error, OSError) else ""  # torch's words advise to run it as code
        raise RbstreamError(f"{path}: no checkpoint, or a damaged one{what}; delete it and train anew") from error
    if written != FORMAT:
        raise UsageError(f"{path}: written by another rbstream; delete it and train anew")
    return state, theirs
