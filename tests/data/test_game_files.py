"""Data of the coordination games: the published returns, and joint modes that no product of marginals has."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.data import games
from jaxdiff.data.columns import episode_returns
from jaxdiff.types import Env, Spec, TimeStep

XOR = np.array([[0.0, 1.0], [1.0, -2.0]])


def countdown(steps=3) -> Env:
    """Pays each agent what it says; terminates when agent 0 says 1, truncates after `steps`."""
    spec = Spec("countdown", obs_dim=1, action_dim=1, max_episode_steps=steps, num_agents=2)

    def reset(key):
        del key
        return jnp.int32(0), jnp.zeros((2, 1))

    def step(time, action):
        ended = action[0, 0] == 1.0
        obs = jnp.full((2, 1), time + 1.0)
        return time + 1, TimeStep(obs, action[:, 0], ended, (time + 1 >= steps) & ~ended)

    return Env(reset, step, spec)


@pytest.mark.parametrize(("quality", "mean"), [("02", 50.0), ("02_20", 50.0), ("00_02_20", 33.3), ("random", 0.15)])
def test_xor_data_have_the_published_returns(quality, mean):
    index = games.joint_choices(0, games.XOR_CHOICES[quality], (400, 50))
    returns = XOR[index[..., 0], index[..., 1]].sum(axis=1)
    exact = 50 * np.mean([XOR[a] for a in games.XOR_CHOICES[quality]])
    assert abs(exact - mean) < 0.2
    error = returns.std() / math.sqrt(len(returns))
    assert abs(returns.mean() - exact) <= 4 * error
    share = np.bincount((2 * index[..., 0] + index[..., 1]).ravel(), minlength=4) / index[..., 0].size
    wanted = np.zeros(4)
    wanted[[2 * a + b for a, b in games.XOR_CHOICES[quality]]] = 1 / len(games.XOR_CHOICES[quality])
    np.testing.assert_allclose(share, wanted, atol=0.02)


def test_the_two_best_answers_have_marginals_that_earn_nothing():
    index = games.joint_choices(0, games.XOR_CHOICES["02_20"], (20_000,))
    first, second = (np.bincount(column, minlength=2) / len(column) for column in index.T)
    np.testing.assert_allclose(first @ XOR @ second, 0.0, atol=0.05)
    np.testing.assert_allclose(XOR[index[:, 0], index[:, 1]].mean(), 1.0)


def test_assignments_share_out_the_landmarks():
    landmarks = np.array([[0.0, 0.7], [-0.6, -0.35], [0.6, -0.35]])
    points = games.assignments(0, landmarks, 6000)
    assert (points.shape, points.dtype) == ((6000, 3, 2), np.float32)
    owner = np.linalg.norm(points[:, :, None] - landmarks, axis=-1).argmin(axis=-1)
    np.testing.assert_array_equal(np.sort(owner, axis=1), np.tile([0, 1, 2], (6000, 1)))
    orders, counts = np.unique(owner, axis=0, return_counts=True)
    assert len(orders) == 6
    np.testing.assert_allclose(counts / 6000, 1 / 6, atol=0.03)
    np.testing.assert_allclose((points - landmarks[owner]).std(axis=(0, 1)), 0.05, rtol=0.05)


def test_mixture_samples_fill_the_quadrants_by_their_weights():
    modes, weights = np.array([[0.5, 0.5], [-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5]]), np.array([0.4, 0.4, 0.1, 0.1])
    points = games.mixture_samples(0, modes, weights, 0.1, 10_000)
    assert (points.shape, points.dtype) == ((10_000, 2, 1), np.float32)
    for mode, weight in zip(modes, weights, strict=True):
        here = (np.sign(points[..., 0]) == np.sign(mode)).all(axis=1)
        np.testing.assert_allclose(here.mean(), weight, atol=0.02)
        np.testing.assert_allclose(points[here].mean(axis=0)[:, 0], mode, atol=0.02)
        np.testing.assert_allclose(points[here].std(axis=0), 0.1, rtol=0.1)
    np.testing.assert_allclose((points > 0).mean(axis=0), 0.5, atol=0.02)  # a fair coin for each alone


def test_cheapest_plans_are_all_of_them_and_weigh_steps_by_their_cost():
    #    0 -> 1 -> 4 costs 1 + 1;  0 -> 2 -> 4 costs 1 + 1, by two actions;  0 -> 3 -> 4 costs 1 + 3
    following = np.array([[1, 2, 2, 3], [4, 0, 0, 0], [0, 4, 4, 0], [4, 4, 4, 4], [4, 4, 4, 4]])
    plans = games.cheapest_plans(following, np.array([1, 1, 1, 3, 0]), 0)
    assert plans.tolist() == [[0, 0], [1, 1]]
    dear = games.cheapest_plans(following, np.array([1, 9, 9, 3, 0]), 0)
    assert dear.tolist() == [[3, 0]]
    with pytest.raises(ValueError, match="no state without cost can be reached from 0"):
        games.cheapest_plans(np.zeros((2, 1), int), np.array([1, 0]), 0)


def test_alternate_keeps_halves_at_every_cut():
    mixed = games.alternate(np.ones((2, 3, 2), int), np.full((2, 1, 2), 7))
    assert mixed[:, :, 0].tolist() == [[1, 1, 1], [7, 0, 0], [1, 1, 1], [7, 0, 0]]


def test_rows_are_lived_up_to_their_own_ends():
    action = np.zeros((3, 3, 2, 1), np.float32)
    action[0, 1, 0] = action[2, 0, 0] = 1.0  # ends by termination at its second step, and at its first
    action[..., 1, 0] = np.arange(9).reshape(3, 3) / 10
    columns = games.play(countdown(), action, 6)
    assert columns.obs[:, 0, 0].tolist() == [0, 1, 0, 1, 2, 0]
    assert columns.next_obs[:, 1, 0].tolist() == [1, 2, 1, 2, 3, 1]
    assert columns.terminated.tolist() == [[t, t] for t in (False, True, False, False, False, True)]
    assert columns.truncated.tolist() == [False, False, False, False, True, False]
    np.testing.assert_allclose(columns.action[:, 1, 0], [0.0, 0.1, 0.3, 0.4, 0.5, 0.6], atol=1e-7)
    np.testing.assert_allclose(columns.reward, columns.action[..., 0])
    np.testing.assert_allclose(episode_returns(columns, columns.truncated), [0.55, 0.6, 0.8], atol=1e-6)
    cut = games.play(countdown(), action, 4)
    assert cut.truncated.tolist() == [False, False, False, True]


def test_what_cannot_be_played_is_refused():
    with pytest.raises(ValueError, match="1 of 1 episodes do not end in 2 steps"):
        games.play(countdown(), np.zeros((1, 2, 2, 1), np.float32), 2)
    with pytest.raises(ValueError, match="2 episodes have 6 rows, num_steps=7"):
        games.play(countdown(), np.zeros((2, 3, 2, 1), np.float32), 7)
    with pytest.raises(ValueError, match="num_steps=1 must be at least 2"):
        games.play(countdown(), np.zeros((2, 3, 2, 1), np.float32), 1)


def test_a_seed_repeats_and_another_differs():
    for draw in (
        lambda seed: games.joint_choices(seed, games.XOR_CHOICES["random"], (9, 5)),
        lambda seed: games.assignments(seed, np.eye(2), 9),
        lambda seed: games.mixture_samples(seed, np.eye(2), np.array([0.5, 0.5]), 0.1, 9),
        lambda seed: games.planned(seed, np.arange(24).reshape(6, 2, 2), 9),
    ):
        np.testing.assert_array_equal(draw(3), draw(3))
        assert (draw(3) != draw(4)).any()
