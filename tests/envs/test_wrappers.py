"""auto_reset, against a hand-written loop over the bare environment."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.envs import auto_reset, make


def test_the_ending_step_keeps_its_reward_flags_and_last_observation():
    env = make("pointmaze-umaze-dense", max_episode_steps=4)
    wrapped = auto_reset(env)
    step, wrapped_step = jax.jit(env.step), jax.jit(wrapped.step)
    state, obs = jax.jit(wrapped.reset)(jax.random.key(0))
    np.testing.assert_array_equal(state.next_obs, obs)
    actions = np.random.default_rng(0).uniform(-1, 1, (12, 2)).astype(np.float32)
    starts = [obs]
    for t, action in enumerate(actions):
        _, bare = step(state.env_state, action)
        state, timestep = wrapped_step(state, action)
        np.testing.assert_allclose(state.next_obs, bare.obs, atol=1e-6)
        np.testing.assert_allclose(timestep.reward, bare.reward, atol=1e-6)
        assert bool(timestep.truncated) is ((t + 1) % 4 == 0)
        assert not timestep.terminated
        if timestep.truncated:
            assert np.abs(timestep.obs - bare.obs).max() > 1e-3
            np.testing.assert_array_equal(timestep.obs[:2], state.env_state.position)
            assert state.env_state.time == 0
            starts.append(timestep.obs)
        else:
            np.testing.assert_array_equal(timestep.obs, state.next_obs)
    assert len({tuple(np.asarray(start).tolist()) for start in starts}) == 4  # every reset drew anew


def test_termination_is_reported_once_per_episode():
    wrapped = auto_reset(make("probe-delay"))
    state, _ = wrapped.reset(jax.random.key(0))
    _, timestep = jax.lax.scan(wrapped.step, state, jnp.zeros((6, 1)))
    assert timestep.terminated.tolist() == [False, True] * 3
    assert timestep.reward.tolist() == [0.0, 1.0] * 3
    assert timestep.obs[:, 0].tolist() == [1.0, 0.0] * 3


def test_lanes_reset_each_on_its_own_clock():
    wrapped = auto_reset(make("pointmaze-open", max_episode_steps=3))
    state, _ = jax.jit(jax.vmap(wrapped.reset))(jax.random.split(jax.random.key(0), 2))
    state = state.replace(env_state=state.env_state.replace(time=jnp.array([2, 0], jnp.int32)))
    state, timestep = jax.jit(jax.vmap(wrapped.step))(state, jnp.zeros((2, 2)))
    assert timestep.truncated.tolist() == [True, False]
    assert state.env_state.time.tolist() == [0, 1]
