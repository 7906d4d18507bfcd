"""Our numbers are scikit-learn's, and where it has none, those computed by hand."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from rbstream.errors import UsageError
from rbstream.lab.evaluate.calibration import BINS, calibration_at, mix_weights
from rbstream.lab.evaluate.compare import compare, mcnemar
from rbstream.lab.evaluate.metrics import against, auc, confident, confusion, curves, edges_of, histograms, measures
from rbstream.lab.evaluate.resample import DRAWS, Scenes
from rbstream.lab.evaluate.threshold import Rates, Rule, choose_threshold, find_threshold, passes

# Ties, both ends and the edges of bins, as well as anything between.
SCORE = st.one_of(st.sampled_from([0.0, 1.0, 0.5, 0.1, 0.9, 1 / 15, 2 / 15]), st.floats(0, 1, width=32))


@st.composite
def scored(draw: st.DrawFn, least: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Scores, float32, and truth of both classes."""
    rows = draw(st.lists(st.tuples(SCORE, st.booleans()), min_size=least, max_size=60))
    score, real = np.array([row[0] for row in rows], np.float32), np.array([row[1] for row in rows])
    real[0], real[-1] = True, False
    return score, real


def scenes_of(real: np.ndarray) -> Scenes:
    return Scenes(np.arange(len(real)), 0)


@settings(deadline=None)
@given(scored(), st.floats(0.01, 0.99))
def test_a_threshold_by_fpr_is_the_lowest_that_holds_it(alerts: tuple[np.ndarray, np.ndarray], fpr: float) -> None:
    score, real = alerts
    found = find_threshold(Rates(score, real), Rule("fpr", fpr))
    if math.isnan(found):  # every threshold that passes a real breaks the rule
        assert all(passes(score, s)[~real].mean() > fpr for s in score[real])
        return
    assert passes(score, found)[~real].mean() <= fpr
    assert all(passes(score, s)[~real].mean() > fpr for s in score[score < np.float32(found)])


@settings(deadline=None)
@given(scored(), st.floats(0.01, 1))
def test_a_threshold_by_tpr_is_the_highest_that_holds_it(alerts: tuple[np.ndarray, np.ndarray], tpr: float) -> None:
    score, real = alerts
    found = find_threshold(Rates(score, real), Rule("tpr", tpr))
    assert passes(score, found)[real].mean() >= tpr
    assert all(passes(score, s)[real].mean() < tpr for s in score[score > np.float32(found)])


@settings(deadline=None)
@given(scored(), st.data())
def test_rates_are_scikit_learns_whatever_the_weights(
    alerts: tuple[np.ndarray, np.ndarray], data: st.DataObject
) -> None:
    score, real = alerts
    weight = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(real), max_size=len(real))))
    weight[[0, -1]] = 1  # one of each class: without, scikit-learn has no rates
    rates = Rates(score, real)
    for weights in (None, weight):
        fpr, tpr, threshold = sk.roc_curve(real, score, sample_weight=weights, drop_intermediate=False)
        ours = dict(zip(rates.threshold, zip(*rates.at(weights), strict=True), strict=True))
        for at, *theirs in zip(threshold[1:], fpr[1:], tpr[1:], strict=True):
            assert ours[at] == pytest.approx(theirs)


@settings(deadline=None)
@given(scored(), st.sampled_from([0.01, 0.2, 0.5]), st.data())
def test_weights_are_as_good_as_repeated_alerts(
    alerts: tuple[np.ndarray, np.ndarray], value: float, data: st.DataObject
) -> None:
    score, real = alerts
    times = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(real), max_size=len(real))))
    for rule in (Rule("fpr", value), Rule("tpr", 1 - value)):
        weighted = find_threshold(Rates(score, real), rule, times)
        if not times[real].sum() or not times[~real].sum():
            assert math.isnan(weighted)
        else:
            repeated = find_threshold(Rates(score.repeat(times), real.repeat(times)), rule)
            assert weighted == repeated or (math.isnan(weighted) and math.isnan(repeated))


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_equal_scores_give_no_threshold_by_fpr_and_the_score_itself_by_tpr(value: float) -> None:
    score, real = np.full(10, value, np.float32), np.arange(10) < 5
    with pytest.raises(UsageError, match="5 of 5 boguses score as high as the best real"):
        choose_threshold(score, real, scenes_of(real), Rule("fpr", 0.01))
    assert choose_threshold(score, real, scenes_of(real), Rule("tpr", 0.99)).threshold.value == value


