"""The vectorised reader against the rule of D4RL's qlearning_dataset, told once more as a slow loop."""

import numpy as np
import pytest
from synthetic_d4rl import random_arrays

from jaxdiff.data import load


def slow_transitions(arrays, max_episode_steps=None):
    """Rows (i, episode) that become transitions, one at a time."""
    kept, episode, step = [], 0, 0
    num_rows = len(arrays["rewards"])
    for i in range(num_rows - 1):
        last = bool(arrays["timeouts"][i]) if max_episode_steps is None else step == max_episode_steps - 1
        if not last:
            kept.append((i, episode))
        if last or arrays["terminals"][i]:
            episode, step = episode + 1, 0
        else:
            step += 1
    return kept


def assert_equals_slow(dataset, arrays, kept):
    index = np.array([i for i, _ in kept])
    episodes = np.array([e for _, e in kept])
    moved = dataset.transitions
    np.testing.assert_array_equal(moved.obs, arrays["observations"][index])
    np.testing.assert_array_equal(moved.next_obs, arrays["observations"][index + 1])
    np.testing.assert_array_equal(moved.action, arrays["actions"][index])
    np.testing.assert_array_equal(moved.reward, arrays["rewards"][index])
    np.testing.assert_array_equal(moved.discount, 1.0 - arrays["terminals"][index])
    same = dataset.episode[:, None] == dataset.episode[None, :]
    np.testing.assert_array_equal(same, episodes[:, None] == episodes[None, :])
    np.testing.assert_array_equal(np.unique(dataset.episode), np.arange(len(set(episodes))))


@pytest.mark.parametrize("seed", range(5))
def test_transitions_equal_the_loop_with_timeouts(save, seed):
    arrays = random_arrays(200, seed=seed)
    dataset, info = load(save(arrays))
    kept = slow_transitions(arrays)
    assert_equals_slow(dataset, arrays, kept)
    assert info.num_transitions == len(kept)
    assert info.num_episodes == len({episode for _, episode in kept})


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("max_episode_steps", [2, 7, 1000])
def test_transitions_equal_the_loop_that_counts_steps(save, seed, max_episode_steps):
    arrays = random_arrays(200, seed=seed)
    dataset, _ = load(save(arrays, timeouts=None), max_episode_steps=max_episode_steps)
    assert_equals_slow(dataset, arrays, slow_transitions(arrays, max_episode_steps))


def test_published_counts_follow_for_a_file_of_whole_episodes(save):
    """Halfcheetah-medium holds 1000 episodes of 1000 rows and gives 999000 transitions; here 5 of 20."""
    arrays = random_arrays(100)
    arrays["terminals"][:] = False
    arrays["timeouts"] = np.arange(1, 101) % 20 == 0
    dataset, info = load(save(arrays))
    assert (dataset.num_transitions, info.num_episodes) == (95, 5)


def test_time_limits_bootstrap_and_terminations_do_not(save):
    arrays = random_arrays(10)
    arrays["terminals"] = np.arange(10) == 3
    arrays["timeouts"] = np.arange(10) == 6
    dataset, _ = load(save(arrays))
    np.testing.assert_array_equal(dataset.transitions.discount, [1, 1, 1, 0, 1, 1, 1, 1])
    np.testing.assert_array_equal(dataset.episode, [0, 0, 0, 0, 1, 1, 2, 2])


def test_own_next_observations_are_used_only_on_request_and_then_keep_every_row(save, arrays):
    dataset, _ = load(save(arrays), use_next_observations=True)
    np.testing.assert_array_equal(dataset.transitions.next_obs, arrays["next_observations"])
    np.testing.assert_array_equal(dataset.transitions.discount, 1.0 - arrays["terminals"])


