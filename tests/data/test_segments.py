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
            if segment.padding == "repeat" and place < length - 1:
                found.append(begin + place)
            if segment.padding == "zeros" and place < min(length - 1, segment.longest - segment.horizon):
                found.append(begin + place)
    return found


@pytest.mark.parametrize(
    "segment", [Segment(4, 9), Segment(4, 9, "zeros"), Segment(3, 20, "zeros"), Segment(9, 9), Segment(5, 9, "repeat")]
)
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


def test_repeat_fills_with_the_last_step_and_a_history_with_the_first():
    segment = Segment(4, 9, "repeat", history=3, discount_factor=0.5)
    batch = drawn(segment, 300)
    ends = np.cumsum(LENGTHS) - 1
    reward = np.arange(1, ROWS + 1) / 10
    seen = set()
    for b in range(300):
        now = next(r for r in range(ROWS) if r + 1 == batch.action[b, 3, 0])
        last = next(end for end in ends if end >= now)
        first = last - LENGTHS[list(ends).index(last)] + 1
        for k, row in enumerate(range(now - 3, now + 4)):
            held = first if row < first else last if row > last else row
            assert batch.action[b, k, 0] == held + 1
            assert batch.obs[b, k].tolist() == [held + 1, -held - 1]
            assert batch.mask[b, k] == (held == row)
            seen.add((row < first, row > last))
        wanted = sum(0.5**i * reward[row] for i, row in enumerate(range(now, last + 1)))
        np.testing.assert_allclose(batch.return_to_go[b], wanted, rtol=1e-5)
    assert seen == {(False, False), (True, False), (False, True)}


def test_every_agent_s_part_of_a_stretch_is_what_it_would_draw_alone():
    """Agent 1 has twice agent 0's numbers, and terminates where agent 0 goes on."""
    alone = dataset()
    t = alone.transitions
    scale = np.array([1.0, 2.0], np.float32)
    spread = [x[:, None] * scale[:, None] for x in (t.obs, t.action)]
    reward, discount = t.reward[:, None] * scale, np.stack([np.ones_like(t.discount), t.discount], axis=1)
    agents = Dataset(Transition(*spread, reward, discount, spread[0]), alone.episode)
    segment = Segment(4, 9, "zeros", discount_factor=0.9, termination_penalty=-5.0, history=2)
    sample = jax.jit(sample_segments, static_argnums=(2, 3))
    team = sample(jax.random.key(4), agents, 50, segment)
    assert (team.obs.shape, team.return_to_go.shape, team.mask.shape) == ((50, 6, 2, 2), (50, 2), (50, 6))
    together = returns_to_go(jax.tree.map(jnp.asarray, agents), segment)
    for i in range(2):
        share = Dataset(Transition(spread[0][:, i], spread[1][:, i], reward[:, i], discount[:, i], None), alone.episode)
        own = sample(jax.random.key(4), share, 50, segment)
        np.testing.assert_array_equal(team.obs[:, :, i], own.obs)
        np.testing.assert_array_equal(team.action[:, :, i], own.action)
        np.testing.assert_array_equal(team.mask, own.mask)
        np.testing.assert_allclose(team.return_to_go[:, i], own.return_to_go, rtol=1e-6)
        np.testing.assert_allclose(together[:, i], returns_to_go(share, segment), rtol=1e-6)


def test_lanes_that_share_the_data_draw_by_their_keys():
    keys = jax.random.split(jax.random.key(3), 3)
    segment = Segment(4, 9)

    def draw(key):
        return sample_segments(key, dataset(), 5, segment)

    lanes, alone = jax.jit(jax.vmap(draw))(keys), jax.jit(draw)
    for i in range(3):
        for a, b in zip(jax.tree.leaves(alone(keys[i])), jax.tree.leaves(lanes), strict=True):
            np.testing.assert_allclose(a, b[i], rtol=1e-6)


def test_data_without_a_long_enough_episode_are_refused():
    with pytest.raises(ValueError, match=r"horizon=10 .*longest episode .* 9 steps; choose at most 9, or padding"):
        check_segment(dataset(), Segment(10, 20))
    check_segment(dataset(), Segment(9, 20))
    check_segment(dataset(), Segment(10, 20, "zeros"))


@pytest.mark.parametrize("segment", [Segment(0, 9), Segment(4, 0), Segment(4, 9, "edge"), Segment(4, 9, history=-1)])
def test_sizes_and_paddings_out_of_range_are_refused(segment):
    with pytest.raises(ValueError, match="at least 1, padding one of"):
        sample_segments(jax.random.key(0), dataset(), 3, segment)