@settings(deadline=None, max_examples=40)
@given(scored(), st.floats(0, 1, width=32))
def test_counts_and_measures_are_scikit_learns(alerts: tuple[np.ndarray, np.ndarray], threshold: float) -> None:
    score, real = alerts
    passing = passes(score, threshold)
    assert confusion(real, passing).tolist() == sk.confusion_matrix(real, score >= np.float32(threshold)).tolist()
    for prevalence in (float(real.mean()), 0.1):
        found = measures(real, passing, prevalence, scenes_of(real))
        weight = mix_weights(real, prevalence)
        assert found.accuracy.value == pytest.approx(sk.accuracy_score(real, passing, sample_weight=weight))
        assert found.recall.value == pytest.approx(sk.recall_score(real, passing, sample_weight=weight))
        if passing.any():
            assert found.precision.value == pytest.approx(sk.precision_score(real, passing, sample_weight=weight))
            assert found.f1.value == pytest.approx(sk.f1_score(real, passing, sample_weight=weight))
        else:
            assert math.isnan(found.precision.value)
        for each in (found.accuracy, found.precision, found.recall, found.f1):
            assert not each.low > each.high


@settings(deadline=None)
@given(scored(), st.sampled_from([0.1, 0.5, 0.9]))
def test_areas_are_scikit_learns_and_the_thinned_curves_lie_on_them(
    alerts: tuple[np.ndarray, np.ndarray], prevalence: float
) -> None:
    score, real = alerts
    found, weight = curves(score, real, prevalence), mix_weights(real, prevalence)
    assert found.average_precision == pytest.approx(sk.average_precision_score(real, score))
    assert found.average_precision_there == pytest.approx(sk.average_precision_score(real, score, sample_weight=weight))
    for fpr, tpr, threshold in zip(found.fpr, found.tpr, found.threshold, strict=True):
        assert fpr == pytest.approx((score[~real] >= threshold).mean())
        assert tpr == pytest.approx((score[real] >= threshold).mean())
    assert (found.fpr[0], found.tpr[0], found.fpr[-1], found.tpr[-1]) == (0, 0, 1, 1)
    all_points = set(zip(*sk.precision_recall_curve(real, score)[:2], strict=True))
    assert set(zip(found.precision, found.recall, strict=True)) <= all_points


def test_a_curve_of_many_points_is_thinned_without_losing_its_shape() -> None:
    rng = np.random.default_rng(3)
    real = rng.random(50_000) < 0.5
    score = np.where(real, rng.beta(4, 2, len(real)), rng.beta(2, 4, len(real))).astype(np.float32)
    found = curves(score, real, 0.1)
    assert len(found.fpr) < 3_000
    assert sk.auc(found.fpr, found.tpr) == pytest.approx(sk.roc_auc_score(real, score), abs=1e-3)
    assert sk.auc(found.recall, found.precision) == pytest.approx(found.average_precision, abs=1e-3)


@settings(deadline=None, max_examples=5)
@given(scored())
def test_auc_is_scikit_learns(alerts: tuple[np.ndarray, np.ndarray]) -> None:
    score, real = alerts
    found = auc(score, real, scenes_of(real))
    assert found.value == pytest.approx(sk.roc_auc_score(real, score))


@settings(deadline=None)
@given(scored(), st.sampled_from([None, 1 / 2, 1 / 11, 10 / 11]))
def test_calibration_is_scikit_learns_and_ece_that_by_hand(
    alerts: tuple[np.ndarray, np.ndarray], prevalence: float | None
) -> None:
    score, real = alerts
    found = calibration_at(score, real, float(real.mean()) if prevalence is None else prevalence, "")
    weight = np.ones(len(real)) if prevalence is None else mix_weights(real, prevalence)
    assert found.brier == pytest.approx(np.average((score.astype(float) - real) ** 2, weights=weight))
    assert np.average(real, weights=weight) == pytest.approx(found.prevalence)
    by_hand = 0.0
    for index, (low, high) in enumerate(pairwise(np.linspace(0, 1, BINS + 1))):
        inside = (score > low) & (score <= high) if index else score <= high
        if inside.any():
            gap = np.average(real[inside], weights=weight[inside]) - np.average(score[inside], weights=weight[inside])
            by_hand += weight[inside].sum() / weight.sum() * abs(gap)
    assert found.ece == pytest.approx(by_hand, abs=1e-6)
    if prevalence is None:
        observed, predicted = calibration_curve(real, score.astype(float), n_bins=BINS)
        filled = ~np.isnan(found.observed)
        np.testing.assert_allclose(found.observed[filled], observed)
        np.testing.assert_allclose(found.predicted[filled], predicted)


@given(st.integers(0, 200), st.integers(0, 200))
def test_mcnemars_p_is_the_binomials_tails(first: int, second: int) -> None:
    n, least = first + second, min(first, second)
    by_hand = min(1.0, 2 * binom.cdf(least, n, 0.5)) if n else 1.0
    assert mcnemar(first, second) == pytest.approx(by_hand)
    assert mcnemar(first, second) == mcnemar(second, first)


def test_two_networks_errors_are_counted_by_truth() -> None:
    real = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0], bool)
    first = np.array([1, 1, 0, 0, 1, 0, 0, 1, 0], bool)
    second = np.array([1, 0, 1, 0, 1, 1, 1, 0, 0], bool)
    found = compare(("a", "b"), (first, second), real, scenes_of(real))
    assert [(w.reals, w.boguses) for w in (found.both, found.first_alone, found.second_alone)] == [
        (1, 1),
        (1, 1),
        (1, 2),
    ]
    assert found.difference.value == pytest.approx(-1 / 9)
    assert found.difference.low < found.difference.value < found.difference.high


