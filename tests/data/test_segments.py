"""Stretches cut out of episodes: which starts are allowed, what they hold, and the return to go."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.data import Dataset, Segment, check_segment, returns_to_go, sample_segments
from jaxdiff.types import Transition

LENGTHS = (3, 9, 1, 6)
ENDED = (True, False, True, False)  # whether an episode terminated
ROWS = sum(LENGTHS)


def dataset():
    """Row i has observation (i + 1, -i - 1), action i + 1 and reward (i + 1) / 10, so that no field is 0."""
    row = np.arange(1, ROWS + 1, dtype=np.float32)
    discount = np.ones(ROWS, np.float32)
    ends = np.cumsum(LENGTHS) - 1
    discount[ends[list(ENDED)]] = 0.0
    obs = np.stack([row, -row], axis=1)
    transitions = Transition(obs, row[:, None], row / 10, discount, obs)
    return Dataset(transitions, np.repeat(np.arange(len(LENGTHS)), LENGTHS).astype(np.int32))


def drawn(segment, count=4000, seed=0):
    batch = jax.jit(lambda key, data: sample_segments(key, data, count, segment))(jax.random.key(seed), dataset())
    return jax.tree.map(np.asarray, batch)


def starts(batch):
    return batch.action[:, 0, 0].astype(int) - 1


def allowed(segment):
    """Starts by the rule, one loop."""
    first = np.cumsum((0, *LENGTHS[:-1]))
    found = []
    for begin, length in zip(first, LENGTHS, strict=True):
        for place in range(length):
            if segment.padding == "none" and place + segment.horizon <= length:
                found.append(begin + place)
            if segment.padding == "zeros" and place < min(length - 1, segment.longest - segment.horizon):
                found.append(begin + place)
    return found


@pytest.mark.parametrize("segment", [Segment(4, 9), Segment(4, 9, "zeros"), Segment(3, 20, "zeros"), Segment(9, 9)])
def test_starts_are_uniform_over_those_that_the_rule_allows(segment):
    found, counts = np.unique(starts(drawn(segment)), return_counts=True)
    assert found.tolist() == allowed(segment)
    expected = 4000 / len(found)
    assert np.abs(counts - expected).max() < 5.0 * np.sqrt(expected)


def test_a_stretch_is_the_rows_in_order_and_zeros_beyond_the_episode():
    batch = drawn(Segment(4, 9, "zeros"))
    last = np.repeat(np.cumsum(LENGTHS) - 1, LENGTHS)
    rows = starts(batch)[:, None] + np.arange(4)
    lived = rows <= last[starts(batch)][:, None]
    np.testing.assert_array_equal(batch.mask, lived)
    np.testing.assert_array_equal(batch.action[..., 0], np.where(lived, rows + 1, 0))
    np.testing.assert_array_equal(batch.obs[..., 1], np.where(lived, -rows - 1, 0))
    assert not lived.all()


@pytest.mark.parametrize("penalty", [0.0, -100.0])
def test_return_to_go_runs_to_the_episode_s_end_and_the_penalty_counts_where_it_terminated(penalty):
    segment = Segment(2, 9, "zeros", discount_factor=0.9, termination_penalty=penalty)
    reward = np.arange(1, ROWS + 1) / 10
    wanted = np.empty(ROWS)
    for end, length, ended in zip(np.cumsum(LENGTHS), LENGTHS, ENDED, strict=True):
        after = penalty if ended else 0.0
        wanted[end - 1] = reward[end - 1] + after
        for i in range(end - 2, end - 1 - length, -1):
            wanted[i] = reward[i] + 0.9 * wanted[i + 1]
    batch = drawn(segment)
    np.testing.assert_allclose(batch.return_to_go, wanted[starts(batch)], rtol=1e-5)
    np.testing.assert_allclose(returns_to_go(jax.tree.map(jnp.asarray, dataset()), segment), wanted, rtol=1e-5)


def test_lanes_that_share_the_data_draw_by_their_keys():
    keys = jax.random.split(jax.random.key(3), 3)
    segment = Segment(4, 9)
    lanes = jax.jit(jax.vmap(lambda key: sample_segments(key, dataset(), 5, segment)))(keys)
    for i in range(3):
        alone = sample_segments(keys[i], dataset(), 5, segment)
        for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(lanes), strict=True):
            np.testing.assert_allclose(a, b[i], rtol=1e-6)


def test_data_without_a_long_enough_episode_are_refused():
    with pytest.raises(ValueError, match=r"horizon=10 .*longest episode .* 9 steps; choose at most 9, or padding"):
        check_segment(dataset(), Segment(10, 20))
    check_segment(dataset(), Segment(9, 20))
    check_segment(dataset(), Segment(10, 20, "zeros"))


@pytest.mark.parametrize("segment", [Segment(0, 9), Segment(4, 0), Segment(4, 9, "edge")])
def test_sizes_and_paddings_out_of_range_are_refused(segment):
    with pytest.raises(ValueError, match="at least 1, padding one of"):
        sample_segments(jax.random.key(0), dataset(), 3, segment)
