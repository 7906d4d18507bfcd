"""Coadded stamps: the same for a seed, as bright as they say, and where they say."""

import numpy as np

from rbstream.simulate.moving import BATCH, NOISE, SIZE, SNR, Stacks, point_or_trail, stacks


def all_of(n: int, seed: int) -> Stacks:
    batches = list(stacks(n, seed))
    return Stacks(*(np.concatenate([vars(each)[name] for each in batches]) for name in vars(batches[0])))


def test_the_same_seed_gives_the_same_bytes_and_a_longer_run_begins_with_a_shorter() -> None:
    long, short, other = all_of(BATCH + 9, 3), all_of(40, 3), all_of(40, 4)
    assert len(long.stamps) == BATCH + 9
    for name, values in vars(short).items():
        assert vars(long)[name][:40].tobytes() == values.tobytes()
    assert other.stamps.tobytes() != short.stamps.tobytes()


def test_half_are_sources_and_noise_has_no_truth_to_tell() -> None:
    found = all_of(2 * BATCH, 1)
    assert found.stamps.shape == (2 * BATCH, 1, SIZE, SIZE)
    assert found.stamps.dtype == np.float32
    assert found.real.sum() == BATCH
    assert np.array_equal(np.isfinite(found.snr), found.real)
    assert np.array_equal(np.isfinite(found.fwhm), found.real)
    assert SNR[0] <= np.nanmin(found.snr) < 1.1 * SNR[0]
    assert 0.9 * SNR[1] < np.nanmax(found.snr) <= SNR[1]
    # Log-uniform: as many between 3 and 17.3 as between there and 100.
    assert abs((found.snr[found.real] < np.sqrt(SNR[0] * SNR[1])).mean() - 0.5) < 0.1


def test_light_has_unit_flux_at_its_place_and_x_is_the_last_axis() -> None:
    x, y, fwhm = np.array([2.3, -1.0]), np.array([-0.6, 3.0]), np.array([2.5, 2.5])
    light = point_or_trail(x, y, fwhm, np.array([0.0, 3.0]), np.array([0.0, np.pi / 2]))
    at = np.arange(SIZE) - SIZE // 2
    assert np.all((light.sum(axis=(1, 2)) > 0.97) & (light.sum(axis=(1, 2)) < 1.0))  # the wings reach beyond the stamp
    for i in range(2):
        core = light[i] * (light[i] > 0.05 * light[i].max())
        assert abs((core.sum(axis=0) * at).sum() / core.sum() - x[i]) < 0.1
        assert abs((core.sum(axis=1) * at).sum() / core.sum() - y[i]) < 0.1
    wide = [np.sqrt((light[1].sum(axis=axis) * (at - c) ** 2)[5:-3].sum()) for axis, c in ((0, x[1]), (1, y[1]))]
    assert wide[1] > 1.15 * wide[0]  # trailed along y


def test_a_point_is_as_wide_as_it_says() -> None:
    light = point_or_trail(np.zeros(1), np.zeros(1), np.array([5.0]), np.zeros(1), np.zeros(1))[0]
    middle = light[SIZE // 2]
    across = np.interp(middle.max() / 2, middle[SIZE // 2 :][::-1], np.arange(SIZE - SIZE // 2)[::-1])
    assert abs(2 * across - 5.0) < 0.35  # a pixel's own width adds a little


def test_signal_to_noise_is_what_a_matched_filter_finds() -> None:
    found = all_of(8 * BATCH, 2)
    border = np.ones((SIZE, SIZE), bool)
    border[4:-4, 4:-4] = False
    some = found.real & (found.snr > 20) & (found.snr < 60)
    centred = point_or_trail(
        *(np.full(some.sum(), v) for v in (0.0, 0.0)), found.fwhm[some], *np.zeros((2, some.sum()))
    )
    sigma = found.stamps[some, 0][:, border].std(axis=1)
    measured = (found.stamps[some, 0] * centred).sum(axis=(1, 2)) / np.sqrt((centred**2).sum(axis=(1, 2))) / sigma
    ratio = measured / found.snr[some]
    # A filter that knows neither the place within a pixel nor the trail loses some of it.
    assert 0.8 < np.median(ratio) < 1.02


def test_noise_has_no_level_and_every_depth_and_half_of_it_is_correlated() -> None:
    found = all_of(8 * BATCH, 5)
    noise = found.stamps[~found.real, 0].astype(float)
    sigma = noise.std(axis=(1, 2))
    assert abs((noise.mean(axis=(1, 2)) / sigma).mean()) < 0.02
    assert 0.8 * NOISE[0] < sigma.min() < 1.3 * NOISE[0]
    assert 0.7 * NOISE[1] < sigma.max() < 1.2 * NOISE[1]
    neighbours = (noise[:, :, 1:] * noise[:, :, :-1]).mean(axis=(1, 2)) / sigma**2
    assert 0.4 < (neighbours > 0.1).mean() < 0.6
    assert 0.4 < np.percentile(neighbours, 97) < 0.75
    border = noise[:, 0].std() / noise[:, SIZE // 2].std()
    assert 0.9 < border < 1.1