def test_a_worse_network_is_beyond_chance_worse() -> None:
    place = np.arange(200)
    found = compare(("a", "b"), (place < 60, (place > 50) & (place < 70)), place % 2 == 0, scenes_of(place))
    assert 0 < found.difference.low < found.difference.value < found.difference.high < 0.4
    assert found.mcnemar_p < 1e-4


def test_a_scene_seen_often_makes_no_interval_narrower() -> None:
    rng = np.random.default_rng(1)
    hit = rng.random(100) < 0.8
    group = np.zeros(100, int)
    (once,) = Scenes(np.arange(100), 0).shares(group, ["all"], hit)
    (copied,) = Scenes(np.arange(100).repeat(9), 0).shares(group.repeat(9), ["all"], hit.repeat(9))
    (apart,) = Scenes(np.arange(900), 0).shares(group.repeat(9), ["all"], hit.repeat(9))
    assert (copied.low, copied.high) == (once.low, once.high)
    assert (copied.n, copied.scenes) == (900, 100)
    assert apart.high - apart.low == pytest.approx((once.high - once.low) / 3, rel=0.25)


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    held = 0
    for trial in range(200):
        # 60 scenes of four alerts each, which succeed together: 240 alerts that are worth 60.
        hit = (rng.random(60) < 0.7).repeat(4)
        (found,) = Scenes(np.arange(60).repeat(4), trial).shares(np.zeros(240, int), ["all"], hit)
        held += found.low <= 0.7 <= found.high
    assert 0.9 <= held / 200 <= 0.99


def test_none_of_a_few_is_not_certainly_none() -> None:
    (none,) = Scenes(np.arange(20), 0).shares(np.zeros(20, int), ["all"], np.zeros(20, bool))
    assert (none.value, none.low) == (0, 0)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 20))  # Clopper and Pearson's
    (of_one,) = Scenes(np.zeros(20), 0).shares(np.zeros(20, int), ["all"], np.ones(20, bool))
    assert of_one.low == pytest.approx(0.025)
    (nobody,) = Scenes(np.arange(20), 0).shares(np.full(20, -1), ["all"], np.ones(20, bool))
    assert nobody.n == 0
    assert math.isnan(nobody.value)


def test_perfect_verdicts_are_not_certain_at_a_low_prevalence() -> None:
    real = np.arange(40) < 20
    found = measures(real, real, 0.01, scenes_of(real))
    assert found.precision.value == 1
    assert found.precision.low < 0.1  # up to 17% of boguses may pass, of 99 for each real


def test_the_draws_count_alerts_as_often_as_their_scene() -> None:
    scenes = Scenes(np.array(["a", "a", "b", "c", "c", "c"]), 4)
    counts = scenes.counts(np.array([0, 0, 1, 2, 2, -1]), 3)
    assert counts.shape == (DRAWS, 3)
    assert (counts[:, 0] % 2 == 0).all()
    assert (counts[:, 0] / 2 + counts[:, 1] + counts[:, 2] / 2 == 3).all()
    assert scenes.counts(np.array([0, 0, 1, 2, 2, -1]), 3).tolist() == counts.tolist()


def test_recall_is_told_in_bins_that_hold_every_known_value() -> None:
    rng = np.random.default_rng(5)
    values = np.r_[rng.uniform(15, 20, 500), 12.3, 21.7, np.nan].astype(np.float32)
    passing = values < 18
    edges = edges_of(values)
    assert edges is not None
    found = against(values, edges, passing, scenes_of(values))
    assert sum(share.n for share in found) == 502
    for share, (low, high) in zip(found, pairwise(edges), strict=True):
        inside = (values >= low) & (values < high)
        assert (share.n, share.hits) == (inside.sum(), passing[inside].sum())
    assert edges_of(np.full(5, np.nan, np.float32)) is None
    assert edges_of(np.full(5, 18, np.float32)) is None


@settings(deadline=None)
@given(scored())
def test_histograms_hold_everyone_once(alerts: tuple[np.ndarray, np.ndarray]) -> None:
    score, real = alerts
    passing = passes(score, 0.5)
    found = histograms(score, real, passing)
    assert (found.real.sum(), found.bogus.sum()) == (real.sum(), (~real).sum())
    assert (found.missed.sum(), found.passed.sum()) == ((real & ~passing).sum(), (~real & passing).sum())


def test_the_confident_are_those_at_the_ends_with_their_own_confusion() -> None:
    score = np.array([0, 0.01, 0.011, 0.5, 0.98, 0.99, 1, 1], np.float32)
    real = np.array([0, 1, 0, 1, 1, 1, 1, 0], bool)
    found = confident(score, real, 0.01, 0.99, scenes_of(real))
    assert found.confusion.tolist() == [[1, 1], [1, 2]]
    assert (found.n, found.share) == (5, 5 / 8)
    assert [(share.hits, share.n) for share in found.purity] == [(1, 2), (2, 3)]
