"""The algorithms learn what is known on paper: the four corners of Diffusion-QL's bandit, the values of the probes.

One program serves every dataset here: they have one shape, and everything that differs is traced.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from plain_networks import q_values, relu
import pytest

from jaxdiff import envs, train
from jaxdiff.algorithms import diffusion_bc, diffusion_ql
from jaxdiff.algorithms.policy import PolicyConfig
from jaxdiff.data import Dataset
from jaxdiff.envs import probes
from jaxdiff.types import Algorithm, Spec, TrainState, Transition

SPEC = Spec("bandit", obs_dim=1, action_dim=2, max_episode_steps=1)
POLICY = PolicyConfig(hidden=(64, 64), activation="relu")  # five levels and five steps, the paper's
COUNT = 4000
BATCH = 64
DISCOUNT_FACTOR = 0.6  # far from 1, so that a wrong exponent shows

Learn = Callable[..., TrainState]


def learner(algorithm: Algorithm, default: Any) -> Learn:
    chunk = jax.jit(train.make_chunk(algorithm, BATCH))
    init = jax.jit(lambda hparams, seed: train.init_lane(algorithm, hparams, seed))

    def learn(dataset: Dataset, num_updates: int, **changes: float) -> TrainState:
        hparams = jax.tree.map(np.float32, dataclasses.replace(default, **changes))
        lane, _ = chunk(init(hparams, np.int32(0)), jnp.int32(num_updates), dataset)
        assert bool(lane.alive)
        return lane.state

    return learn


@pytest.fixture(scope="module")
def ql() -> tuple[Algorithm, Learn]:
    config = diffusion_ql.Config(POLICY, critic_hidden=(64, 64), critic_activation="relu", num_candidates=10)
    algorithm = diffusion_ql.make(config, SPEC)
    default = diffusion_ql.HParams(lr=1e-3, critic_lr=1e-3, q_weight=2.5, ema_start=0.0, polyak=0.02)
    return algorithm, learner(algorithm, default)


@pytest.fixture(scope="module")
def corners() -> Dataset:
    action, reward = probes.bandit_corners(0, num_points=COUNT)
    obs = np.zeros((COUNT, 1), np.float32)
    return Dataset(Transition(obs, action, reward, np.zeros(COUNT, np.float32), obs), np.arange(COUNT, dtype=np.int32))


def near_corners(algorithm: Algorithm, state: TrainState, radius: float) -> np.ndarray:
    """[4] share of the samples within `radius` of each corner, by the larger of the two distances."""
    count = 2000
    chunk, _ = jax.jit(algorithm.act)(jax.random.key(1), state, jnp.zeros((count, 1)), ())
    distance = np.abs(np.asarray(chunk)[:, 0, None, :] - probes.CORNERS).max(axis=-1)  # [count, 4]
    return (distance < radius).mean(axis=0)


def test_diffusion_ql_finds_the_best_corner(ql, corners):
    algorithm, learn = ql
    share = near_corners(algorithm, learn(corners, 600), radius=0.2)
    assert probes.CORNER_REWARDS.argmax() == 3
    assert share[3] > 0.9


def test_diffusion_bc_keeps_all_four_corners(corners):
    # Five levels cannot draw spots this small: between two corners the mean of the posterior is neither.
    policy = dataclasses.replace(POLICY, num_levels=20, num_steps=20)
    algorithm = diffusion_bc.make(diffusion_bc.Config(policy), SPEC)
    state = learner(algorithm, diffusion_bc.HParams(lr=3e-3, ema_rate=0.01))(corners, 4000)
    share = near_corners(algorithm, state, radius=0.3)
    assert share.min() > 0.15
    assert share.max() < 0.35
    assert share.sum() > 0.85


def played(name: str) -> Dataset:
    """COUNT transitions of a probe under uniform actions, episode after episode."""
    env = envs.auto_reset(envs.make(name))

    def step(carry: Any, key: jax.Array) -> Any:
        state, obs = carry
        action = jax.random.uniform(key, (SPEC.action_dim,), minval=-1.0, maxval=1.0)
        state, timestep = env.step(state, action[: env.spec.action_dim])
        row = Transition(obs, action, timestep.reward, 1.0 - timestep.terminated, state.next_obs)
        return (state, timestep.obs), (row, timestep.terminated | timestep.truncated)

    keys = jax.random.split(jax.random.key(1), COUNT)
    _, (rows, ended) = jax.jit(lambda: jax.lax.scan(step, env.reset(jax.random.key(0)), keys))()
    episode = np.append(0, np.cumsum(np.asarray(ended)))[:-1].astype(np.int32)
    return jax.tree.map(np.asarray, Dataset(rows, episode))


@pytest.mark.parametrize("name", ["probe-constant", "probe-obs", "probe-delay"])
def test_critic_finds_the_value_of_a_probe(ql, name):
    _, learn = ql
    dataset = played(name)
    state = learn(dataset, 600, discount_factor=DISCOUNT_FACTOR)
    obs, rows = np.unique(np.asarray(dataset.transitions.obs), axis=0, return_index=True)
    assert len(obs) == (1 if name == "probe-constant" else 2)
    solution = probes.SOLUTIONS[name]
    wanted = np.array([float(solution.value(o, DISCOUNT_FACTOR)) for o in obs])
    for actions in (np.asarray(dataset.transitions.action)[rows], np.zeros((len(obs), 2))):
        values = q_values(state.params["critic"], obs, actions, relu)
        np.testing.assert_allclose(values, np.stack([wanted, wanted]), atol=0.1)
