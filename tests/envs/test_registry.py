"""What holds for every environment in the table; a new entry is tested without a new test."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.envs import ENVS, auto_reset, make

# Compiling brax's physics takes most of a minute per task: test_brax_env.py has one compiled task, and it and
# test_mabrax.py check the others without compiling. Jumanji's have small instances in test_jumanji_env.py.
CHEAP = [name for name in ENVS if not name.startswith(("brax-", "jumanji-", "mabrax-"))]
STEPS = 5


@pytest.mark.parametrize("name", CHEAP)
def test_every_environment_keeps_the_protocol(name, trace_counter):
    env = make(name)
    spec = env.spec
    assert spec.name == name
    num_envs = 3
    keys = jax.random.split(jax.random.key(0), num_envs)
    agents = () if spec.num_agents is None else (spec.num_agents,)
    shape = (num_envs, STEPS, *agents, spec.action_dim)
    actions = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)

    def episode(key, actions):
        state, obs = env.reset(key)
        return obs, jax.lax.scan(env.step, state, actions)[1]

    single = jax.jit(trace_counter(episode))
    alone = [single(key, action) for key, action in zip(keys, actions, strict=True)]
    assert trace_counter.count == 1
    first, timestep = jax.jit(jax.vmap(episode))(keys, actions)

    assert first.shape == (num_envs, *agents, spec.obs_dim)
    assert timestep.obs.shape == (num_envs, STEPS, *agents, spec.obs_dim)
    assert timestep.reward.shape == (num_envs, STEPS, *agents)
    assert {x.shape for x in timestep[2:]} == {(num_envs, STEPS)}
    assert {x.dtype for x in (first, timestep.obs, timestep.reward)} == {jnp.dtype("float32")}
    assert {timestep.terminated.dtype, timestep.truncated.dtype} == {jnp.dtype(bool)}
    assert not (timestep.terminated & timestep.truncated).any()
    for leaf in jax.tree.leaves((first, timestep)):
        assert np.isfinite(leaf).all()
    looped = jax.tree.map(lambda *leaves: np.stack(leaves), *alone)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), looped, (first, timestep))
    if spec.reference_scores is not None:
        assert spec.reference_scores[0] < spec.reference_scores[1]


@pytest.mark.parametrize("name", CHEAP)
def test_episodes_end_within_the_stated_length_and_start_again(name):
    env = make(name)
    horizon = env.spec.max_episode_steps
    wrapped = auto_reset(env)
    key = jax.random.key(1)

    def run(key):
        state, _ = wrapped.reset(key)
        agents = () if env.spec.num_agents is None else (env.spec.num_agents,)
        return jax.lax.scan(wrapped.step, state, jnp.zeros((2 * horizon, *agents, env.spec.action_dim)))[1]

    timestep = jax.jit(run)(key)
    ended = np.flatnonzero(timestep.terminated | timestep.truncated)
    assert ended.tolist() == [horizon - 1, 2 * horizon - 1]


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(KeyError, match="unknown environment 'pointmaze-umase'; did you mean 'pointmaze-umaze'"):
        make("pointmaze-umase")
    with pytest.raises(KeyError, match=r"known, of \d+ the nearest: .*pointmaze-open"):
        make("zzz")


def test_a_host_environment_is_sent_to_make_host():
    with pytest.raises(KeyError, match=r"runs on the host.*make_host\('gymnasium-Hopper-v5', num_envs\)"):
        make("gymnasium-Hopper-v5")


def test_an_unknown_option_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="brax-ant has no option 'bakend'; known: backend, max_episode_steps"):
        make("brax-ant", bakend="mjx")
    with pytest.raises(ValueError, match="probe-obs has no option 'dense'; known: none"):
        make("probe-obs", dense=True)


def test_options_reach_the_factory():
    assert make("pointmaze-medium", max_episode_steps=9).spec.max_episode_steps == 9
