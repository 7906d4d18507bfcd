"""What only a machine with a GPU can show; `python -m pytest tests/model/test_cuda.py` there."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rbstream.files import data_path
from rbstream.model.bundle import GOLDEN_TOLERANCE, Precision, load_bundle
from rbstream.simulate import simulate_night, triplets

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here")

BUNDLE = data_path("models/rbnet.pt")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_scores_on_the_gpu_are_those_of_the_cpu(precision: Precision) -> None:
    sample, _, _ = triplets(256, seed=11)
    on_cpu = load_bundle(BUNDLE, "cpu").score(sample)
    on_gpu = load_bundle(BUNDLE, "cuda", precision).score(sample)
    assert np.abs(on_gpu - on_cpu).max() <= GOLDEN_TOLERANCE[precision]


def test_a_batch_for_the_gpu_is_pinned() -> None:
    scorer = load_bundle(BUNDLE, "cuda")
    assert torch.from_numpy(scorer.new_batch(4)).is_pinned()


def test_replay_chooses_the_gpu_by_itself_and_agrees_with_the_cpu(tmp_path: Path) -> None:
    simulate_night(tmp_path / "night.avro", alerts=300, seed=5)
    verdicts = {}
    for device in ("auto", "cpu"):
        command = [sys.executable, "-m", "rbstream", "replay", str(tmp_path / "night.avro"), "--json"]
        done = subprocess.run([*command, "--device", device], capture_output=True, check=True)
        verdicts[device] = json.loads(done.stdout)
    assert verdicts["auto"]["device"].startswith("cuda")
    assert abs(verdicts["auto"]["passed"] - verdicts["cpu"]["passed"]) <= 1  # a score within 1e-5 of the threshold
