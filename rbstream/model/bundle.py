"""Bundles: written with golden scores, loaded onto a device only if that device reproduces them.

This is the one place that touches `torch.jit` (deprecated in torch 2.13, but what the field runs).
"""

import hashlib
import io
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rbstream.errors import ModelError, UsageError
from rbstream.model.manifest import GOLDEN_MEMBER, MANIFEST_MEMBER, Bundle, Manifest, read_bundle
from rbstream.model.network import RealBogus
from rbstream.output import atomic_write

Precision = Literal["float32", "bfloat16"]

# How far a score may be from the golden one. float32: other summation orders move a score by about 1e-6;
# bfloat16 has 8 bits of mantissa, and six layers of them move it by up to 1e-2.
GOLDEN_TOLERANCE: dict[Precision, float] = {"float32": 1e-5, "bfloat16": 2e-2}
DTYPE: dict[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}

# Scoring the golden triplets three times lets TorchScript's profiling executor settle before the first alert.
WARM_UP_RUNS = 3

warnings.filterwarnings("ignore", message=r".*torch\.jit.*", category=DeprecationWarning)
warnings.filterwarnings("ignore", message=r".*torch\.jit.*", category=FutureWarning)


class Scorer:
    """A verified network on a device. One thread at a time."""

    def __init__(self, bundle: Bundle, module: torch.jit.ScriptModule, device: torch.device, precision: Precision):
        self.manifest: Manifest = bundle.manifest
        self.device = device
        self.precision: Precision = precision
        self._module = module

    def new_batch(self, alerts: int) -> NDArray[np.float32]:
        """A batch to fill, float32 (alerts, channels, size, size), in memory that the device copies from fastest."""
        return torch.empty((alerts, *self.manifest.shape), pin_memory=self.device.type == "cuda").numpy()

    def score(self, triplets: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities of being real, float32 (N,), of triplets, float32 (N, channels, size, size), NaN if masked.

        Raises ModelError where the device fails or a score is not a probability.
        """
        try:
            with torch.inference_mode():
                batch = torch.from_numpy(triplets).to(self.device, non_blocking=True)
                scores: NDArray[np.float32] = self._module(batch).cpu().numpy()
        except (RuntimeError, MemoryError) as error:
            raise ModelError(f"scoring failed on {self.device}: {_first_line(error)}") from error
        if scores.shape != (len(triplets),) or not ((scores >= 0) & (scores <= 1)).all():
            raise ModelError(f"{self.manifest.version} gave scores that are not probabilities on {self.device}")
        return scores


def load_bundle(
    path: str | Path, device: str = "cpu", precision: Precision = "float32", sha256: str | None = None
) -> Scorer:
    """Read a bundle, put it on a device and verify it there. Raises ModelError if it can't be trusted."""
    return load_scorer(read_bundle(path, sha256), device, precision)


def load_scorer(bundle: Bundle, device: str, precision: Precision = "float32") -> Scorer:
    """Put a bundle on a device (`cpu`, `cuda[:N]`) and verify its weights and golden scores there."""
    where = torch_device(device)
    torch.set_num_threads(1)  # one thread a process: two on two cores can be 30 times slower at small batches
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    module = load_module(bundle, where)
    digest = weights_sha256(module)
    if digest != bundle.manifest.weights_sha256:
        raise ModelError(f"{bundle.path}: its weights have SHA-256 {digest}, not the manifest's: file damaged")
    scorer = Scorer(bundle, _ready(set_precision(module, precision), where, precision), where, precision)
    verify(bundle, scorer)
    return scorer


def load_module(bundle: Bundle, device: torch.device) -> torch.jit.ScriptModule:
    """The bundle's module on a device, unfrozen. Runs the bundle's code."""
    try:
        module: torch.jit.ScriptModule = torch.jit.load(io.BytesIO(bundle.content), map_location=device)  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, EOFError) as error:
        raise ModelError(f"{bundle.path}: torch can't load it: {_first_line(error)}") from error
    if not all(hasattr(module, part) for part in ("normalize", "network", "compute")):
        raise ModelError(
            f"{bundle.path}: its graph has no normalize, network and compute; `rbstream model import` makes bundles"
        )
    return module.eval()


def verify(bundle: Bundle, scorer: Scorer) -> float:
    """The largest distance of a golden score from the manifest's. Raises ModelError beyond `GOLDEN_TOLERANCE`."""
    for _ in range(WARM_UP_RUNS):
        scores = scorer.score(bundle.golden)
    error = float(np.abs(scores - np.array(bundle.manifest.golden_scores)).max())
    tolerance = GOLDEN_TOLERANCE[scorer.precision]
    if not error <= tolerance:
        raise ModelError(
            f"{bundle.path}: on {scorer.device} in {scorer.precision} a golden score is off by {error:.2g}, more than "
            f"{tolerance:g}; this device would write wrong scores"
        )
    return error


