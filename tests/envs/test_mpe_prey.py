"""Tag and world from the prey's side."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.envs import make, mpe
from jaxdiff.envs.mpe import prey as preys
from jaxdiff.envs.mpe import tasks

HUNTS = ("tag", "world")
RADII = {"tag": (0.075, 0.05), "world": (0.075, 0.045)}  # predator, prey


def edge(x):
    return 0.0 if x < 0.9 else 10.0 * (x - 0.9) if x < 1.0 else min(np.exp(2.0 * x - 2.0), 10.0)


def reward_in_numpy(task, position, landmarks):
    reach = sum(RADII[task])
    touches = sum(np.linalg.norm(predator - position[3]) < reach for predator in position[:3])
    reward = {"tag": -10.0, "world": -5.0}[task] * touches
    reward -= {"tag": 1.0, "world": 2.0}[task] * sum(edge(abs(x)) for x in position[3])
    if task == "world":
        food = [np.linalg.norm(landmarks[k] - position[3]) for k in (1, 2)]
        reward += sum(2.0 * (distance < 0.045 + 0.03) for distance in food) - 0.05 * min(food)
    return reward


@pytest.mark.parametrize("task", HUNTS)
def test_the_prey_earns_what_the_original_tasks_say(task, x64):
    rng = np.random.default_rng(0)
    chosen = tasks.TASKS[task]
    position = rng.uniform(-1.3, 1.3, (200, 4, 2))
    position[:, 3] *= rng.choice([0.3, 1.0, 4.0], (200, 1))  # far out the edge costs no more than 10
    position[:50, :2] = position[:50, 3:] + rng.uniform(-0.15, 0.15, (50, 2, 2))
    landmarks = rng.uniform(-0.9, 0.9, (200, len(chosen.landmark_radius), 2))
    landmarks[20:70, 1] = position[20:70, 3] + rng.uniform(-0.1, 0.1, (50, 2))
    states = mpe.MPEState(jnp.asarray(position), jnp.zeros((200, 4, 2)), jnp.asarray(landmarks), jnp.zeros(200, int))
    found = jax.vmap(lambda state: tasks.prey_reward(chosen, state))(states)
    expected = [reward_in_numpy(task, p, k) for p, k in zip(position, landmarks, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert len(np.unique(np.round(expected, 6))) > 50


def test_both_sides_of_a_hunt_are_one_task(task="world"):
    """The prey's task does with an action what the hunters' does with a prey that acts so, and scripted hunters."""

    def drift(obs):
        return jnp.tanh(obs[2:4] - obs[-2:])

    here = make(f"mpe-{task}-prey", noise=0.0)
    there = make(f"mpe-{task}", prey=drift)
    script = mpe.BEHAVIOURS["lead_chase"]

    @jax.jit
    def episode(key):
        (state, hunt), obs = here.reset(key)

        def step(carry, _):
            own, other, obs = carry
            own, mine = here.step(own, drift(obs))
            other, theirs = there.step(other, script.act(key, (), other)[0])
            return (own, other, mine.obs), (own[0].position, other.position, theirs.obs[0, :2], mine.truncated)

        return jax.lax.scan(step, ((state, hunt), state, obs), None, 25)[1]

    own, other, _, truncated = episode(jax.random.key(3))
    np.testing.assert_allclose(own, other, atol=1e-5)
    assert np.ptp(np.asarray(own), axis=0).min() > 0.0  # all four moved
    assert truncated.tolist() == [False] * 24 + [True]


@pytest.mark.parametrize("task", HUNTS)
def test_scores_are_those_of_uniform_actions_and_of_the_script(task):
    env, script = make(f"mpe-{task}-prey"), preys.scripted_prey(tasks.TASKS[task])

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    @functools.partial(jax.vmap, in_axes=(None, 0))
    def returns(is_scripted, key):
        key_reset, key_act = jax.random.split(key)
        start = env.reset(key_reset)

        def step(carry, drawn):
            state, obs = carry
            state, timestep = env.step(state, jnp.where(is_scripted, script(obs), drawn))
            return (state, timestep.obs), timestep.reward

        drawn = jax.random.uniform(key_act, (25, 2), minval=-1.0)
        return jax.lax.scan(step, start, drawn)[1].sum()

    found = np.asarray(returns(jnp.array([False, True]), jax.random.split(jax.random.key(11), 2000)))  # [2, M]
    error = found.std(axis=1) / np.sqrt(found.shape[1])
    assert (np.abs(found.mean(axis=1) - env.spec.reference_scores) < 4.0 * error).all()


def test_options_change_the_hunt_and_leave_no_scores():
    env = make("mpe-tag-prey", chasers="chase", noise=1.0, speed_scale=0.5, force="openai", max_episode_steps=9)
    assert env.facts["max_speed"] == [0.5, 0.5, 0.5, 1.3]
    assert env.facts["chasers"] == "chase"
    assert (env.spec.num_agents, env.spec.obs_dim, env.spec.max_episode_steps) == (None, 14, 9)
    assert env.spec.reference_scores is None
    assert make("mpe-world-prey").spec.obs_dim == 22
    start = jax.jit(env.reset)(jax.random.key(0))[0]
    other = (start[0], jax.random.key(8))
    step = jax.jit(env.step)
    moved = [step(state, jnp.zeros(2))[0][0].position for state in (start, other)]
    assert (moved[0][:3] != moved[1][:3]).all()  # uniform actions, of each episode its own


@pytest.mark.parametrize(
    ("kind", "arguments", "match"),
    [
        (ValueError, {"task": "spread"}, "nobody is hunted in spread; choose tag or world"),
        (KeyError, {"task": "tag", "chasers": "fixed"}, "unknown chasers 'fixed'"),
        (ValueError, {"task": "tag", "noise": 1.5}, "noise=1.5 is a chance"),
        (ValueError, {"task": "tag", "speed_scale": 0.0}, "speed_scale=0.0 must be positive"),
    ],
)
def test_bad_options_are_refused(kind, arguments, match):
    with pytest.raises(kind, match=match):
        mpe.mpe_prey(**arguments)


def test_a_policy_prey_draws_by_what_it_sees():
    prey = mpe.PolicyPrey(lambda key, obs: jax.random.uniform(key, (2,)), 14)
    obs = np.random.default_rng(0).normal(size=(50, 14)).astype(np.float32)
    drawn = np.asarray(jax.vmap(prey)(jnp.asarray(obs)))
    np.testing.assert_array_equal(drawn, jax.vmap(prey)(jnp.asarray(obs)))
    assert len(np.unique(drawn)) == 100
    assert (prey(jnp.asarray(obs[0, ::-1].copy())) != drawn[0]).all()
    env = mpe.mpe("tag", prey=prey)
    assert (env.spec.name, env.spec.reference_scores, env.facts["prey"]) == ("mpe-tag-trained", None, "trained")
    with pytest.raises(ValueError, match="sees 22 numbers and the given one reads 14"):
        mpe.mpe("world", prey=prey)
