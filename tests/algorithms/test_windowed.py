"""Histories and chunks as a wrapper: what the inner algorithm is fed, and what acting remembers."""

from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.algorithms.policy import PolicyConfig
from jaxdiff.algorithms.windows import fold, windowed
from jaxdiff.data import Window, Windows
from jaxdiff.types import Algorithm, Rollout, Spec, TrainState

SPEC = Spec("test", obs_dim=2, action_dim=1, max_episode_steps=9)
WINDOW = Window(history=3, chunk=2)


def spy(seen: dict[str, Any]) -> Any:
    """A `make` whose algorithm notes what it is given; its action is the sum of the history."""

    def make(config: Any, spec: Spec) -> Algorithm:
        seen["spec"] = spec

        def update(key: Any, state: Any, batch: Any) -> Any:
            seen["batch"] = batch
            return state, {}

        def act(key: Any, state: Any, obs: Any, memory: Any) -> Any:
            action = jnp.stack([jnp.sum(obs, axis=-1), obs[..., -1]], axis=-1)  # C U = 2 numbers
            return action[..., None, :], memory + 1

        return Algorithm(lambda key, hparams: hparams, update, act, lambda shape: jnp.zeros(shape))

    return make


def test_the_inner_task_is_longer_and_says_so():
    seen: dict[str, Any] = {}
    algorithm = windowed(spy(seen), None, SPEC, WINDOW)
    assert (seen["spec"].obs_dim, seen["spec"].action_dim, seen["spec"].history) == (6, 2, 3)
    assert algorithm.window == WINDOW


def test_nothing_is_wrapped_without_history_and_chunk():
    seen: dict[str, Any] = {}
    algorithm = windowed(spy(seen), None, SPEC, Window())
    assert seen["spec"] == SPEC
    assert algorithm.window is None


def test_acting_remembers_its_own_decisions_and_starts_with_the_first_one_repeated():
    algorithm = windowed(spy({}), None, SPEC, WINDOW)
    memory = algorithm.init_memory((1,))
    sums = []
    for value in (1.0, 10.0, 100.0, 1000.0):
        action, memory = algorithm.act(jax.random.key(0), None, jnp.full((1, 2), value), memory)
        assert action.shape == (1, 2, 1)
        sums.append(float(action[0, 0, 0]) / 2.0)
        assert float(action[0, 1, 0]) == value
    assert sums == [3.0, 12.0, 111.0, 1110.0]
    assert float(memory.inner[0]) == 4.0  # the inner memory was threaded too


def test_folded_windows_are_the_n_step_return():
    gamma = 0.9
    reward = jnp.array([[1.0, 2.0, 4.0], [1.0, 2.0, 0.0]])
    windows = Windows(
        obs=jnp.arange(12.0).reshape(2, 3, 2),
        action=jnp.arange(6.0).reshape(2, 3, 1),
        reward=reward,
        length=jnp.array([3, 2]),
        discount=jnp.array([1.0, 1.0]),
        next_obs=jnp.arange(12.0).reshape(2, 3, 2),
    )
    folded = fold(windows, jnp.asarray(gamma))
    np.testing.assert_allclose(folded.reward, [1 + 2 * gamma + 4 * gamma**2, 1 + 2 * gamma])
    # td_target multiplies by gamma once more.
    np.testing.assert_allclose(gamma * folded.discount, [gamma**3, gamma**2], rtol=1e-6)
    assert folded.obs.shape == (2, 6)
    assert folded.action.shape == (2, 3)


@pytest.mark.parametrize("window", [Window(0, 1), Window(1, 0)])
def test_sizes_below_one_are_refused(window):
    with pytest.raises(ValueError, match="both must be at least 1"):
        windowed(spy({}), None, SPEC, window)


