"""How a network is trained: every setting of `train.toml`, once."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from rbstream.errors import UsageError
from rbstream.lab.losses import LOSSES
from rbstream.lab.networks import ARCHITECTURES
from rbstream.lab.normalize import NORMALIZATIONS

MOST_SEED = 2**32 - 1
"""torch's seeds have 64 bits, and a step's is a million times the training's."""

_Weight = Annotated[float, Field(gt=0)]


def _names(value: Any) -> Any:
    """`science,difference` on the command line is a list in TOML."""
    return tuple(value.split(",")) if isinstance(value, str) else value


def _one_of(names: Mapping[str, object], default: str, description: str) -> Any:
    return Field(
        default=default, json_schema_extra={"enum": list(names)}, description=f"{description}: {', '.join(names)}"
    )


class Recipe(BaseModel):
    """What `train.toml` may say, with the defaults of what it doesn't."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    arch: str = _one_of(ARCHITECTURES, "cnn", "Architecture")
    channels: Annotated[tuple[str, ...], BeforeValidator(_names)] = Field(
        default=(), description="Channels to look at, by name; empty: all of the data set's"
    )
    crop: int = Field(
        default=0, ge=0, description="Side of the middle of the stamps that is looked at [pixels]; 0: all"
    )
    normalization: str = _one_of(NORMALIZATIONS, "asinh", "Normalisation")
    loss: str = _one_of(LOSSES, "bce", "Loss")
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=0.5,
        description="Labels of 0 and 1 become this and 1 minus this: for labels that may be wrong",
    )
    class_weights: Literal["none", "balanced"] | tuple[_Weight, _Weight] = Field(
        default="none",
        description="Weights of bogus and real in the loss: none, balanced (each class as much), or both numbers",
    )
    sampling: Literal["as-is", "balanced"] = Field(
        default="as-is", description="balanced: an epoch shows the smaller class again until both are equally frequent"
    )
    random_crop: int = Field(default=0, ge=0, description="Largest random shift of a stamp in x and y [pixels]")
    flips: bool = Field(default=True, description="Mirror at random: the sky has no left and right")
    rotations: bool = Field(
        default=True,
        description="Turn by quarters at random; not for stamps whose rows and columns differ",
    )
    jitter_noise: float = Field(
        default=0.0,
        ge=0,
        description="Noise added to normalised stamps, each at random up to this sigma, masked pixels left alone; "
        "`robust` has units of the stamp's own noise",
    )
    jitter_scale: float = Field(
        default=0.0, ge=0, description="Scatter of a factor on each channel of a normalised stamp, in its logarithm"
    )
    epochs: int = Field(default=30, ge=1, description="Passes over the training part, at most")
    max_steps: int = Field(default=0, ge=0, description="Steps of a batch, at most; 0: as the epochs give")
    batch: int = Field(default=64, ge=2, description="Stamps in a step")
    learning_rate: float = Field(default=1e-3, gt=0, description="Of AdamW, at its highest")
    schedule: Literal["constant", "one-cycle"] = Field(
        default="one-cycle",
        description="one-cycle: up over the first quarter of the steps, and down to nothing by a cosine",
    )
    weight_decay: float = Field(default=1e-2, ge=0, description="Of AdamW")
    patience: int = Field(
        default=0, ge=0, description="Stop after so many epochs without a lower validation loss; 0: train to the end"
    )
    seed: int = Field(default=0, ge=0, le=MOST_SEED, description="The same seed, the same weights (on a CPU)")
    threads: int = Field(
        default=1,
        ge=1,
        le=256,
        description="Of the CPU for a step; another number sums in another order: other weights",
    )
    device: str = Field(default="cpu", description="cpu, cuda[:N], or auto: CUDA where it is there")
    checkpoint_seconds: float = Field(
        default=30,
        ge=0,
        description="Between checkpoints within an epoch [s]; its end always has one; what is redone at most",
    )


def load_recipe(path: Path | None, given: Mapping[str, Any]) -> Recipe:
    """The recipe of a file, with what is given on top. Raises UsageError, naming what is wrong and what is known."""
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text())
        except OSError as error:
            raise UsageError(f"{path}: can't be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: no TOML: {error}") from error
    where = str(path) if path is not None else "recipe"
    try:
        recipe = Recipe.model_validate(values | dict(given))
    except ValidationError as error:
        raise UsageError("; ".join(_complaint(where, fault) for fault in error.errors())) from error
    for name, known in (("arch", ARCHITECTURES), ("normalization", NORMALIZATIONS), ("loss", LOSSES)):
        if getattr(recipe, name) not in known:
            raise UsageError(f"{where}: {name} = {getattr(recipe, name)!r}; there are {', '.join(known)}")
    return recipe


def _complaint(where: str, fault: Any) -> str:
    name = ".".join(map(str, fault["loc"]))
    if fault["type"] == "extra_forbidden":
        return f"{where}: {name} is no setting of a recipe; there are {', '.join(Recipe.model_fields)}"
    return f"{where}: {name}: {fault['msg']}"
