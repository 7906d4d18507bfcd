"""Bundles: what is served is what was written, on the device and in the precision asked for, or nothing is."""

import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import rbstream, tiny_network, write_tiny
from torch import Tensor, nn

from rbstream.errors import ModelError, UsageError
from rbstream.model.bundle import (
    GOLDEN_TOLERANCE,
    Scorer,
    choose_device,
    load_bundle,
    load_module,
    load_scorer,
    set_precision,
    verify,
    weights_sha256,
    write_bundle,
)
from rbstream.model.golden import golden_triplets
from rbstream.model.manifest import read_bundle
from rbstream.model.network import L2Image, L2Row, RealBogus


def rewritten(bundle: Path, to: Path, **members: bytes) -> Path:
    """A copy with other bytes in some members, named without folder and with _ for a dot."""
    with zipfile.ZipFile(bundle) as old, zipfile.ZipFile(to, "w") as new:
        for info in old.infolist():
            name = info.filename.rsplit("/", 1)[1].replace(".", "_")
            new.writestr(info, members.get(name, old.read(info)))
    return to


def manifest_of(bundle: Path) -> dict[str, object]:
    return json.loads(read_bundle(bundle).manifest.model_dump_json())


def test_a_written_bundle_answers_as_its_network_did(bundle: Path) -> None:
    triplets = golden_triplets(read_bundle(bundle).manifest)
    with torch.inference_mode():
        expected = tiny_network()(torch.from_numpy(triplets)).numpy()
    np.testing.assert_allclose(load_bundle(bundle).score(triplets), expected, atol=1e-6)


def test_scores_do_not_depend_on_the_batch_they_are_in(bundle: Path) -> None:
    scorer = load_bundle(bundle)
    triplets = golden_triplets(scorer.manifest)
    alone = np.concatenate([scorer.score(triplets[i : i + 1]) for i in range(len(triplets))])
    np.testing.assert_allclose(scorer.score(triplets), alone, atol=1e-6)


@pytest.mark.parametrize("normalization", [L2Row, L2Image])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, -3.4e38, 3.4e38, 0.0, 1e-45])
def test_stamps_of_any_pixels_get_a_score(normalization: type[nn.Module], value: float) -> None:
    module = RealBogus(normalization(), tiny_network().network)
    triplets = np.ones((3, 3, 63, 63), np.float32)
    triplets[0, 0, 5, 5] = value
    triplets[1, 1] = value
    triplets[2] = value
    scores = module(torch.from_numpy(triplets)).detach()
    assert torch.isfinite(scores).all()


def test_bfloat16_stays_near_float32(bundle: Path) -> None:
    opened = read_bundle(bundle)
    scorer = load_scorer(opened, "cpu", "bfloat16")
    assert verify(opened, scorer) <= GOLDEN_TOLERANCE["bfloat16"]
    assert scorer.score(opened.golden).dtype == np.float32


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_weight_and_buffer_goes_to_the_device(bundle: Path, precision: str) -> None:
    opened, device = read_bundle(bundle), torch.device("meta")
    module = set_precision(load_module(opened, device), precision)  # type: ignore[arg-type]
    tensors = [*module.parameters(), *module.buffers()]
    assert tensors
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    scores = module(torch.empty(5, *opened.manifest.shape, device=device))
    assert (scores.device.type, scores.shape, scores.dtype) == ("meta", (5,), torch.float32)


def test_cuda_asked_for_and_absent_is_an_error(bundle: Path) -> None:
    absent = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(ModelError, match="CUDA devices here"):
        load_bundle(bundle, absent)
    done = rbstream("model", "verify", bundle, "--device", absent)
    assert done.returncode == 1
    assert absent in done.stderr


def test_auto_is_whatever_is_there() -> None:
    assert choose_device("auto") == ("cuda" if torch.cuda.device_count() else "cpu")
    assert choose_device("cpu") == "cpu"


@pytest.mark.parametrize("name", ["tpu", "mps", ""])
def test_other_devices_are_refused(bundle: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"auto, cpu or cuda\[:N\]"):
        load_bundle(bundle, name)


def test_other_weights_than_the_manifest_says_are_refused(bundle: Path, tmp_path: Path) -> None:
    torch.manual_seed(6)
    other = tiny_network()
    other.network[2].bias.data += 1e-7
    manifest = read_bundle(bundle).manifest
    assert weights_sha256(other) != manifest.weights_sha256
    write_tiny(tmp_path / "other.pt", other)
    bad = rewritten(tmp_path / "other.pt", tmp_path / "b.pt", manifest_json=manifest.model_dump_json().encode())
    with pytest.raises(ModelError, match=r"weights have SHA-256 .*damaged"):
        load_bundle(bad)


@pytest.mark.parametrize("score", [0.5, float("nan")])
def test_golden_scores_that_are_not_reproduced_are_refused(bundle: Path, tmp_path: Path, score: float) -> None:
    manifest = manifest_of(bundle)
    manifest["golden_scores"][3] = score  # type: ignore[index]
    bad = rewritten(bundle, tmp_path / "bad.pt", manifest_json=json.dumps(manifest).encode())
    with pytest.raises(ModelError, match="golden"):
        load_bundle(bad)


def test_a_pinned_checksum_is_checked_before_anything_is_looked_at(bundle: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256(bundle.read_bytes()).hexdigest()
    assert load_bundle(bundle, sha256=digest.upper()).manifest.name == "tiny"
    garbage = tmp_path / "garbage.pt"
    garbage.write_bytes(b"no zip at all")
    with pytest.raises(ModelError, match="not the one you pinned"):
        load_bundle(garbage, sha256=digest)


def test_a_bundle_without_our_graph_is_refused(bundle: Path, tmp_path: Path) -> None:
    class Other(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean(dim=(1, 2, 3)).nan_to_num().clamp(0, 1)

    opened = read_bundle(bundle)
    write_bundle(tmp_path / "other.pt", Other(), opened.manifest, opened.golden)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="no normalize, network and compute"):
        load_bundle(tmp_path / "other.pt")


def test_a_network_without_probabilities_is_not_written(tmp_path: Path) -> None:
    network = tiny_network()
    network.network[2].weight.data[:] = np.nan
    with pytest.raises(ModelError, match="not one probability"):
        write_tiny(tmp_path / "nan.pt", network)
    assert list(tmp_path.iterdir()) == []


class Answer(nn.Module):
    """A device that gives a wrong answer."""

    def __init__(self, answer: object) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.answer, Exception):
            raise self.answer
        return torch.full(self.answer, 0.5) if isinstance(self.answer, tuple) else torch.full((len(x),), self.answer)


@pytest.mark.parametrize(
    "answer", [float("nan"), 1.5, -0.1, (3,), RuntimeError("CUDA error: out of memory"), MemoryError()]
)
def test_a_wrong_answer_of_the_device_is_an_error_of_the_model(bundle: Path, answer: object) -> None:
    scorer = Scorer(read_bundle(bundle), Answer(answer), torch.device("cpu"), "float32")  # type: ignore[arg-type]
    with pytest.raises(ModelError):
        scorer.score(np.zeros((2, 3, 63, 63), np.float32))


def test_the_default_bundle_scores_any_pixels() -> None:
    from rbstream.assembly import DEFAULT_BUNDLE
    from rbstream.files import data_path

    scorer = load_bundle(data_path(DEFAULT_BUNDLE))
    triplets = golden_triplets(scorer.manifest)
    triplets[0, 0, 3] = np.inf
    triplets[1] = -np.inf
    triplets[2] = -3.4e38
    assert np.isfinite(scorer.score(triplets)).all()
