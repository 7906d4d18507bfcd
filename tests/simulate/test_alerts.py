"""The simulated alerts themselves: their mix, their noise, how they are detected."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.ndimage import maximum_filter

from rbstream.simulate import triplets
from rbstream.simulate.alerts import alerts, until_detected
from rbstream.simulate.hosts import HOSTS, give_hosts
from rbstream.simulate.kinds import BOGUS, FAR_REACHING, REAL
from rbstream.simulate.scene import draw_scene, neighbours

N = 1500


@pytest.fixture(scope="module")
def simulated():
    return triplets(N, 11)


def test_shapes_and_types(simulated):
    stamps, real, kind = simulated
    assert stamps.shape == (N, 3, 63, 63)
    assert stamps.dtype == np.float32
    assert real.dtype == bool
    assert kind.shape == real.shape == (N,)


def test_every_kind_occurs_and_says_its_class(simulated):
    _, real, kind = simulated
    assert set(kind[real]) == set(REAL)
    assert set(kind[~real]) == set(BOGUS)
    assert real.mean() == pytest.approx(0.5, abs=0.05)


def test_a_seventh_of_the_alerts_have_masked_pixels_whatever_their_class(simulated):
    stamps, real, _ = simulated
    masked = np.isnan(stamps).any(axis=(1, 2, 3))
    assert masked.mean() == pytest.approx(0.14, abs=0.03)
    assert masked[real].mean() == pytest.approx(masked[~real].mean(), abs=0.06)


def test_one_in_a_hundred_is_truncated():
    short = np.concatenate([(batch.shape < 63).any(axis=1) for batch in alerts(4000, 3)])
    assert short.mean() == pytest.approx(0.01, abs=0.005)


def test_bright_stars_lie_beside_reals_as_often_as_beside_artefacts_and_always_where_the_flux_scale_is_wrong(simulated):
    """Else a crowded field tells the artefact: wrong flux scales are seen on the stars beside."""
    stamps, real, kind = simulated
    template = np.nan_to_num(stamps[:, 1] - np.nanmedian(stamps[:, 1], axis=(1, 2))[:, None, None])
    peaks = (maximum_filter(template, (1, 5, 5)) == template) & (template > 150)  # DN: 18.5 mag
    peaks[:, 23:40, 23:40] = False
    crowded = peaks.sum(axis=(1, 2)) >= 4
    assert crowded[kind == "flux_scale"].mean() > 0.95
    assert crowded[real].mean() > 0.12
    assert crowded[real].mean() == pytest.approx(crowded[~real & (kind != "flux_scale")].mean(), abs=0.06)


def test_nothing_is_infinite(simulated):
    assert not np.isinf(simulated[0]).any()


def test_backgrounds_are_those_of_real_stamps(simulated):
    stamps, _, _ = simulated
    median = np.nanmedian(stamps, axis=(2, 3))
    sigma = 1.4826 * np.nanmedian(np.abs(stamps - median[:, :, None, None]), axis=(2, 3))
    sky = np.nanmedian(median[:, 0])
    science, template, difference = np.nanmedian(sigma, axis=0)
    assert 80 < sky < 150  # DN: 91 in the 1,168 triplets of the shared data, 128 in 3,700
    assert 5 < science < 8  # 6.6 and 7.1
    assert 1 < template < 3  # 1.3 and 1.6
    assert 4.5 < difference < 7  # 6.0 and 5.9


def test_everything_is_detected_at_5_sigma_near_the_middle():
    for batch in alerts(600, 5):
        assert batch.found.snr.min() >= 5
        assert np.abs(batch.found.x).max() <= 4
        compact = ~np.isin(batch.kind, list(FAR_REACHING))
        assert np.hypot(batch.found.x, batch.found.y)[compact].max() <= 2


@dataclass(frozen=True)
class Seen:
    """What a detector says of a place, as far as it matters here."""

    snr: np.ndarray
    x: np.ndarray
    y: np.ndarray
    stamps: np.ndarray


@pytest.mark.parametrize(
    ("alone", "events", "kept"),
    [
        (4.9, [5.1], 5.1),  # nothing is detected without the event
        (0.0, [4.9, 5.0], 5.0),
        (6.0, [6.5, 11.9, 12.0], 12.0),  # else a star's residual is taken for what was put on the star
        (40.0, [41.0, 500.0], 500.0),
    ],
)
def test_an_event_is_kept_where_it_outshines_what_is_detected_without_it(alone, events, kept, monkeypatch):
    """Of every kind alike, or what stands beside an event would tell its class."""
    monkeypatch.setattr("rbstream.simulate.alerts.Detection", Seen)
    coming = {name: iter(events) for name in ("transient", "cosmic_ray")}

    def detect(name, places):
        snr = np.full(len(places), alone if name is None else next(coming[name]))
        return Seen(snr, np.zeros(len(snr)), np.zeros(len(snr)), np.zeros((len(snr), 3, 63, 63)))

    found = until_detected(np.array(["transient", "cosmic_ray"]), lambda missing: missing, detect)
    assert found.snr.tolist() == [kept, kept]


def test_a_longer_night_begins_with_the_shorter_one(simulated):
    stamps, real, kind = triplets(200, 11)
    assert np.array_equal(stamps, simulated[0][:200], equal_nan=True)
    assert np.array_equal(real, simulated[1][:200])
    assert np.array_equal(kind, simulated[2][:200])


def test_both_classes_of_compact_events_have_the_same_hosts():
    compact = set(REAL) | set(BOGUS) - set(FAR_REACHING)
    batches = list(alerts(1500, 4, compact))
    real, host = (np.concatenate([getattr(batch, name) for batch in batches]) for name in ("real", "host"))
    for name in set(HOSTS):
        expected = HOSTS.count(name) / len(HOSTS)
        assert (host[real] == name).mean() == pytest.approx(expected, abs=0.05), name
        assert (host[~real] == name).mean() == pytest.approx(expected, abs=0.05), name


def test_one_in_five_centred_stars_is_the_nucleus_of_a_galaxy_that_lies_around_it():
    rng = np.random.default_rng(2)
    scene = draw_scene(rng, 2000)
    give_hosts(rng, scene, np.repeat("centred_star", 2000))
    star, galaxy = scene.host.flux[:, 0], scene.host.flux[:, 1:].sum(axis=1)
    nuclei = galaxy > 0
    assert nuclei.mean() == pytest.approx(0.2, abs=0.03)
    assert (star > 0).all()
    ratio = (galaxy / star)[nuclei]
    assert ratio.min() == pytest.approx(0.4, abs=0.05)
    assert ratio.max() == pytest.approx(10, rel=0.1)
    assert scene.host.x[nuclei, 1:].mean(axis=1) == pytest.approx(scene.host.x[nuclei, 0], abs=1e-4)


def test_where_it_is_crowded_some_stars_lie_close_to_the_event():
    stars = neighbours(np.random.default_rng(3), 4000)
    crowded = (stars.flux > 0).any(axis=1)
    assert crowded.mean() == pytest.approx(0.25, abs=0.03)
    close = ((stars.flux > 0) & (np.hypot(stars.x, stars.y) < 8)).any(axis=1)
    assert close[crowded].mean() == pytest.approx(0.835, abs=0.03)  # 0.79 with 3 in 10 of the stars close, not 4


def test_variables_and_reference_defects_are_of_both_signs():
    batch = next(alerts(128, 6, ["variable", "reference_defect"]))
    for kind in ("variable", "reference_defect"):
        assert 0.3 < batch.found.positive[batch.kind == kind].mean() < 0.7


def test_kinds_of_one_class_are_that_class_alone():
    _, real, kind = triplets(60, 2, ["halo", "ghost"])
    assert not real.any()
    assert set(kind) == {"halo", "ghost"}


@pytest.mark.parametrize("kinds", [["supernova"], []])
def test_unknown_kinds_are_refused_with_the_known(kinds):
    with pytest.raises(ValueError, match=r"there are transient, .*flux_scale"):
        alerts(1, 1, kinds)
