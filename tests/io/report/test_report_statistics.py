import itertools

import numpy as np
import pytest
from scipy import stats

from jaxdiff.io.report import statistics


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 10, 40])
def test_iqm_is_scipys_quarter_trimmed_mean(n):
    scores = np.random.default_rng(n).normal(size=(3, n)) ** 3
    np.testing.assert_allclose(statistics.iqm(scores), stats.trim_mean(scores, 0.25, axis=1), rtol=1e-12)


def test_iqm_of_known_numbers_ignores_the_outer_quarters():
    assert statistics.iqm([1000.0, 3.0, -1000.0, 5.0]) == 4.0
    assert statistics.iqm([1.0, 2.0, 9.0]) == 4.0  # three seeds: the mean


def test_iqm_reduces_the_axis_it_is_given():
    scores = np.arange(24.0).reshape(8, 3)
    np.testing.assert_allclose(statistics.iqm(scores, axis=0), scores[2:6].mean(axis=0))


def test_iqm_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one number"):
        statistics.iqm([])


def test_bootstrap_of_the_mean_agrees_with_the_normal_interval():
    scores = np.random.default_rng(1).normal(50, 10, size=200)
    low, high = statistics.stratified_bootstrap([scores], statistics.mean)
    half = 1.96 * scores.std() / np.sqrt(200)
    np.testing.assert_allclose([low, high], [scores.mean() - half, scores.mean() + half], atol=0.15)


def test_bootstrap_of_two_seeds_is_the_exact_distribution():
    # The mean of two draws from {0, 1} is 0, 0.5, 1 with chances 1/4, 1/2, 1/4: the 60 % interval is [0, 1] and the
    # 40 % one is [0.5, 0.5].
    assert statistics.stratified_bootstrap([[0.0, 1.0]], statistics.mean, confidence=0.6) == (0.0, 1.0)
    assert statistics.stratified_bootstrap([[0.0, 1.0]], statistics.mean, confidence=0.4) == (0.5, 0.5)


def test_strata_are_resampled_inside_themselves():
    # Tasks without spread between their seeds leave nothing to resample, however far apart the tasks are.
    assert statistics.stratified_bootstrap([[0.0, 0.0], [100.0, 100.0]], statistics.mean) == (50.0, 50.0)
    low, high = statistics.stratified_bootstrap([[0.0, 0.0, 100.0, 100.0]], statistics.mean)
    assert low < 50 < high


def test_bootstrap_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(2)
    hits = 0
    for trial in range(200):
        scores = generator.normal(size=30)
        low, high = statistics.stratified_bootstrap([scores], statistics.mean, num_resamples=400, seed=trial)
        hits += low <= 0 <= high
    assert 0.88 < hits / 200 < 0.99  # 0.93 expected of a percentile interval at n=30; four standard errors either way


def test_bootstrap_repeats_itself_and_needs_two_seeds():
    scores = [1.0, 4.0, 9.0, 16.0]
    assert statistics.stratified_bootstrap([scores]) == statistics.stratified_bootstrap([scores])
    assert statistics.stratified_bootstrap([[3.0]]) is None
    with pytest.raises(ValueError, match="need a stratum"):
        statistics.stratified_bootstrap([])


def test_probability_of_improvement_counts_pairs():
    generator = np.random.default_rng(3)
    x, y = generator.integers(0, 6, size=7), generator.integers(0, 6, size=5)  # with ties
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in itertools.product(x, y)]
    assert statistics.probability_of_improvement(x, y) == pytest.approx(np.mean(pairs), abs=1e-12)
    forward, backward = statistics.probability_of_improvement(x, y), statistics.probability_of_improvement(y, x)
    assert forward + backward == pytest.approx(1.0)


def test_probability_of_improvement_is_the_mann_whitney_statistic_per_pair():
    generator = np.random.default_rng(4)
    x, y = generator.normal(0.5, 1, size=9), generator.normal(size=8)
    expected = stats.mannwhitneyu(x, y).statistic / 72
    assert statistics.probability_of_improvement(x, y) == pytest.approx(expected)


def test_improvement_interval_is_certain_only_when_the_seeds_are():
    assert statistics.improvement_interval([5.0, 6.0], [1.0, 2.0]) == (1.0, 1.0)
    low, high = statistics.improvement_interval([1.0, 3.0, 5.0], [2.0, 4.0])
    assert 0 <= low < 0.5 < high <= 1
    assert statistics.improvement_interval([1.0], [2.0, 3.0]) is None


def test_improvement_interval_resamples_both_groups():
    # Two against one value: each resample holds k copies of the winner among two, so P is 0, 0.5 or 1.
    low, high = statistics.improvement_interval([0.0, 2.0], [1.0, 1.0], confidence=0.6)
    assert (low, high) == (0.0, 1.0)


def test_mean_band_uses_the_seeds_that_are_there():
    curves = np.array([[1.0, 2.0, np.nan], [3.0, np.nan, np.nan], [5.0, 6.0, np.nan]])
    centre, low, high = statistics.mean_band(curves)
    np.testing.assert_allclose(centre, [3.0, 4.0, np.nan])
    assert 1 <= low[0] < 3 < high[0] <= 5
    assert np.isnan([low[2], high[2]]).all()
    alone = statistics.mean_band([[7.0, 8.0]])
    np.testing.assert_allclose(alone[0], [7.0, 8.0])
    assert np.isnan(alone[1]).all()


def test_mean_band_agrees_with_the_normal_interval():
    curves = np.random.default_rng(5).normal(size=(300, 2))
    centre, low, high = statistics.mean_band(curves)
    half = 1.96 * curves.std(axis=0) / np.sqrt(300)
    np.testing.assert_allclose(np.stack([low, high]), np.stack([centre - half, centre + half]), atol=0.02)
