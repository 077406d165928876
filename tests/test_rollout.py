"""Rollouts against a Python loop over the same environment, one episode and one step at a time."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_algorithm import toy, toy_hparams

from jaxdiff import envs, evaluate
from jaxdiff.envs import HostEnv
from jaxdiff.types import Algorithm, Array, Env, Spec, TimeStep

EPISODES = 6
LIMIT = 8
GAINS = (-0.05, 0.02, 0.04, 0.15)


def track() -> Env:
    """A point on a line, obs [position, time]. The action moves it; the reward is the position it reaches.

    Beyond 1 the task is over; beyond 0 and after five steps it is cut short. What comes after an end is NaN.
    """

    def reset(key: Any) -> tuple[Any, Array]:
        state = (jax.random.uniform(key, minval=-1.0, maxval=0.9), jnp.int32(0), jnp.zeros((), bool))
        return state, jnp.stack([state[0], 0.0])

    def step(state: Any, action: Array) -> tuple[Any, TimeStep]:
        position, time, over = state
        position = jnp.where(over, jnp.nan, position + action[0])
        terminated = position > 1.0
        truncated = ~terminated & (position > 0.0) & (time + 1 >= 5)
        obs = jnp.stack([position, (time + 1).astype(jnp.float32)])
        return (position, time + 1, over | terminated | truncated), TimeStep(obs, position, terminated, truncated)

    return Env(reset, step, Spec("track", obs_dim=2, action_dim=1, max_episode_steps=LIMIT))


def python_episode(start: float, gain: float, length: int) -> dict[str, Any]:
    """The same in plain Python: `chunked` acts every `length` steps with the count of its calls as memory."""
    position, calls, plan = start, 0, []
    obs, actions, rewards = [], [], []
    for time in range(LIMIT):
        if not plan:
            plan = [gain * (position + 2.0) + 0.02 * calls + 0.01 * c for c in range(length)]
            calls += 1
        action = plan.pop(0)
        obs.append((position, time))
        actions.append(action)
        position += action
        rewards.append(position)
        end = "task" if position > 1.0 else "cut" if position > 0.0 and time + 1 >= 5 else "limit"
        if end != "limit":
            break
    return {
        "end": end,
        "return": sum(rewards),
        "length": len(rewards),
        "obs": obs,
        "action": actions,
        "reward": rewards,
    }


def chunked(length: int) -> Algorithm:
    """Acts by the position at the start of a chunk; its memory counts its calls, its params are the gain."""

    def act(key: Any, state: Any, obs: Array, memory: Array) -> tuple[Array, Array]:
        first = state * (obs[..., :1] + 2.0) + 0.02 * memory[..., None]
        actions = first[..., None, :] + 0.01 * jnp.arange(length).reshape((1,) * (obs.ndim - 1) + (length, 1))
        return actions, memory + 1.0

    return Algorithm(lambda key, hparams: hparams, lambda key, state, batch: (state, {}), act, jnp.zeros)


@pytest.fixture(scope="module", params=[1, 3, 8, 11])
def rollout(request: pytest.FixtureRequest) -> Any:
    """(length of a chunk, compiled rollout)."""
    made = evaluate.make_rollout(chunked(request.param), track(), EPISODES, num_recorded=EPISODES)
    return request.param, jax.jit(made)


def test_rollout_equals_a_python_loop(rollout):
    length, run = rollout
    ends = set()
    for gain in GAINS:
        result = run(jax.random.key(1), jnp.float32(gain))
        recorded = result.recorded
        assert recorded.obs.shape == (EPISODES, LIMIT, 2)
        assert recorded.action.shape == (EPISODES, LIMIT, 1)
        assert len(np.unique(recorded.obs[:, 0, 0])) == EPISODES  # each episode has a start of its own
        ends |= {check_episode(result, m, gain, length) for m in range(EPISODES)}
    assert ends == {"task", "cut", "limit"}


def check_episode(result: evaluate.Evaluation, m: int, gain: float, length: int) -> str:
    """Compares a recorded episode with plain Python; how it ended."""
    recorded = result.recorded
    wanted = python_episode(float(recorded.obs[m, 0, 0]), gain, length)
    n = wanted["length"]
    assert int(result.lengths[m]) == n
    assert float(result.returns[m]) == pytest.approx(wanted["return"], rel=1e-4, abs=1e-5)
    np.testing.assert_array_equal(recorded.mask[m], np.arange(LIMIT) < n)
    for name in ("obs", "action", "reward"):
        found = np.asarray(getattr(recorded, name))[m]
        np.testing.assert_allclose(found[:n].squeeze(), np.squeeze(wanted[name]), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(recorded.reward[m, n:], 0.0)
    return wanted["end"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("num_recorded", [0, 2])
def test_only_the_first_episodes_are_recorded_and_nothing_else_depends_on_it(num_recorded):
    full, part = (
        jax.jit(evaluate.make_rollout(chunked(3), track(), EPISODES, num_recorded=count))(jax.random.key(1), 0.04)
        for count in (EPISODES, num_recorded)
    )
    assert part.recorded.obs.shape == (num_recorded, LIMIT, 2)
    assert part.recorded.mask.shape == (num_recorded, LIMIT)
    np.testing.assert_allclose(part.recorded.obs, full.recorded.obs[:num_recorded], rtol=1e-6)
    np.testing.assert_allclose(part.returns, full.returns, rtol=1e-6)


def test_key_decides_the_starts_and_the_actions_noise():
    def act(key: Any, state: Any, obs: Array, memory: Any) -> tuple[Array, Any]:
        return 0.01 * jax.random.normal(key, (*obs.shape[:-1], 1, 1)), memory

    noisy = chunked(1)._replace(act=act, init_memory=lambda shape: ())
    rollout = jax.jit(evaluate.make_rollout(noisy, track(), EPISODES, num_recorded=EPISODES))
    first, again, other = (rollout(jax.random.key(k), 0.0) for k in (0, 0, 1))
    np.testing.assert_array_equal(first.returns, again.returns)
    assert (np.asarray(first.recorded.obs[:, 0, 0]) != np.asarray(other.recorded.obs[:, 0, 0])).all()
    actions = np.asarray(first.recorded.action)[np.asarray(first.recorded.mask) > 0]
    assert len(np.unique(actions)) == len(actions)  # neither steps nor episodes share noise


@pytest.mark.parametrize(("episodes", "recorded"), [(0, 0), (2, 3)])
def test_numbers_of_episodes_that_cannot_be(episodes, recorded):
    with pytest.raises(ValueError, match=f"eval_episodes={episodes} and recorded episodes={recorded}"):
        evaluate.make_rollout(chunked(1), track(), episodes, num_recorded=recorded)


class Box:
    low, high = np.array([-1.0]), np.array([1.0])


class HostTrack:
    """`track` as a gymnasium task, with a start given by its seed."""

    action_space = Box()

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit, self.steps_after_the_end = limit, 0

    def reset(self, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
        self.position, self.time, self.over = np.random.default_rng(seed).uniform(-1.0, 0.9), 0, False
        return np.array([self.position, 0.0]), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps_after_the_end += self.over
        self.position, self.time = self.position + float(action[0]), self.time + 1
        terminated = self.position > 1.0
        truncated = (self.position > 0.0 and self.time >= 5) or self.time >= self.limit
        self.over = terminated or truncated
        return np.array([self.position, self.time]), self.position, terminated, truncated, {}


@pytest.mark.parametrize("length", [1, 3])
def test_host_rollout_equals_a_python_loop(length):
    copies = [HostTrack() for _ in range(EPISODES)]
    rollout = evaluate.make_host_rollout(chunked(length), HostEnv(track().spec, copies), EPISODES, num_recorded=5)
    ends = set()
    for gain in GAINS:
        result = rollout(jax.random.key(1), jnp.float32(gain))
        assert result.returns.shape == result.lengths.shape == (EPISODES,)
        assert result.recorded.obs.shape == (5, LIMIT, 2)
        assert len(np.unique(result.recorded.obs[:, 0, 0])) == 5
        ends |= {check_episode(result, m, gain, length) for m in range(5)}
    assert ends == {"task", "cut", "limit"}
    assert all(copy.steps_after_the_end == 0 for copy in copies)


def test_host_rollouts_of_one_key_face_the_same_starts():
    env = HostEnv(track().spec, [HostTrack() for _ in range(EPISODES)])
    rollout = evaluate.make_host_rollout(chunked(1), env, EPISODES, num_recorded=EPISODES)
    starts = [rollout(jax.random.key(k), jnp.float32(g)).recorded.obs[:, 0] for k, g in ((0, 0.1), (0, -0.1), (1, 0.1))]
    np.testing.assert_array_equal(starts[0], starts[1])
    assert (starts[0][:, 0] != starts[2][:, 0]).all()


def test_host_rollout_wants_a_copy_for_each_episode():
    env = HostEnv(track().spec, [HostTrack()])
    with pytest.raises(ValueError, match="runs 1 copies, eval_episodes=2; make them equal"):
        evaluate.make_host_rollout(chunked(1), env, 2)


def test_real_mujoco_episodes_have_the_forms_of_device_ones():
    pytest.importorskip("gymnasium")
    env = envs.make_host("gymnasium-Hopper-v5", 2)
    algorithm = toy()
    state = algorithm.init(jax.random.key(0), toy_hparams())
    wide = algorithm._replace(act=lambda key, state, obs, memory: (jnp.zeros((2, 1, 3)), memory))
    result = evaluate.make_host_rollout(wide, env, 2, num_recorded=1)(jax.random.key(0), state)
    env.close()
    # A hopper that does nothing falls within a hundred steps and earns about one per step for being alive.
    assert ((result.lengths > 10) & (result.lengths < 300)).all()
    assert (np.abs(result.returns / result.lengths - 1.0) < 0.5).all()
    assert result.recorded.obs.shape == (1, 1000, 11)
    assert result.recorded.mask.sum() == result.lengths[0]
    scores = evaluate.normalised_scores(result.returns, env.spec)
    np.testing.assert_allclose(scores, 100 * (result.returns + 20.272305) / (3234.3 + 20.272305), rtol=1e-5)


def test_a_task_without_reference_scores_has_no_normalised_ones():
    assert evaluate.normalised_scores(np.ones(3), track().spec) is None
