"""Memory is needed where the probe says so, and every network that is given the history uses it.

probe-recall pays 1/2 to any policy that does not see its first observation (the proof is in its docstring), and 1 to
the expert that is cloned here. Compiling is what this costs: the data have one shape, so a learner compiles once.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import envs, train
from jaxdiff.algorithms import diffusion_bc
from jaxdiff.algorithms.policy import PolicyConfig, make_policy
from jaxdiff.algorithms.windows import windowed
from jaxdiff.data import Dataset, Window
from jaxdiff.envs import probes
from jaxdiff.evaluate import make_rollout
from jaxdiff.networks import NETWORKS
from jaxdiff.types import Algorithm, Spec, Transition

ROWS = 800
EPISODES = 1000
UPDATES = 300
HISTORY = 4


def demonstrations(delay: int) -> Dataset:
    count = ROWS // (delay + 1)
    data = probes.recall_episodes(0, num_episodes=count, delay=delay)
    steps = Transition(
        data["observations"],
        data["actions"],
        data["rewards"],
        1.0 - data["terminals"].astype(np.float32),
        data["next_observations"],
    )
    return jax.device_put(Dataset(steps, np.repeat(np.arange(count, dtype=np.int32), delay + 1)))


@functools.cache
def learner(network: str, history: int) -> tuple[Algorithm, Callable[..., Any]]:
    policy = PolicyConfig(network=network, hidden=(16,), num_levels=3, num_steps=3, time_dim=8)
    config = diffusion_bc.Config(policy, act_with_ema=False)
    algorithm = windowed(diffusion_bc.make, config, envs.make("probe-recall").spec, Window(history))
    update = train.make_chunk(algorithm, 64)

    def learn(hparams: diffusion_bc.HParams, num_updates: jax.Array, dataset: Dataset) -> train.Lane:
        return update(train.init_lane(algorithm, hparams, jnp.int32(0)), num_updates, dataset)[0]

    return algorithm, jax.jit(learn)


def success(network: str, history: int, delay: int) -> float:
    """Share of episodes in which a clone of the expert recalls the cue `delay` steps later."""
    algorithm, learn = learner(network, history)
    hparams = jax.tree.map(np.float32, diffusion_bc.HParams(lr=1e-2))
    lane = learn(hparams, jnp.int32(UPDATES), demonstrations(delay))
    assert bool(lane.alive)
    rollout = make_rollout(algorithm, envs.make("probe-recall", delay=delay), EPISODES)
    return float(jax.jit(rollout)(jax.random.key(1), lane.state).returns.mean())


def test_an_mlp_without_history_is_at_chance():
    assert abs(success("mlp", 1, delay=3) - 0.5) < 0.1  # 1000 fair coins stay within 0.063 with four deviations


@pytest.mark.parametrize("network", ["mlp", "lstm"])
def test_a_history_that_reaches_the_cue_is_needed_and_is_enough(network):
    assert success(network, HISTORY, delay=HISTORY - 1) > 0.9
    assert abs(success(network, HISTORY, delay=HISTORY) - 0.5) < 0.1


@pytest.mark.parametrize("network", NETWORKS)
def test_a_policy_takes_any_network_by_its_name(network):
    history, chunk = 3, 2
    spec = Spec("test", obs_dim=history * 5, action_dim=chunk * 2, max_episode_steps=9, history=history)
    policy = make_policy(PolicyConfig(network=network, hidden=(8, 8)), spec)
    params = jax.eval_shape(policy.init, jax.random.key(0))
    obs, action = jnp.zeros((4, 15)), jnp.zeros((4, 4))
    assert jax.eval_shape(policy.loss, jax.random.key(0), params, obs, action).shape == (4,)
    assert jax.eval_shape(policy.sample, jax.random.key(0), params, obs).shape == (4, 4)
