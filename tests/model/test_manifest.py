"""What a bundle says of itself is read without running it; what is damaged is told in words."""

import json
import random
import subprocess
import sys
import zipfile
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from test_bundle import manifest_of, rewritten
from tiny import rbstream

from rbstream.errors import ModelError
from rbstream.model.manifest import read_bundle


def npy(array: np.ndarray) -> bytes:  # type: ignore[type-arg]
    buffer = BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_info_needs_no_torch(bundle: Path) -> None:
    program = (
        "import sys; sys.argv = ['rbstream', 'model', 'info', sys.argv[1], '--json']; sys.modules['torch'] = None; "
        "from rbstream.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program, bundle], capture_output=True, text=True, check=True)
    shown = json.loads(done.stdout)
    assert shown["version"] == "tiny1"
    assert shown["size"] == 63
    assert len(shown["sha256"]) == 64


def test_info_for_people_names_every_field(bundle: Path) -> None:
    done = rbstream("model", "info", bundle)
    assert done.returncode == 0
    for field in ("name", "version", "survey", "channels", "threshold", "provenance", "weights_sha256"):
        assert any(line.startswith(field) for line in done.stdout.splitlines())


@pytest.mark.parametrize("size", [0, 1, 100, 2000, -1, -30])
def test_a_cut_short_file_is_refused(bundle: Path, tmp_path: Path, size: int) -> None:
    cut = tmp_path / "cut.pt"
    cut.write_bytes(bundle.read_bytes()[:size])
    with pytest.raises(ModelError, match="not a TorchScript file, or a damaged one"):
        read_bundle(cut)


def test_torchscript_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plain.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    with pytest.raises(ModelError, match="TorchScript but no rbstream bundle"):
        read_bundle(path)


@pytest.mark.parametrize(
    "golden",
    [
        npy(np.zeros((8, 3, 62, 63), np.float32)),
        npy(np.zeros((7, 3, 63, 63), np.float32)),
        npy(np.zeros((8, 3, 63, 63))),
        npy(np.zeros(0, np.float32)),
        npy(np.array([None], dtype=object)),
        b"PK\x03\x04",
        b"",
        npy(np.zeros((8, 3, 63, 63), np.float32))[:-1],
    ],
)
def test_wrong_golden_triplets_are_refused(bundle: Path, tmp_path: Path, golden: bytes) -> None:
    with pytest.raises(ModelError, match="golden triplets"):
        read_bundle(rewritten(bundle, tmp_path / "bad.pt", golden_npy=golden))


@pytest.mark.parametrize(
    "change",
    [{"threshold": 1.5}, {"size": 0}, {"unheard_of": 1}, {"version": ""}, {"golden_scores": []}],
)
def test_wrong_manifests_are_refused(bundle: Path, tmp_path: Path, change: dict[str, object]) -> None:
    manifest = json.dumps(manifest_of(bundle) | change).encode()
    with pytest.raises(ModelError, match=r"manifest|golden"):
        read_bundle(rewritten(bundle, tmp_path / "bad.pt", manifest_json=manifest))


def test_any_damage_is_told_as_an_error_of_the_model(bundle: Path, tmp_path: Path) -> None:
    chance, whole, bad = random.Random(1), bundle.read_bytes(), tmp_path / "bad.pt"
    directory = whole.rindex(b"PK\x01\x02")
    for number in range(400):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 8)):
            at = chance.randrange(directory - 400, len(whole)) if number % 2 else chance.randrange(len(whole))
            damaged[at] = chance.randrange(256)
        bad.write_bytes(damaged)
        with suppress(ModelError):  # what stands untouched may still be read; nothing else may be raised
            read_bundle(bad)


def test_members_that_unzip_to_more_than_the_file_are_not_read(bundle: Path, tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.pt"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/extra/golden.npy", bytes(50_000_000))
        archive.writestr("bomb/extra/manifest.json", json.dumps(manifest_of(bundle)))
    with pytest.raises(ModelError, match=r"no golden\.npy and no manifest\.json"):
        read_bundle(bomb)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="can't be read: No such file"):
        read_bundle(tmp_path / "absent.pt")
    with pytest.raises(ModelError, match="can't be read: Is a directory"):
        read_bundle(tmp_path)
