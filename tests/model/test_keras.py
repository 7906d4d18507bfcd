"""Keras networks become bundles that answer as Keras does; what can't be carried over is refused in words."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from tiny import rbstream

from rbstream.errors import ModelError, UsageError
from rbstream.model.bundle import load_bundle
from rbstream.model.golden import golden_triplets
from rbstream.model.keras import import_keras
from rbstream.model.manifest import read_bundle

CONV = {
    "name": "conv", "batch_input_shape": [None, 63, 63, 3], "padding": "valid", "data_format": "channels_last",
    "strides": [1, 1], "dilation_rate": [1, 1], "activation": "relu", "use_bias": True,
}  # fmt: skip
POOL = {
    "name": "pool", "padding": "valid", "data_format": "channels_last", "pool_size": [4, 4], "strides": [4, 4]
}  # fmt: skip
DENSE = {"name": "dense", "activation": "sigmoid", "use_bias": True}


def layers(**changes: dict[str, Any]) -> list[dict[str, Any]]:
    """Convolution, pooling, flattening, one dense layer; with changes to the configurations."""
    return [
        {"class_name": "Conv2D", "config": CONV | changes.get("conv", {})},
        {"class_name": "MaxPooling2D", "config": POOL | changes.get("pool", {})},
        {"class_name": "Dropout", "config": {"name": "dropout"}},
        {"class_name": "Flatten", "config": {"name": "flatten"}},
        {"class_name": "Dense", "config": DENSE | changes.get("dense", {})},
    ]


def weights(inputs: int = 15 * 15 * 2) -> dict[str, Any]:
    random = np.random.default_rng(4)
    return {
        "conv/kernel": random.normal(size=(3, 3, 3, 2)).astype(np.float32),
        "conv/bias": random.normal(size=2).astype(np.float32),
        "dense/kernel": random.normal(size=(inputs, 1)).astype(np.float32) * 3,
        "dense/bias": random.normal(size=1).astype(np.float32),
    }


def keras_file(path: Path, model: Any, arrays: dict[str, Any]) -> Path:
    """As Keras's `model.save` lays it out."""
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = model if isinstance(model, str) else json.dumps(model)
        for name, array in arrays.items():
            layer, kind = name.split("/")
            file[f"model_weights/{layer}/{layer}/{kind}:0"] = array
    return path


def sequential(found: list[dict[str, Any]]) -> dict[str, Any]:
    return {"class_name": "Sequential", "config": {"name": "net", "layers": found}}


def by_hand(stamps: np.ndarray, arrays: dict[str, Any]) -> np.ndarray:  # type: ignore[type-arg]
    """The same network in numpy, channels last, as Keras computes it. stamps: normalised (N, 63, 63, 3)."""
    windows = np.lib.stride_tricks.sliding_window_view(stamps, (3, 3), axis=(1, 2))  # N, y, x, c, dy, dx
    convolved = np.einsum("nyxcij,ijco->nyxo", windows, arrays["conv/kernel"]) + arrays["conv/bias"]
    convolved = np.maximum(convolved, 0)[:, :60, :60]
    pooled = convolved.reshape(len(stamps), 15, 4, 15, 4, 2).max(axis=(2, 4))
    logits = pooled.reshape(len(stamps), -1) @ arrays["dense/kernel"] + arrays["dense/bias"]
    return 1 / (1 + np.exp(-logits[:, 0]))


def test_the_bundle_answers_as_the_network_does(tmp_path: Path) -> None:
    source = keras_file(tmp_path / "net.h5", sequential(layers()), weights())
    manifest = import_keras(source, tmp_path / "net.pt", "l2-row")
    assert (manifest.version, manifest.normalization, manifest.size) == ("net", "l2-row", 63)
    triplets = golden_triplets(manifest)[:5]
    stamps = np.nan_to_num(triplets).transpose(0, 2, 3, 1)
    norm = np.sqrt((stamps**2).sum(axis=2, keepdims=True))
    expected = by_hand(stamps / np.where(norm == 0, 1, norm), weights())
    np.testing.assert_allclose(load_bundle(tmp_path / "net.pt").score(triplets), expected, atol=1e-5)


