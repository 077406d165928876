"""The brax adapter: sizes without compiling, and flags and rewards of one compiled task against brax itself."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.envs import brax_env, make

SIZES = {"hopper": (11, 3), "halfcheetah": (17, 6), "walker2d": (17, 6), "ant": (27, 8)}


@pytest.mark.parametrize("task", SIZES)
def test_sizes_are_those_of_the_mujoco_tasks(task, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    env = make(f"brax-{task}")
    assert (env.spec.obs_dim, env.spec.action_dim) == SIZES[task]
    assert env.spec.max_episode_steps == 1000
    assert env.spec.reference_scores is None
    assert env.facts["backend"] == "spring"
    assert list(Path(tmp_path).iterdir()) == []  # MuJoCo's own handler would have left a MUJOCO_LOG.TXT
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("backend", brax_env.BACKENDS)
def test_every_backend_traces_with_the_same_interface(backend):
    env = make("brax-hopper", backend=backend)
    state, obs = jax.eval_shape(env.reset, jax.random.key(0))
    state_after, timestep = jax.eval_shape(env.step, state, jax.ShapeDtypeStruct((3,), jnp.float32))
    assert obs.shape == timestep.obs.shape == (11,)
    assert timestep.reward.shape == timestep.terminated.shape == timestep.truncated.shape == ()
    assert jax.tree.structure(state) == jax.tree.structure(state_after)
    same = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), state, state_after)
    assert all(jax.tree.leaves(same))


@pytest.mark.slow
def test_a_fall_terminates_and_the_clock_truncates():
    horizon = 100
    env = make("brax-hopper", max_episode_steps=horizon)

    def run(key, action):
        state, _ = env.reset(key)
        return jax.lax.scan(lambda s, _: env.step(s, action), state, None, length=horizon)[1]

    # Keys and actions as lanes of one program: doing nothing, and pushing every joint one way.
    actions = jnp.concatenate([jnp.zeros((2, 3)), jnp.ones((2, 3)), -jnp.ones((2, 3))])
    timestep = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 6), actions)
    terminated, truncated = np.asarray(timestep.terminated), np.asarray(timestep.truncated)
    assert terminated.any(axis=1).sum() >= 2  # a hopper thrown off balance falls within 0.8 s
    assert not truncated[:, : horizon - 1].any()
    np.testing.assert_array_equal(truncated[:, -1], ~terminated[:, -1])
    # Brax's definition: unhealthy is a height of at most 0.7 or a torso angle beyond 0.2 (obs 0 and 1).
    height, angle = np.asarray(timestep.obs)[..., 0], np.asarray(timestep.obs)[..., 1]
    unhealthy = (height <= 0.7) | (np.abs(angle) >= 0.2)
    np.testing.assert_array_equal(terminated, unhealthy)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("hoper", "spring"), KeyError, "unknown brax task 'hoper'; did you mean 'hopper'"),
        (("hopper", "sprung"), KeyError, "unknown brax backend 'sprung'; did you mean 'spring'"),
    ],
)
def test_bad_names_are_answered_with_the_nearest(arguments, error, message):
    with pytest.raises(error, match=message):
        brax_env.brax_locomotion(arguments[0], backend=arguments[1])


def test_an_episode_needs_a_step():
    with pytest.raises(ValueError, match="max_episode_steps=0 must be at least 1"):
        brax_env.brax_locomotion("hopper", max_episode_steps=0)
