"""What trying n settings brings, against every subset written out."""

import itertools

import numpy as np
import pytest

from jaxdiff.io.report import statistics
from jaxdiff.io.report.budget import expected_best, tuning_budget


def by_enumeration(chosen_by, values, n):
    """Mean over all subsets of size n of the value of the one chosen; the mean of those that tie."""
    found = []
    for subset in itertools.combinations(range(len(values)), n):
        top = max(chosen_by[i] for i in subset)
        found.append(np.mean([values[i] for i in subset if chosen_by[i] == top]))
    return np.mean(found)


@pytest.mark.parametrize("kind", ["itself", "another", "ties"])
def test_expected_best_is_the_mean_over_all_subsets(kind):
    generator = np.random.default_rng(0)
    chosen_by = generator.integers(0, 4, size=9).astype(float) if kind == "ties" else generator.normal(size=9)
    values = chosen_by if kind == "itself" else generator.normal(size=9)
    draws = np.arange(1, 10)
    expected = [by_enumeration(chosen_by, values, n) for n in draws]
    np.testing.assert_allclose(expected_best(chosen_by, values, draws), expected, rtol=1e-10)


def test_expected_best_of_one_is_the_mean_and_of_all_the_maximum_for_many_settings():
    scores = np.random.default_rng(1).normal(50, 20, size=1500)
    np.testing.assert_allclose(expected_best(scores, scores, [1, 1500]), [scores.mean(), scores.max()], rtol=1e-9)
    # The best of 2 among 1 .. N is expected at 2 (N + 1) / 3.
    ranks = np.arange(1.0, 1001.0)
    np.testing.assert_allclose(expected_best(ranks, ranks, [2]), [2 * 1001 / 3], rtol=1e-9)


def test_expected_best_treats_rows_alone():
    keys, values = np.random.default_rng(2).integers(0, 3, size=(2, 4, 6)).astype(float)
    together = expected_best(keys, values, [1, 2, 5])
    alone = [expected_best(k, v, [1, 2, 5]) for k, v in zip(keys, values, strict=True)]
    np.testing.assert_allclose(together, alone, rtol=1e-12)


@pytest.mark.parametrize("draws", [[0], [4], []])
def test_draws_outside_the_study_are_refused(draws):
    with pytest.raises(ValueError, match="must lie in 1 to 3"):
        expected_best([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], draws)
    with pytest.raises(ValueError, match="got none"):
        tuning_budget([], [1])


def test_budget_chooses_by_the_mean_and_holds_out_one_seed_at_a_time():
    scores = [np.array([1.0, 5.0]), np.array([4.0, 0.0]), np.array([2.0, 2.5])]
    found = tuning_budget(scores, [1, 2, 3])
    means = [score.mean() for score in scores]
    np.testing.assert_allclose(found.expected, [by_enumeration(means, means, n) for n in (1, 2, 3)])
    folds = [
        [by_enumeration([s[1 - out] for s in scores], [s[out] for s in scores], n) for n in (1, 2, 3)] for out in (0, 1)
    ]
    np.testing.assert_allclose(found.held_out, np.mean(folds, axis=0))


def test_budget_interval_of_one_setting_is_the_bootstrap_of_its_mean():
    scores = np.random.default_rng(3).normal(50, 10, size=200)
    found = tuning_budget([scores], [1], num_resamples=2000)
    half = 1.96 * scores.std() / np.sqrt(200)
    np.testing.assert_allclose([found.low[0], found.high[0]], [scores.mean() - half, scores.mean() + half], atol=0.15)
    assert found.low[0] < found.expected[0] < found.high[0]


def test_budget_of_equal_settings_is_flat_where_seeds_had_no_say():
    """200 settings that differ by noise alone: the best of them looks better, and is not."""
    scores = list(np.random.default_rng(4).normal(50, 10, size=(200, 5)))
    found = tuning_budget(scores, [1, 50, 200], num_resamples=50)
    assert found.expected[-1] > 58  # the largest of 200 means with a deviation of 4.5
    np.testing.assert_allclose(found.held_out[1], 50, atol=3)


def test_budget_takes_settings_with_unlike_numbers_of_seeds():
    found = tuning_budget([[1.0], [2.0, 4.0], [0.0, 0.0, 9.0]], [1, 3])
    np.testing.assert_allclose(found.expected, [7 / 3, 3.0])
    assert found.held_out is None
    assert found.low[0] < 7 / 3 < found.high[0]
    alone = tuning_budget([[1.0], [2.0]], [2])
    assert np.isnan(alone.low).all() and alone.expected == [2.0]


def test_performance_profile_counts_runs_above_a_threshold():
    above, low, high = statistics.performance_profile([1.0, 2.0, 3.0, 4.0], [0.0, 2.0, 3.5, 4.0])
    np.testing.assert_allclose(above, [1.0, 0.5, 0.25, 0.0])
    assert low[0] == high[0] == 1.0 and low[3] == high[3] == 0.0
    assert low[1] == 0.0 and high[1] == 1.0  # four draws from two halves: all or none with chance 1/16 each
    assert np.isnan(statistics.performance_profile([1.0], [0.5])[1]).all()


def test_performance_profile_band_is_the_binomial_one():
    scores = np.arange(400.0)
    above, low, high = statistics.performance_profile(scores, [299.5])
    half = 1.96 * np.sqrt(0.25 * 0.75 / 400)
    np.testing.assert_allclose([above[0], low[0], high[0]], [0.25, 0.25 - half, 0.25 + half], atol=0.006)


def test_share_explained_is_corrected_for_the_number_of_groups():
    assert statistics.share_explained(["a", "a", "b", "b"], [1.0, 1.0, 3.0, 3.0]) == 1.0
    assert statistics.share_explained(["a", "b", "c"], [1.0, 2.0, 3.0]) == 0.0
    assert statistics.share_explained(["a", "a", "b"], [2.0, 2.0, 2.0]) == 0.0
    # In terms of the F statistic of two groups of three: epsilon^2 = (F - 1) / (F + N - k).
    groups, values = [0, 0, 0, 1, 1, 1], np.array([1.0, 2.0, 3.0, 3.0, 4.0, 8.0])
    f = (values[3:].mean() - values[:3].mean()) ** 2 * 1.5 / ((2.0 + 14.0) / 4)
    assert statistics.share_explained(groups, values) == pytest.approx((f - 1) / (f + 4))  # of N = 6 in k = 2 groups


def test_share_explained_by_chance_is_about_nothing():
    generator = np.random.default_rng(5)
    found = [
        statistics.share_explained(generator.integers(0, 10, 100).tolist(), generator.normal(size=100))
        for _ in range(50)
    ]
    assert np.mean(found) < 0.04  # uncorrected it would be 9/99
