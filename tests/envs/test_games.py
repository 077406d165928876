"""The coordination games: their payments by hand, and what agents lose who choose each for themselves."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.envs import games
from jaxdiff.envs.discrete import encode_onehot


def paid(env, action):
    """Rewards [N, A] of one step with joint actions [N, A, U]."""
    state, _ = env.reset(jax.random.key(0))
    return np.asarray(jax.vmap(lambda a: env.step(state, a)[1].reward)(jnp.asarray(action, jnp.float32)))


def test_xor_pays_for_differing_actions_and_lasts_fifty_rounds():
    env = games.xor()
    joint = list(itertools.product((0, 1), repeat=2))
    np.testing.assert_array_equal(paid(env, encode_onehot(np.array(joint), 2)), [[0] * 2, [1] * 2, [1] * 2, [-2] * 2])
    state, obs = env.reset(jax.random.key(0))
    np.testing.assert_array_equal(obs, [[0, 1, 0, 1]] * 2)
    timestep = jax.lax.scan(lambda s, a: env.step(s, a), state, jnp.zeros((50, 2, 2)))[1]
    assert not timestep.terminated.any()
    np.testing.assert_array_equal(np.flatnonzero(timestep.truncated), [49])
    assert env.spec.reference_scores == (0.0, 50.0)


@pytest.mark.parametrize("name", games.PAYOFFS)
def test_a_payoff_is_the_entry_of_the_matrix(name):
    env, table = games.payoff(name), np.array(games.PAYOFFS[name])
    joint = np.array(list(itertools.product(range(3), repeat=2)))
    rewards = paid(env, encode_onehot(joint, 3))
    np.testing.assert_array_equal(rewards[:, 0], table.ravel())
    np.testing.assert_array_equal(rewards[:, 0], rewards[:, 1])
    np.testing.assert_allclose(env.spec.reference_scores, (table.mean(), 8.0))


def test_only_one_of_the_two_matrices_orders_actions_whatever_the_other_does():
    """The order of one agent's actions must not turn round as the other's action changes."""

    def is_monotone(table):
        return all((np.sign(a - b) * np.sign(c - d) >= 0) for t in (table, table.T) for a, b, c, d in quadruples(t))

    def quadruples(table):
        n = len(table)
        for i, k, j, m in itertools.product(range(n), repeat=4):
            yield table[i, j], table[k, j], table[i, m], table[k, m]

    monotone, other = (np.array(games.PAYOFFS[name]) for name in ("monotone", "non_monotone"))
    assert is_monotone(monotone)
    assert not is_monotone(other)
    logs = np.log2(monotone)
    np.testing.assert_allclose(logs - logs[:1] - logs[:, :1] + logs[0, 0], 0.0)  # a sum in logarithms
    assert monotone[0, 0] - monotone[1, 0] != monotone[0, 1] - monotone[1, 1]  # and no sum itself


def test_payoff_takes_a_matrix_of_ones_own():
    env = games.payoff([[1.0, 2.0], [3.0, 4.0]])
    assert (env.spec.name, env.spec.num_actions) == ("game-payoff-custom", 2)
    np.testing.assert_array_equal(paid(env, encode_onehot(np.array([[1, 0]]), 2)), [[3.0, 3.0]])
    assert games.payoff("monotone").spec.name == "game-payoff-monotone"
    assert games.payoff([[1.0, 1.0], [1.0, 1.0]]).spec.reference_scores is None


@pytest.mark.parametrize("count", [2, 3, 5])
def test_landmarks_pay_where_each_has_an_agent(count):
    env = games.landmarks(count)
    points = np.array(env.facts["landmarks"])
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 0.7)
    orders = np.array(list(itertools.product(range(count), repeat=count)))
    rewards = paid(env, points[orders])
    expected = [float(len(set(order)) == count) for order in orders.tolist()]
    np.testing.assert_array_equal(rewards, np.tile(np.array(expected)[:, None], count))
    np.testing.assert_allclose(rewards.mean(), math.factorial(count) / count**count)
    obs = env.reset(jax.random.key(0))[1]
    np.testing.assert_allclose(obs, np.tile(points.ravel(), (count, 1)), atol=1e-7)


def test_a_landmark_is_covered_up_to_the_radius():
    env = games.landmarks(2, radius=0.25)
    points = np.array(env.facts["landmarks"])
    near, far = points + [[0.249, 0], [0, 0]], points + [[0.251, 0], [0, 0]]
    np.testing.assert_array_equal(paid(env, np.stack([near, far]))[:, 0], [1.0, 0.0])


def test_mixture_pays_the_density_relative_to_its_peak():
    env = games.mixture()
    points = np.random.default_rng(0).uniform(-1, 1, (200, 2))
    points[:4] = games.MODES
    density = np.zeros(200)
    for mode, weight in zip(games.MODES, games.MODE_WEIGHTS, strict=True):
        density += weight / 0.4 * np.exp(-((points - mode) ** 2).sum(axis=1) / (2 * 0.1**2))
    np.testing.assert_allclose(paid(env, points[..., None])[:, 1], density, atol=1e-5)
    np.testing.assert_allclose(density[:4], [1, 1, 0.25, 0.25])


@pytest.mark.parametrize("make", [games.mixture, games.landmarks])
def test_the_lower_reference_is_that_of_uniform_actions(make):
    """By a grid over the square: of the density itself, and of one agent's chance to hit a landmark."""
    env = make()
    axis = (np.arange(1000) + 0.5) / 500 - 1
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    if make is games.mixture:
        offsets = ((grid[:, None] - np.array(games.MODES)) ** 2).sum(axis=-1)
        chance = (np.exp(-offsets / 0.02) @ np.array(games.MODE_WEIGHTS)).mean() / 0.4
    else:
        hits = np.linalg.norm(grid[:, None] - np.array(env.facts["landmarks"]), axis=-1) < 0.2
        assert hits.sum(axis=1).max() == 1
        chance = 6 * hits.mean(axis=0).prod()
    np.testing.assert_allclose(env.spec.reference_scores, (chance, 1.0), rtol=5e-3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: games.payoff("monotnoe"), KeyError, "unknown payoff matrix 'monotnoe'; did you mean 'monotone'"),
        (lambda: games.payoff([[1.0, 2.0]]), ValueError, "n rows of n finite numbers"),
        (lambda: games.payoff([[1.0, 2.0], [3.0]]), ValueError, "give n rows of n numbers"),
        (lambda: games.landmarks(1), ValueError, "num_agents=1 must be at least 2"),
        (lambda: games.landmarks(3, radius=0.4), ValueError, r"radius=0.4 must be positive and at most 0.300"),
        (lambda: games.landmarks(12, radius=0.2), ValueError, r"at most 0.181 with 12 landmarks"),
    ],
)
def test_bad_arguments_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
