"""Injection into triplets: the event is in it, the sign is right, and receivers don't tell the class."""

import numpy as np
import pytest

from rbstream.simulate import triplets
from rbstream.simulate.inject import injections, receivers
from rbstream.simulate.kinds import BOGUS, FAR_REACHING, REAL

N = 512


@pytest.fixture(scope="module")
def scenes():
    """Simulated triplets in the place of real ones: the code is the same."""
    stamps, _, _ = triplets(256, 21)
    return receivers(stamps, np.ones(256, bool))


@pytest.fixture(scope="module")
def injected(scenes):
    batches = list(injections(scenes, N, 5))
    return {name: np.concatenate([getattr(batch, name) for batch in batches]) for name in vars(batches[0])}


def test_the_same_seed_gives_the_same_stamps(scenes, injected):
    again = next(injections(scenes, 64, 5))
    for name, values in vars(again).items():
        assert np.array_equal(values, injected[name][:64], equal_nan=values.dtype.kind == "f"), name


def test_the_middle_of_every_difference_is_there_and_bright(injected):
    stamps, real, kind = injected["stamps"], injected["real"], injected["kind"]
    middle = stamps[:, 2, 31, 31]
    assert np.isfinite(middle).all()
    noise = 1.4826 * np.nanmedian(np.abs(stamps[:, 2]), axis=(1, 2))
    assert np.median(middle[real] / noise[real]) > 5
    # Detected after a sign flip: positive on average even for the kinds that are mostly negative.
    assert np.median(middle[kind == "reference_defect"]) > 0


def test_masks_do_not_tell_the_class(injected):
    stamps, real, kind = injected["stamps"], injected["real"], injected["kind"]
    free = ~np.isin(kind, ["edge", "masked_star_spike", "halo"])  # these are masked by their nature
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


def test_everything_is_detected_at_5_sigma_and_measured(injected):
    assert injected["snr"].min() >= 5
    assert np.isfinite(injected["magpsf"]).all()
    assert 0.9 <= injected["fwhm"].min() <= injected["fwhm"].max() <= 9


def test_half_are_real_and_every_kind_occurs(injected):
    assert injected["real"].mean() == pytest.approx(0.5, abs=0.07)
    assert set(injected["kind"][injected["real"]]) == set(REAL)
    assert set(injected["kind"][~injected["real"]]) == set(BOGUS)


def test_the_receiver_is_the_index_of_the_triplet_that_was_given():
    """Receivers that are left out shift no index: the sky of each alert is that of its own receiver."""
    stamps, _, _ = triplets(40, 8)
    stamps[:, 0] += 1000 * np.arange(40, dtype=np.float32)[:, None, None]
    stamps[::3, :, 31, 31] = np.nan  # nothing to inject into
    given = receivers(stamps, np.ones(40, bool))
    assert 20 < len(given.index) < 27
    assert (given.index % 3).all()
    batch = next(injections(given, 128, 2, ["transient", "hot_pixel"]))
    sky = np.nanmedian(batch.stamps[:, 0], axis=(1, 2))
    assert np.array_equal(sky // 1000, batch.receiver)
    assert len(np.unique(batch.receiver)) > 10


def test_no_receivers_are_refused():
    nothing = receivers(np.full((2, 3, 63, 63), np.nan, np.float32), np.ones(2, bool))
    with pytest.raises(ValueError, match="no receivers"):
        injections(nothing, 1, 1)


def test_only_the_kinds_asked_for_are_injected(scenes):
    batch = next(injections(scenes, 100, 1, ["variable", "cosmic_ray_in_galaxy"]))
    assert set(batch.kind) == {"variable", "cosmic_ray_in_galaxy"}
    assert batch.real.mean() == pytest.approx(0.5, abs=0.2)
    assert set(batch.host[batch.real]) == {"centred_star"}
    assert set(batch.host[~batch.real]) == {"galaxy"}


def test_unknown_kinds_are_refused_with_the_known(scenes):
    with pytest.raises(ValueError, match=r"no such kinds: gost; there are transient, .*halo"):
        injections(scenes, 1, 1, ["ghost", "gost"])


def test_compact_events_are_the_same_share_negative_whatever_their_class(scenes):
    """The difference shows its sign in every pixel of noise: it must not tell the class."""
    batches = list(injections(scenes, 1500, 9, set(REAL) | set(BOGUS) - set(FAR_REACHING)))
    real, positive = (np.concatenate([getattr(batch, name) for batch in batches]) for name in ("real", "positive"))
    assert positive[real].mean() == pytest.approx(positive[~real].mean(), abs=0.06)
