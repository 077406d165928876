"""The brax adapter: sizes without compiling, and flags and rewards of one compiled task against brax itself."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.envs import brax_env, make

SIZES = {"hopper": (11, 3), "halfcheetah": (17, 6), "walker2d": (17, 6), "ant": (27, 8)}
HORIZON = 100


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


def episode(key, action):
    """brax-hopper's first observation and the [HORIZON] steps of doing the same all the time."""
    env = make("brax-hopper", max_episode_steps=HORIZON)
    state, first = env.reset(key)
    return first, jax.lax.scan(lambda s, _: env.step(s, action), state, None, length=HORIZON)[1]


@pytest.fixture(scope="module")
def hopper():
    """Keys and actions as lanes of one program, doing nothing and pushing every joint one way; the episodes."""
    actions = jnp.concatenate([jnp.zeros((2, 3)), jnp.ones((2, 3)), -jnp.ones((2, 3))])
    keys = jax.random.split(jax.random.key(0), 6)
    return keys, actions, jax.jit(jax.vmap(episode))(keys, actions)


@pytest.mark.slow
def test_a_compiled_task_keeps_the_protocol(hopper):
    keys, actions, (first, timestep) = hopper
    assert first.shape == (6, 11)
    assert timestep.obs.shape == (6, HORIZON, 11)
    assert {x.shape for x in timestep[1:]} == {(6, HORIZON)}
    assert {x.dtype for x in (first, timestep.obs, timestep.reward)} == {jnp.dtype("float32")}
    assert {timestep.terminated.dtype, timestep.truncated.dtype} == {jnp.dtype(bool)}
    for leaf in jax.tree.leaves((first, timestep)):
        assert np.isfinite(leaf).all()
    alone = jax.jit(episode)
    for lane in (0, 3, 5):
        start, steps = alone(keys[lane], actions[lane])
        np.testing.assert_allclose(start, first[lane], atol=1e-4)
        for lone, many in zip(jax.tree.leaves(steps), jax.tree.leaves(timestep), strict=True):
            np.testing.assert_allclose(lone[:5], many[lane, :5], atol=1e-4)


@pytest.mark.slow
def test_a_fall_terminates_and_the_clock_truncates(hopper):
    timestep = hopper[2][1]
    terminated, truncated = np.asarray(timestep.terminated), np.asarray(timestep.truncated)
    assert terminated.any(axis=1).sum() >= 2  # a hopper thrown off balance falls within 0.8 s
    assert not (terminated & truncated).any()
    assert not truncated[:, : HORIZON - 1].any()
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
