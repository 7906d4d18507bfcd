"""What a bundle says of itself, and how to read it without running any of its code (or importing torch).

A bundle is one TorchScript file. TorchScript files are zip archives, and two members under `extra/` are ours:
`manifest.json` (a `Manifest`) and `golden.npy` (the golden triplets).
"""

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rbstream.errors import ModelError

MANIFEST_MEMBER = "manifest.json"
GOLDEN_MEMBER = "golden.npy"
# Ten times the largest network in the field's brokers; a wrong path to a night's tar is refused, not read.
MAX_BUNDLE_BYTES = 1 << 30


class Manifest(BaseModel):
    """Everything that must be known to serve a network and to say afterwards what served.

    The last two are filled in when the bundle is written.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, description="Name of the network")
    version: str = Field(min_length=1, description="What is written as `drbversion`; unique for these weights")
    survey: str = Field(default="ztf", description="Survey whose packets it scores")
    size: int = Field(default=63, gt=0, le=4096, description="Side of the input stamps [pixels]")
    channels: tuple[str, ...] = Field(
        default=("science", "template", "difference"),
        description="Cutouts, in the order of the input's channels",
    )
    normalization: str = Field(description="Normalisation inside the graph, in words")
    threshold: float = Field(ge=0, le=1, description="Default score from which an alert passes")
    provenance: dict[str, Any] = Field(default_factory=dict, description="Training data, recipe, seed, source")
    weights_sha256: str = Field(default="", description="SHA-256 of the weights, in the graph's order")
    golden_scores: tuple[float, ...] = Field(default=(), description="Scores of the golden triplets, in float32")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one triplet: (channels, size, size)."""
        return len(self.channels), self.size, self.size


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle's bytes, read once, so that what was hashed is what is run.

    golden: float32 (G, channels, size, size), NaN where a pixel is masked.
    """

    path: Path
    content: bytes
    sha256: str
    manifest: Manifest
    golden: NDArray[np.float32]


def read_bundle(path: str | Path, sha256: str | None = None) -> Bundle:
    """Read a bundle without running it.

    sha256: the expected SHA-256 of the file (hexadecimal), checked before anything in it is looked at.
    Raises ModelError for a file that is not a bundle, is damaged, or has another checksum.
    """
    path = Path(path)
    content = _content(path)
    digest = hashlib.sha256(content).hexdigest()
    if sha256 is not None and digest != sha256.strip().lower():
        raise ModelError(f"{path}: SHA-256 is {digest}, expected {sha256}; the file is not the one you pinned")
    members = _members(path, content)
    try:
        manifest = Manifest.model_validate_json(members[MANIFEST_MEMBER])
        golden = np.lib.format.read_array(io.BytesIO(members[GOLDEN_MEMBER]), allow_pickle=False)
    except (ValidationError, ValueError, EOFError, OSError, MemoryError) as error:
        raise ModelError(f"{path}: the manifest or the golden triplets are damaged: {error}") from error
    expected = (len(manifest.golden_scores), *manifest.shape)
    if golden.dtype != np.float32 or golden.shape != expected or not len(golden):
        raise ModelError(f"{path}: golden triplets are {golden.dtype} {golden.shape}, expected float32 {expected}")
    return Bundle(path, content, digest, manifest, golden)


def _content(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BUNDLE_BYTES:
            raise ModelError(f"{path}: larger than {MAX_BUNDLE_BYTES} bytes; this is not a model bundle")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: the model bundle can't be read: {error.strerror}") from error


def _members(path: Path, content: bytes) -> dict[str, bytes]:
    """Our two members of the archive, by their names under `extra/`."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            found = {
                info.filename.rsplit("/", 1)[1]: archive.read(info)
                for info in archive.infolist()
                if info.filename.endswith((f"/extra/{MANIFEST_MEMBER}", f"/extra/{GOLDEN_MEMBER}"))
                and info.compress_type == zipfile.ZIP_STORED  # as torch writes them: no larger than the file
            }
    except Exception as error:  # zipfile raises many kinds on damaged bytes; each of them means the same
        raise ModelError(f"{path}: not a TorchScript file, or a damaged one: {error}") from error
    missing = {MANIFEST_MEMBER, GOLDEN_MEMBER} - found.keys()
    if missing:
        raise ModelError(
            f"{path}: no {' and no '.join(sorted(missing))} in it, so it is TorchScript but no rbstream bundle; "
            "`rbstream model import` makes one"
        )
    return found


def describe_bundle(bundle: Bundle) -> dict[str, Any]:
    """What `rbstream model info` shows: the file's place, size and checksum, and the manifest."""
    shown = bundle.manifest.model_dump(mode="json")
    return {"path": str(bundle.path), "bytes": len(bundle.content), "sha256": bundle.sha256, **shown}
