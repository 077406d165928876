"""Windows against loops over the episodes they are cut from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.data import Dataset, Window, sample_windows
from jaxdiff.types import Transition

LENGTHS = (5, 1, 8)  # of three episodes; the second ends where it starts
N = sum(LENGTHS)
STEP = np.arange(N, dtype=np.float32)
EPISODE = np.repeat(np.arange(3), LENGTHS).astype(np.int32)
ENDS = np.cumsum(LENGTHS) - 1
DISCOUNT = np.ones(N, np.float32)
DISCOUNT[ENDS[0]] = 0.0  # the first terminates, the others run out of time
DATASET = Dataset(Transition(STEP[:, None], 100.0 + STEP[:, None], 1.0 + STEP, DISCOUNT, STEP[:, None] + 0.5), EPISODE)


@pytest.mark.parametrize("window", [Window(1, 1), Window(3, 1), Window(1, 4), Window(3, 2)])
def test_windows_are_what_a_loop_over_episodes_cuts(window):
    batch = jax.jit(sample_windows, static_argnums=(2, 3))(jax.random.key(0), DATASET, 200, window)
    starts = np.asarray(batch.action[:, 0, 0] - 100.0).astype(int)
    assert set(starts) == set(range(N))
    for row, now in enumerate(starts):
        first, last = (np.flatnonzero(EPISODE[now] == EPISODE)[end] for end in (0, -1))
        lived = [k for k in range(now, now + window.chunk) if k <= last]
        history = [max(first, now - window.chunk * j) for j in reversed(range(window.history))]
        np.testing.assert_array_equal(batch.obs[row, :, 0], history)
        np.testing.assert_array_equal(batch.next_obs[row, :, 0], [*history[1:], lived[-1] + 0.5])
        padded = lived + [last] * (window.chunk - len(lived))
        np.testing.assert_array_equal(batch.action[row, :, 0], [100.0 + k for k in padded])
        np.testing.assert_array_equal(batch.reward[row], [1.0 + k for k in lived] + [0.0] * (window.chunk - len(lived)))
        assert int(batch.length[row]) == len(lived)
        assert float(batch.discount[row]) == DISCOUNT[lived[-1]]


def test_agents_have_rewards_of_their_own_in_a_window():
    t = DATASET.transitions
    scale = np.array([1.0, 3.0], np.float32)
    obs, action, next_obs = (x[:, None] * scale[:, None] for x in (t.obs, t.action, t.next_obs))
    agents = Dataset(Transition(obs, action, t.reward[:, None] * scale, t.discount[:, None] * scale, next_obs), EPISODE)
    draw = jax.jit(sample_windows, static_argnums=(2, 3))
    team, alone = (draw(jax.random.key(0), data, 40, Window(2, 3)) for data in (agents, DATASET))
    for i in range(2):
        np.testing.assert_array_equal(team.obs[:, :, i], alone.obs * scale[i])
        np.testing.assert_array_equal(team.action[:, :, i], alone.action * scale[i])
        np.testing.assert_array_equal(team.reward[..., i], alone.reward * scale[i])
        np.testing.assert_array_equal(team.discount[:, i], alone.discount * scale[i])
        np.testing.assert_array_equal(team.next_obs[:, :, i], alone.next_obs * scale[i])
    np.testing.assert_array_equal(team.length, alone.length)


@pytest.mark.parametrize(("size", "window"), [(0, Window()), (4, Window(0, 1)), (4, Window(1, 0))])
def test_sizes_below_one_are_refused(size, window):
    with pytest.raises(ValueError, match="each must be at least 1"):
        sample_windows(jax.random.key(0), DATASET, size, window)


def test_an_empty_dataset_is_refused():
    empty = jax.tree.map(lambda x: jnp.asarray(x)[:0], DATASET)
    with pytest.raises(ValueError, match="the dataset holds 0 transitions"):
        sample_windows(jax.random.key(0), empty, 4, Window(2, 2))
