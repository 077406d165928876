"""Reweighted data are drawn as data with copies of their good episodes are."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.data import Dataset, Segment, Window, reweight, sample_batch, sample_segments, sample_windows
from jaxdiff.types import Transition

LENGTHS = (4, 2, 5, 4)
RETURNS = (10.0, -3.0, 30.0, 20.0)  # means over the agents
N, A = sum(LENGTHS), 2


def dataset(*, team=False):
    """Row i holds i in every agent's fields; agent 0's rewards differ from agent 1's by 8."""
    row = np.arange(N, dtype=np.float32)
    per_step = np.repeat(np.array(RETURNS) / LENGTHS, LENGTHS).astype(np.float32)
    reward = per_step if team else np.stack([per_step - 4.0, per_step + 4.0], axis=1)
    both = np.repeat(row[:, None, None], A, axis=1)
    rows = Transition(both, both + np.array([[[0.25], [0.5]]], np.float32), reward, np.ones_like(reward), both)
    return Dataset(rows, np.repeat(np.arange(len(LENGTHS)), LENGTHS).astype(np.int32))


def copies(thresholds):
    """How often each row stands in the data with copies, one loop."""
    counts = []
    for length, value in zip(LENGTHS, RETURNS, strict=True):
        counts += [1 + sum(value >= r for r in thresholds)] * length
    return np.array(counts)


@pytest.mark.parametrize("team", [False, True])
@pytest.mark.parametrize("thresholds", [(15.0,), (10, 20.5, 25.0), (20.0, 20.0), (-5.0,)])
def test_rows_stand_in_draws_as_often_as_in_data_with_copies(thresholds, team):
    found = reweight(dataset(team=team), thresholds)
    np.testing.assert_array_equal(np.bincount(found.draws, minlength=N), copies(thresholds))
    assert found.draws.dtype == np.int32


def test_quantiles_are_of_the_episodes_and_not_of_the_rows():
    """The upper half of four episodes: those of 30 and 20, whatever their lengths."""
    np.testing.assert_array_equal(reweight(dataset(), ("q0.5",)).draws, reweight(dataset(), (20.0,)).draws)
    assert len(reweight(dataset(), ("q0",)).draws) == 2 * N


def test_draws_follow_the_copies_and_agents_stay_together():
    """Chi-square over 15 rows: 14 degrees of freedom, 36.1 is the 99.9th percentile."""
    thresholds = (15.0, 25.0)
    data = reweight(dataset(), thresholds)
    draw = jax.jit(jax.vmap(sample_batch, (0, None, None)), static_argnums=2)
    batch = draw(jax.random.split(jax.random.key(0), 4), data, 5000)
    np.testing.assert_array_equal(batch.obs[..., 0, 0], batch.obs[..., 1, 0])
    np.testing.assert_array_equal(batch.action[..., 0, 0] + 0.25, batch.action[..., 1, 0])
    counts = np.bincount(np.asarray(batch.obs[..., 0, 0], int).ravel(), minlength=N)
    expected = 20_000 * copies(thresholds) / copies(thresholds).sum()
    assert ((counts - expected) ** 2 / expected).sum() < 36.1


@pytest.mark.parametrize("draw", [sample_windows, sample_segments])
def test_windows_and_stretches_begin_where_the_copies_do(draw):
    data = reweight(dataset(), (25.0,) * 9)
    shape = Window(1, 2) if draw is sample_windows else Segment(2, 5)
    batch = jax.jit(draw, static_argnums=(2, 3))(jax.random.key(0), data, 6000, shape)
    starts = np.floor(np.asarray(batch.action[:, 0, 0, 0])).astype(int)
    weight = copies((25.0,) * 9).astype(float)
    if draw is sample_segments:  # none begins at the last step of an episode
        weight[np.cumsum(LENGTHS) - 1] = 0.0
    share = weight / weight.sum()
    found = np.bincount(starts, minlength=N) / 6000
    assert np.abs(found - share).max() < 5.0 * np.sqrt(share.max() / 6000)
    assert found[weight == 0.0].sum() == 0.0


def test_without_thresholds_nothing_changes_bit_for_bit():
    data = dataset()
    assert reweight(data, ()) is data
    key = jax.random.key(7)
    rows = np.asarray(jax.random.randint(key, (64,), 0, N))
    np.testing.assert_array_equal(sample_batch(key, data, 64).obs[:, 0, 0], rows)
    np.testing.assert_array_equal(sample_windows(key, data, 64, Window()).obs[:, 0, 0, 0], rows)
    each_once = dataclasses.replace(data, draws=jnp.arange(N, dtype=jnp.int32))
    np.testing.assert_array_equal(sample_batch(key, each_once, 64).obs[:, 0, 0], rows)


@pytest.mark.parametrize(
    ("threshold", "message"),
    [
        (31.0, r"no episode's return reaches 31.0; the largest in the data is 30\. Lower"),
        (np.nan, "nan must be a finite number or a quantile"),
        (True, "True must be a finite number"),
        ("q1.0", r"'q1.0' must be a finite number or a quantile in \[0, 1\)"),
        ("qhalf", "'qhalf' must be"),
        ("525", "'525' must be"),
    ],
)
def test_a_threshold_that_means_nothing_is_refused(threshold, message):
    with pytest.raises(ValueError, match=message):
        reweight(dataset(), (threshold,))
