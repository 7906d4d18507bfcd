"""Injection into triplets: the event is in it, the sign is right, and receivers don't tell the class."""

import numpy as np
import pytest

from rbstream.simulate import triplets
from rbstream.simulate.inject import injections, receivers

N = 512


@pytest.fixture(scope="module")
def scenes():
    """Simulated triplets in the place of real ones: the code is the same."""
    stamps, _, _ = triplets(256, 21)
    return receivers(stamps, np.ones(256, bool))


@pytest.fixture(scope="module")
def injected(scenes):
    batches = list(injections(scenes, N, 5))
    return tuple(np.concatenate([batch[i] for batch in batches]) for i in range(3))


def test_the_same_seed_gives_the_same_stamps(scenes, injected):
    again = next(injections(scenes, 64, 5))[0]
    assert np.array_equal(again, injected[0][:64], equal_nan=True)


def test_the_middle_of_every_difference_is_there_and_bright(injected):
    stamps, real, kind = injected
    middle = stamps[:, 2, 31, 31]
    assert np.isfinite(middle).all()
    noise = 1.4826 * np.nanmedian(np.abs(stamps[:, 2]), axis=(1, 2))
    assert np.median(middle[real] / noise[real]) > 5
    # Detected after a sign flip: positive on average even for the kinds that are mostly negative.
    assert np.median(middle[kind == "reference_defect"]) > 0


def test_masks_do_not_tell_the_class(injected):
    stamps, real, kind = injected
    free = ~np.isin(kind, ["edge", "masked_star_spike"])  # these are masked by their nature
    masked = np.isnan(stamps).any(axis=(1, 2, 3))
    assert masked[real].mean() == pytest.approx(masked[~real & free].mean(), abs=0.12)


def test_a_fill_value_is_masked_and_a_negative_receiver_unflipped():
    stamps, _, _ = triplets(4, 3)
    stamps[0, 2, 0, 0] = -3.4e38
    found = receivers(stamps, np.array([True, False, True, True]))
    assert np.isnan(found.stamps[0, 2, 0, 0])
    assert np.array_equal(found.stamps[1, 2], -stamps[1, 2], equal_nan=True)
    assert np.abs(np.nan_to_num(found.stamps)).max() < 1e30


def test_triplets_without_a_middle_receive_nothing():
    stamps, _, _ = triplets(3, 4)
    stamps[1, :, 30:33, 30:33] = np.nan
    assert len(receivers(stamps, np.ones(3, bool)).noise) == 2