def test_the_version_can_be_given(tmp_path: Path) -> None:
    source = keras_file(tmp_path / "net.h5", sequential(layers()), weights())
    done = rbstream(
        "model", "import", source, "--normalize", "l2-image", "-o", tmp_path / "n.pt", "--name-version", "v2"
    )
    assert done.returncode == 0, done.stderr
    assert read_bundle(tmp_path / "n.pt").manifest.version == "v2"
    assert load_bundle(tmp_path / "n.pt").manifest.normalization == "l2-image"


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (layers()[:4], "does not end in a sigmoid"),
        ([*layers()[:2], {"class_name": "LSTM", "config": {"name": "memory"}}], "memory is a LSTM"),
        (layers(conv={"activation": "gelu"}), "activation gelu"),
        (layers(conv={"padding": "same"}), "padding=same"),
        (layers(conv={"data_format": "channels_first"}), "data_format=channels_first"),
        (layers(conv={"name": "elsewhere"}), "not as Keras writes it: KeyError: 'elsewhere/kernel'"),
        (layers(conv={"strides": None}), "not as Keras writes it"),
        (layers(conv={"batch_input_shape": [None, 63, 60, 3]}), "its input is"),
        (layers(conv={"batch_input_shape": [None, 63, 63, 4]}), "takes 4 channels; a triplet has 3"),
        (layers(pool={"pool_size": [2, 2], "strides": [2, 2]}), "don't fit together"),
        ([], "does not end in a sigmoid"),
    ],
)
def test_networks_that_cannot_be_carried_over_are_refused(
    tmp_path: Path, found: list[dict[str, Any]], words: str
) -> None:
    source = keras_file(tmp_path / "net.h5", sequential(found), weights())
    with pytest.raises(ModelError, match=words):
        import_keras(source, tmp_path / "net.pt", "l2-row")
    assert not (tmp_path / "net.pt").exists()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"class_name": "Functional", "config": {}}, "only Sequential"),
        ("{", "not as Keras writes it"),
        ("[]", "not as Keras writes it"),
        ({"class_name": "Sequential"}, "not as Keras writes it"),
    ],
)
def test_other_architectures_are_refused(tmp_path: Path, model: Any, words: str) -> None:
    source = keras_file(tmp_path / "net.h5", model, weights())
    with pytest.raises(ModelError, match=words):
        import_keras(source, tmp_path / "net.pt", "l2-row")


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "net.h5").write_bytes(b"not HDF5")
    with pytest.raises(ModelError, match="not a readable HDF5 file"):
        import_keras(tmp_path / "net.h5", tmp_path / "net.pt", "l2-row")
    with pytest.raises(ModelError, match="not a readable HDF5 file"):
        import_keras(tmp_path / "absent.h5", tmp_path / "net.pt", "l2-row")
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file["conv"] = np.zeros(3)
    with pytest.raises(ModelError, match=r"give the file that Keras's model\.save\(\) wrote"):
        import_keras(tmp_path / "weights.h5", tmp_path / "net.pt", "l2-row")


def test_unknown_normalisations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one of l2-row, l2-image"):
        import_keras(tmp_path / "net.h5", tmp_path / "net.pt", "zscore")


def test_the_source_is_never_overwritten(tmp_path: Path) -> None:
    source = keras_file(tmp_path / "net.h5", sequential(layers()), weights())
    before = source.read_bytes()
    with pytest.raises(UsageError, match="give another name"):
        import_keras(source, source, "l2-row")
    assert source.read_bytes() == before


@pytest.mark.parametrize(("name", "normalize"), [("d6_m7", "l2-row"), ("braai_d6_m9", "l2-image")])
def test_both_published_networks_can_be_imported(shared_data: Path, tmp_path: Path, name: str, normalize: str) -> None:
    manifest = import_keras(shared_data / "braai" / f"{name}.h5", tmp_path / "b.pt", normalize)
    assert manifest.version == name
    assert load_bundle(tmp_path / "b.pt").manifest == manifest