def test_column_vectors_and_other_number_types_are_squeezed_and_cast(save, arrays):
    plain, _ = load(save(arrays))
    odd = {
        "observations": arrays["observations"].astype(np.float64),
        "rewards": arrays["rewards"][:, None].astype(np.float64),
        "terminals": arrays["terminals"][:, None].astype(np.uint8),
        "timeouts": arrays["timeouts"].astype(np.float32),
    }
    squeezed, _ = load(save(arrays, "odd.hdf5", **odd))
    for name in ("obs", "reward", "discount"):
        np.testing.assert_array_equal(getattr(squeezed.transitions, name), getattr(plain.transitions, name))
        assert getattr(squeezed.transitions, name).dtype == np.float32


def test_rounding_past_the_box_is_clipped(save, arrays):
    arrays["actions"][0] = 1 + 5e-6
    dataset, _ = load(save(arrays))
    assert np.abs(dataset.transitions.action).max() == 1.0


def test_returns_are_of_whole_episodes_time_limit_rows_included(save):
    arrays = random_arrays(9)
    arrays["rewards"] = np.arange(9, dtype=np.float32)
    arrays["terminals"] = np.arange(9) == 2  # 0 + 1 + 2
    arrays["timeouts"] = np.arange(9) == 6  # 3 + 4 + 5 + 6; rows 7 and 8 belong to no whole episode
    _, info = load(save(arrays))
    assert (info.return_mean, info.return_std) == (10.5, 7.5)


def test_no_whole_episode_gives_no_return(save, arrays):
    none = np.zeros(60, bool)
    _, info = load(save(arrays, terminals=none, timeouts=none))
    assert info.return_mean is None
    assert info.num_episodes == 1


@pytest.mark.parametrize("team_reward", [True, False])
def test_an_agent_axis_is_kept(save, team_reward):
    arrays = random_arrays(40, agents=3)
    reward = arrays["rewards"] if team_reward else np.random.default_rng(1).normal(size=(40, 3)).astype(np.float32)
    dataset, info = load(save(arrays, rewards=reward))
    index = [i for i, _ in slow_transitions(arrays)]
    assert (info.num_agents, info.obs_dim, info.action_dim) == (3, 3, 2)
    assert dataset.transitions.obs.shape == (len(index), 3, 3)
    np.testing.assert_array_equal(dataset.transitions.reward, reward[index])
    ended = arrays["terminals"][index]
    expected = 1.0 - (ended if team_reward else np.repeat(ended[:, None], 3, 1))
    np.testing.assert_array_equal(dataset.transitions.discount, expected)


def test_an_episode_of_agents_ends_when_all_have(save):
    arrays = random_arrays(6, agents=2)
    ended = np.array([[0, 0], [1, 0], [1, 1], [0, 0], [0, 0], [0, 0]], bool)
    reward = np.ones((6, 2), np.float32)
    dataset, _ = load(save(arrays, rewards=reward, terminals=ended, timeouts=np.zeros(6, bool)))
    np.testing.assert_array_equal(dataset.episode, [0, 0, 0, 1, 1])
    np.testing.assert_array_equal(dataset.transitions.discount, 1.0 - ended[:5])


def test_npz_reads_as_hdf5_does(save, arrays, tmp_path):
    np.savez(tmp_path / "data.npz", **arrays)
    from_npz, npz_info = load(tmp_path / "data.npz")
    from_hdf5, hdf5_info = load(save(arrays))
    np.testing.assert_array_equal(from_npz.transitions.obs, from_hdf5.transitions.obs)
    assert npz_info.sha256 == hdf5_info.sha256


def test_a_format_is_told_by_content_before_suffix(save, arrays):
    path = save(arrays, "data.npz")
    assert load(path)[1].num_transitions == load(path, "d4rl")[1].num_transitions


def test_a_published_name_brings_its_scores(save, arrays):
    assert load(save(arrays, "hopper_medium-v2.hdf5"))[1].reference_scores == (-20.272305, 3234.3)
    assert load(save(arrays, "mine.hdf5"))[1].reference_scores is None
