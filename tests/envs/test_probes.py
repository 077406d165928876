"""The probes' published answers, by brute force over starts and actions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.envs import make, probes

NAMES = list(probes.SOLUTIONS)
DISCOUNT = 0.9


def play(env, state, action):
    """Discounted return of taking `action` until the end."""
    total, factor = 0.0, 1.0
    for _ in range(env.spec.max_episode_steps):
        state, timestep = env.step(state, action)
        total += factor * float(timestep.reward)
        factor *= DISCOUNT
        if timestep.terminated:
            return total
    raise AssertionError("the probe did not terminate")


def starts(env):
    """One start state per first observation the probe has."""
    drawn = [env.reset(key) for key in jax.random.split(jax.random.key(0), 8)]
    return {float(obs[0]): state for state, obs in drawn}


@pytest.mark.parametrize("name", NAMES)
def test_no_action_beats_the_published_value_and_the_published_action_earns_it(name):
    env, solution = make(name), probes.SOLUTIONS[name]
    axis = np.linspace(-1, 1, 9)
    grid = np.stack(np.meshgrid(*[axis] * env.spec.action_dim), axis=-1).reshape(-1, env.spec.action_dim)
    for first, state in starts(env).items():
        obs = jnp.array([first])
        value = float(solution.value(obs, DISCOUNT))
        returns = [play(env, state, jnp.asarray(action, jnp.float32)) for action in grid]
        predicted = [float(solution.action_value(obs, jnp.asarray(a, jnp.float32), DISCOUNT)) for a in grid]
        np.testing.assert_allclose(returns, predicted, atol=1e-6)
        assert max(returns) <= value + 1e-6
        np.testing.assert_allclose(play(env, state, solution.best_action(obs)), value, atol=1e-6)


@pytest.mark.parametrize(("name", "first_obs"), [("probe-obs", {-1.0, 1.0}), ("probe-both", {-1.0, 1.0})])
def test_signed_probes_start_from_both_signs(name, first_obs):
    assert set(starts(make(name))) == first_obs


def test_values_are_the_documented_numbers():
    one, zero = jnp.ones(1), jnp.zeros(1)
    value = {name: solution.value for name, solution in probes.SOLUTIONS.items()}
    assert value["probe-constant"](zero, DISCOUNT) == 1.0
    assert value["probe-obs"](-one, DISCOUNT) == -1.0
    np.testing.assert_allclose([value["probe-delay"](zero, DISCOUNT), value["probe-delay"](one, DISCOUNT)], [0.9, 1.0])
    assert value["probe-bandit"](zero, DISCOUNT) == 5.0


@pytest.mark.parametrize("name", [name for name in NAMES if make(name).spec.reference_scores])
def test_reference_scores_are_those_of_uniform_actions_and_of_the_best(name):
    env, solution = make(name), probes.SOLUTIONS[name]
    actions = np.random.default_rng(0).uniform(-1, 1, (20_000, env.spec.action_dim)).astype(np.float32)
    state, obs = jax.vmap(env.reset)(jax.random.split(jax.random.key(1), len(actions)))
    uniform = jax.vmap(env.step)(state, actions)[1].reward
    best = jax.vmap(env.step)(state, jax.vmap(solution.best_action)(obs))[1].reward
    np.testing.assert_allclose(uniform.mean(), env.spec.reference_scores[0], atol=0.05)
    np.testing.assert_allclose(best.mean(), env.spec.reference_scores[1], atol=0.05)


def test_the_bandits_data_are_four_tight_clouds_with_noisy_rewards():
    action, reward = probes.bandit_corners(0)
    assert action.shape == (10_000, 2)
    assert reward.shape == (10_000,)
    assert action.dtype == reward.dtype == np.float32
    assert np.abs(action).max() <= 1.0
    for signs, mean in {(-1, 1): 3.0, (-1, -1): 0.0, (1, 1): 1.5, (1, -1): 5.0}.items():
        here = (np.sign(action) == signs).all(axis=1)
        assert here.sum() == 2500
        np.testing.assert_allclose(action[here].mean(axis=0), 0.8 * np.array(signs), atol=0.005)
        np.testing.assert_allclose(action[here].std(axis=0), 0.05, rtol=0.06)
        np.testing.assert_allclose(reward[here].mean(), mean, atol=0.05)
        np.testing.assert_allclose(reward[here].std(), 0.5, rtol=0.06)


def test_the_bandits_data_depend_on_the_seed_alone():
    first, again, other = probes.bandit_corners(3), probes.bandit_corners(3), probes.bandit_corners(4)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0] != other[0]).any()


def test_the_bandit_pays_the_mean_of_the_datas_corner():
    action, reward = probes.bandit_corners(1, num_points=4000)
    env = make("probe-bandit")
    state, _ = env.reset(jax.random.key(0))
    paid = jax.vmap(lambda a: env.step(state, a)[1].reward)(action)
    residual = reward - np.asarray(paid)
    np.testing.assert_allclose(residual.std(), 0.5, rtol=0.05)
    assert np.abs(residual).max() < 2.5  # five standard deviations: no point is assigned to another corner


@pytest.mark.parametrize("num_points", [0, 10, -4])
def test_the_bandits_data_come_in_quarters(num_points):
    with pytest.raises(ValueError, match=f"num_points={num_points} must be a positive multiple of 4"):
        probes.bandit_corners(0, num_points=num_points)


@pytest.mark.parametrize("delay", [1, 3])
def test_recall_shows_the_cue_once_and_pays_its_sign_delay_steps_later(delay):
    env = make("probe-recall", delay=delay)
    keys, steps = jax.random.split(jax.random.key(0), 8), delay + 1
    state, first = jax.vmap(env.reset)(keys)
    assert set(np.asarray(first)[:, 0]) == {-1.0, 1.0}
    actions = np.zeros((8, steps, 1), np.float32)  # elsewhere than at the last step an answer changes nothing
    for sign in (1.0, -1.0, 0.0):
        actions[:, -1] = sign * np.asarray(first) / 4
        timestep = jax.vmap(lambda s, a: jax.lax.scan(env.step, s, a)[1])(state, actions)
        assert (timestep.obs == 0).all()
        np.testing.assert_array_equal(timestep.reward, np.eye(steps)[[-1] * 8] * (sign > 0))
        np.testing.assert_array_equal(timestep.terminated, np.eye(steps, dtype=bool)[[-1] * 8])


def test_the_recall_expert_succeeds_and_only_its_first_observation_tells_the_cue():
    data = probes.recall_episodes(0, num_episodes=10, delay=2)
    assert {name: (len(column), column.ndim) for name, column in data.items()} == {
        "observations": (30, 2), "next_observations": (30, 2), "actions": (30, 2),
        "rewards": (30, 1), "terminals": (30, 1), "timeouts": (30, 1),
    }  # fmt: skip
    obs, action = (data[name].reshape(10, 3) for name in ("observations", "actions"))
    cue = obs[:, 0]
    assert sorted(cue) == [-1.0] * 5 + [1.0] * 5
    assert (obs[:, 1:] == 0).all()
    assert (data["next_observations"] == 0).all()
    assert (np.sign(action) == cue[:, None]).all()
    np.testing.assert_allclose(np.abs(action), 0.5, atol=0.25)
    np.testing.assert_array_equal(data["rewards"].reshape(10, 3), [[0, 0, 1]] * 10)
    np.testing.assert_array_equal(data["terminals"].reshape(10, 3), [[False, False, True]] * 10)
    again, other = probes.recall_episodes(0, num_episodes=10, delay=2), probes.recall_episodes(1, num_episodes=10)
    np.testing.assert_array_equal(data["actions"], again["actions"])
    assert len(other["rewards"]) == 40


def test_recall_refuses_a_cue_in_sight_and_too_few_episodes():
    for call in (lambda: make("probe-recall", delay=0), lambda: probes.recall_episodes(0, delay=0)):
        with pytest.raises(ValueError, match="delay=0 must be at least 1"):
            call()
    with pytest.raises(ValueError, match="num_episodes=1 must be at least 2"):
        probes.recall_episodes(0, num_episodes=1)


@pytest.mark.parametrize("name", [*NAMES, "probe-recall"])
def test_a_step_changes_no_type_so_that_a_loop_is_compiled_once(name):
    env = make(name)
    state, obs = jax.eval_shape(env.reset, jax.random.key(0))
    after, step = jax.eval_shape(env.step, state, jnp.zeros(env.spec.action_dim))
    for before, now in zip(jax.tree.leaves((state, obs)), jax.tree.leaves((after, step.obs)), strict=True):
        assert (before.shape, before.dtype, before.weak_type) == (now.shape, now.dtype, False)
        assert not before.weak_type
