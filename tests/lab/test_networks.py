"""Architectures and normalisations: their sizes, what they make of damaged stamps, and that they can be shipped."""

import json

import numpy as np
import pytest
import torch

from rbstream.errors import UsageError
from rbstream.lab.anatomy import dissect
from rbstream.lab.losses import LOSSES
from rbstream.lab.networks import ARCHITECTURES, build
from rbstream.lab.normalize import NORMALIZATIONS, channels_out, preparation
from rbstream.model.network import RealBogus


def parameters(arch, channels, side):
    return sum(weight.numel() for weight in build(arch, channels, side).parameters())


def test_the_per_pixel_dense_network_of_the_course_has_27452_parameters():
    assert parameters("pixelwise", 1, 21) == 27_452


def test_the_three_convolutions_have_9666_parameters():
    assert parameters("cnn", 1, 21) == 9_666


def test_vgg6_is_braais_network():
    found = dissect("vgg6", build("vgg6", 3, 63), (3, 63, 63))
    assert found.parameters == 312_081
    assert found.multiply_adds == sum(layer.multiply_adds for layer in found.layers) == 19_042_096


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize(("channels", "side"), [(1, 21), (3, 29), (4, 63), (2, 64)])
def test_every_architecture_takes_any_size_and_gives_a_logit_a_stamp(arch, channels, side):
    assert build(arch, channels, side)(torch.zeros(3, channels, side, side)).shape == (3,)


def test_a_stamp_too_small_for_an_architecture_is_refused_with_the_least_size():
    with pytest.raises(UsageError, match="vgg6 needs stamps of at least 20 px, not 19"):
        build("vgg6", 3, 19)


def damaged() -> torch.Tensor:
    """Stamps as surveys send them, and worse."""
    stamps = torch.from_numpy(np.random.default_rng(1).normal(100, 7, (7, 3, 32, 32)).astype(np.float32))
    stamps[0, 0, :5] = torch.nan
    stamps[1] = torch.nan
    stamps[2, 1, 3, 3] = -3.4e38
    stamps[3] = 5
    stamps[4, 0] = 0
    stamps[5, 2, 2, 2] = torch.inf
    return stamps


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_a_normalisation_gives_finite_values_whatever_comes_in_also_as_torchscript(name):
    prepare = preparation(name, [2, 0], 3, 32, 21)
    module = RealBogus(prepare, build("cnn", channels_out(prepare, 3, 32), 21)).eval()
    script = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.script(module)))
    stamps = damaged()
    if name == "l2-image":
        stamps[5, 2, 2, 2] = 0  # BRAAI's own: numpy's nan_to_num turns infinity into a number whose square is none
    normalized = prepare(stamps)
    assert normalized.shape[2:] == (21, 21)
    assert torch.isfinite(normalized).all()
    with torch.inference_mode():
        assert torch.allclose(script(stamps), module(stamps), atol=1e-6)


def normalized(name, stamp):
    return NORMALIZATIONS[name][0]()(torch.from_numpy(stamp.astype(np.float32))[None, None])[0, 0].numpy()


@pytest.fixture
def stamp():
    values = np.random.default_rng(3).normal(50, 5, (21, 21))
    values[10, 10] = 300
    return values


def test_sigmag_is_as_published(stamp):
    p25, median, p75 = np.percentile(stamp, [25, 50, 75])
    by_hand = np.maximum(stamp, median - 2 * 0.7413 * (p75 - p25))
    by_hand -= by_hand.min()
    assert np.allclose(normalized("sigmag", stamp), by_hand / by_hand.sum(), atol=1e-6)


def test_asinh_is_in_units_of_the_noise_around_the_median(stamp):
    median = np.median(stamp)
    by_hand = np.arcsinh((stamp - median) / (1.4826 * np.median(np.abs(stamp - median))))
    assert np.allclose(normalized("asinh", stamp), by_hand, atol=1e-4)


def test_min_max_and_mean_std_are_what_they_say(stamp):
    assert np.allclose(normalized("min-max", stamp), (stamp - stamp.min()) / np.ptp(stamp), atol=1e-6)
    assert np.allclose(normalized("mean-std", stamp), (stamp - stamp.mean()) / stamp.std(), atol=1e-4)


def test_a_constant_stamp_has_no_scatter_whatever_float32_makes_of_its_mean():
    stamps = torch.full((1, 1, 63, 63), 12345.678)  # the mean of its float32 sum is 1e-3 beside it
    assert not NORMALIZATIONS["mean-std"][0]()(stamps).any()


@pytest.mark.parametrize("name", ["min-max", "mean-std", "asinh", "sigmag"])
def test_masked_pixels_do_not_change_what_the_others_become(name, stamp):
    whole = stamp.copy()
    stamp = np.vstack([stamp, np.full((3, 21), np.nan)])
    assert np.allclose(normalized(name, stamp)[:21], normalized(name, whole), atol=1e-5)
    assert (normalized(name, stamp)[21:] == 0).all()


def test_losses_are_zero_for_certain_truth_and_grow_with_the_error():
    logits, labels = torch.tensor([-40.0, -1.0, 1.0, 40.0]), torch.ones(4)
    for name, loss in LOSSES.items():
        values = loss(logits, labels)
        assert values[3] == pytest.approx(0, abs=1e-6), name
        assert (values.diff() < 0).all(), name


def test_describe_prints_networks_side_by_side(here):
    status, output, _ = here("model", "describe", "cnn", "pixelwise", "--size", "21", "--channels", "1", "--json")
    cnn, pixelwise = json.loads(output)
    assert status == 0
    assert (cnn["parameters"], pixelwise["parameters"]) == (9_666, 27_452)
    status, output, _ = here("model", "describe", "cnn", "vgg6")
    assert "312,081" in output
    assert "19,042,096" in output


def test_describe_takes_a_bundle(here, bundle):
    status, output, _ = here("model", "describe", str(bundle), "--json")
    assert status == 0
    assert json.loads(output)[0]["parameters"] == 244


def test_describe_refuses_what_is_neither_architecture_nor_file(here):
    status, _, errors = here("model", "describe", "resnet")
    assert status == 2
    assert "vgg6" in errors


@pytest.mark.parametrize("arguments", [("--size", "100000"), ("--channels", "1000000000"), ("--size", "0")])
def test_describe_refuses_stamps_that_nobody_has(here, arguments):
    status, _, errors = here("model", "describe", "cnn", *arguments)
    assert status == 2
    assert "from 1 to" in errors