def write_bundle(path: str | Path, module: RealBogus, manifest: Manifest, golden: NDArray[np.float32]) -> Manifest:
    """Write a bundle and return its completed manifest.

    golden: float32 (G, channels, size, size), NaN kept. Their scores, in float32 on the CPU, become the golden ones.
    Raises ModelError where the network does not answer them with probabilities.
    """
    script: torch.jit.ScriptModule = torch.jit.script(module.eval())
    with torch.inference_mode():
        scores = script(torch.from_numpy(golden))
    if scores.shape != (len(golden),) or not bool(((scores >= 0) & (scores <= 1)).all()):
        raise ModelError("the network's answer to the golden triplets is not one probability each")
    complete = manifest.model_copy(
        update={"weights_sha256": weights_sha256(script), "golden_scores": tuple(scores.tolist())}
    )
    _save(path, script, complete, golden)
    return complete


def write_with_threshold(path: str | Path, bundle: Bundle, threshold: float, chosen_by: Mapping[str, Any]) -> Manifest:
    """Write a copy of a bundle that passes from another score: same weights, version and golden triplets and scores.

    chosen_by: the rule and the data, for the manifest's provenance. Returns the copy's manifest.
    Raises ModelError where the bundle can't be loaded, UsageError for a threshold outside of [0, 1].
    """
    if not 0 <= threshold <= 1:
        raise UsageError(f"a threshold of {threshold} is outside of [0, 1], where the scores are")
    manifest = bundle.manifest
    provenance = manifest.provenance | {"threshold": {**chosen_by, "value": threshold, "before": manifest.threshold}}
    changed = manifest.model_copy(update={"threshold": threshold, "provenance": provenance})
    _save(path, load_module(bundle, torch.device("cpu")), changed, bundle.golden)
    return changed


def _save(path: str | Path, script: torch.jit.ScriptModule, manifest: Manifest, golden: NDArray[np.float32]) -> None:
    array = io.BytesIO()
    np.save(array, golden)
    buffer = io.BytesIO()
    extra = {MANIFEST_MEMBER: manifest.model_dump_json(indent=1), GOLDEN_MEMBER: array.getvalue()}
    torch.jit.save(script, buffer, _extra_files=extra)
    with atomic_write(path) as file:
        file.write(buffer.getvalue())


def weights_sha256(module: torch.nn.Module) -> str:
    """SHA-256 over the name, type, shape and bytes of every weight, in the graph's order."""
    digest = hashlib.sha256()
    for name, weight in module.state_dict().items():
        digest.update(json.dumps([name, str(weight.dtype), list(weight.shape)]).encode())
        digest.update(weight.contiguous().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def torch_device(name: str) -> torch.device:
    """`cpu`, `cuda` or `cuda:N` as torch's device. Raises UsageError if it is not known or not there."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device {name}: not a device; use auto, cpu or cuda[:N]") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {name}: not supported; use auto, cpu or cuda[:N]")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelError(f"--device {name} was asked for, but torch sees {torch.cuda.device_count()} CUDA devices here")
    return device


def choose_device(name: str) -> str:
    """`auto` resolved: CUDA where torch sees it, else the CPU. Other names as they are."""
    if name != "auto":
        return name
    return "cuda" if torch.cuda.device_count() else "cpu"


def set_precision(module: torch.jit.ScriptModule, precision: Precision) -> torch.jit.ScriptModule:
    """Let a module's network, not its normalisation, compute in the precision asked for."""
    module.network.to(dtype=DTYPE[precision], memory_format=torch.channels_last)
    module.compute = module.compute.to(DTYPE[precision])
    return module


def _ready(module: torch.jit.ScriptModule, device: torch.device, precision: Precision) -> torch.jit.ScriptModule:
    frozen = torch.jit.freeze(module)
    if device.type == "cpu" and precision == "float32":
        return torch.jit.optimize_for_inference(frozen)  # fuses conv and ReLU
    return frozen  # type: ignore[no-any-return]


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


class BareNetwork:
    """A bundle's network without its normalisation, for measuring what scoring costs at least. Float32, CPU."""

    def __init__(self, bundle: Bundle) -> None:
        module = load_module(bundle, torch.device("cpu"))
        self._normalize = module.normalize
        network = module.network.to(memory_format=torch.channels_last).eval()
        self._network = torch.jit.optimize_for_inference(torch.jit.freeze(network))

    def normalize(self, triplets: NDArray[np.float32]) -> Tensor:
        """What the network gets: float32 (N, C, H, W), channels last."""
        with torch.inference_mode():
            normalized: Tensor = self._normalize(torch.from_numpy(triplets))
            return normalized.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def batches(normalized: Tensor, size: int) -> list[Tensor]:
        """The same in batches of a size."""
        return list(torch.split(normalized, size))

    def run(self, batches: list[Tensor]) -> None:
        """Score them, for the time it takes."""
        with torch.inference_mode():
            for batch in batches:
                self._network(batch)