@pytest.mark.parametrize("name", ["diffusion_bc", "diffusion_ql"])
def test_real_algorithms_train_and_act_on_windows(name):
    module = ALGORITHMS[name]
    policy = PolicyConfig(hidden=(8,), kind="x0", num_levels=1, num_steps=1, time_dim=4)
    options = {} if name == "diffusion_bc" else {"critic_hidden": (8,), "num_candidates": 2}
    algorithm = windowed(module.make, module.Config(policy, **options), SPEC, WINDOW)
    state: TrainState = jax.jit(algorithm.init)(jax.random.key(0), jax.tree.map(np.float32, module.HParams()))
    rng = np.random.default_rng(0)
    batch = Windows(
        obs=jnp.asarray(rng.normal(size=(4, 3, 2)), jnp.float32),
        action=jnp.asarray(rng.uniform(-1, 1, size=(4, 2, 1)), jnp.float32),
        reward=jnp.ones((4, 2)),
        length=jnp.array([2, 2, 1, 2]),
        discount=jnp.ones(4),
        next_obs=jnp.asarray(rng.normal(size=(4, 3, 2)), jnp.float32),
    )
    state, metrics = jax.jit(algorithm.update)(jax.random.key(1), state, batch)
    assert all(np.isfinite(value) for value in metrics.values())
    action, memory = jax.jit(algorithm.act)(jax.random.key(2), state, jnp.zeros((5, 2)), algorithm.init_memory((5,)))
    assert action.shape == (5, 2, 1)
    assert memory.past.shape == (5, 3, 2)


def deciding(seen: dict[str, Any]) -> Any:
    """As `spy`, of an algorithm that decides for itself: its record is what it was shown."""

    def make(config: Any, spec: Spec) -> Algorithm:
        def decide(key: Any, state: Any, obs: Any) -> Any:
            return jnp.stack([jnp.sum(obs, axis=-1), obs[..., -1]], axis=-1), obs

        return spy(seen)(config, spec)._replace(decide=decide)

    return make


def test_a_decision_is_made_on_the_whole_history_and_is_a_chunk():
    algorithm = windowed(deciding({}), None, SPEC, WINDOW)
    assert algorithm.decide is not None
    past = jnp.arange(24.0).reshape(4, 3, 2)
    action, record = algorithm.decide(jax.random.key(0), None, past)  # type: ignore[arg-type]
    np.testing.assert_array_equal(record, np.arange(24.0).reshape(4, 6))
    np.testing.assert_array_equal(action, np.stack([record.sum(axis=1), record[:, -1]], axis=1)[..., None])
    assert windowed(spy({}), None, SPEC, WINDOW).decide is None


def test_a_rollout_is_folded_decision_by_decision_and_keeps_its_order_and_record():
    @struct.dataclass
    class Known:
        discount_factor: Any

    seen: dict[str, Any] = {}
    algorithm = windowed(deciding(seen), None, SPEC, WINDOW)
    rng = np.random.default_rng(0)
    obs, next_obs = rng.normal(size=(2, 5, 4, 3, 2))  # [T, E, h, O]
    action, reward = rng.normal(size=(5, 4, 2, 1)), rng.normal(size=(5, 4, 2))
    length, terminated = rng.integers(1, 3, size=(5, 4)), rng.integers(0, 2, size=(5, 4))
    reward[length == 1, 1] = 0.0
    windows = Windows(*map(jnp.asarray, (obs, action, reward, length, 1.0 - terminated, next_obs)))
    ended, record = jnp.asarray(terminated, bool), jnp.asarray(rng.normal(size=(5, 4)))
    state: Any = TrainState(jnp.zeros(()), {}, {}, {}, Known(jnp.float32(0.9)))
    algorithm.update(jax.random.key(0), state, Rollout(windows, ended, record))
    folded = seen["batch"]
    assert folded.ended is ended
    assert folded.record is record
    np.testing.assert_allclose(folded.batch.obs, obs.reshape(5, 4, 6), rtol=1e-6)
    np.testing.assert_allclose(folded.batch.next_obs, next_obs.reshape(5, 4, 6), rtol=1e-6)
    np.testing.assert_allclose(folded.batch.action, action.reshape(5, 4, 2), rtol=1e-6)
    np.testing.assert_allclose(folded.batch.reward, reward[..., 0] + 0.9 * reward[..., 1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(folded.batch.discount, np.where(terminated, 0.0, 0.9 ** (length - 1)), rtol=1e-6)
