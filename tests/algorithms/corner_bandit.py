"""The four-corner bandit of `envs.probes` as a dataset, an algorithm trained on it, and where its actions fall."""

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import train
from jaxdiff.data import Dataset
from jaxdiff.envs import probes
from jaxdiff.types import Spec, TrainState, Transition

SPEC = Spec("bandit", obs_dim=1, action_dim=2, max_episode_steps=1)
COUNT = 4000
BATCH = 64


class CornerBandit:
    """One program per config: hyperparameters and numbers of updates are traced."""

    def __init__(self, module: ModuleType, config: Any, **defaults: float) -> None:
        action, reward = probes.bandit_corners(0, num_points=COUNT)
        obs, ended = np.zeros((COUNT, 1), np.float32), np.zeros(COUNT, np.float32)
        self.dataset = Dataset(Transition(obs, action, reward, ended, obs), np.arange(COUNT, dtype=np.int32))
        self.module, self.defaults = module, defaults
        self.algorithm = module.make(config, SPEC)
        self.chunk = jax.jit(train.make_chunk(self.algorithm, BATCH))
        self.init = jax.jit(lambda hparams, seed: train.init_lane(self.algorithm, hparams, seed))

    def learn(self, num_updates: int, **changes: float) -> TrainState:
        hparams = jax.tree.map(np.float32, self.module.HParams(**{**self.defaults, **changes}))
        lane, _ = self.chunk(self.init(hparams, np.int32(0)), jnp.int32(num_updates), self.dataset)
        assert bool(lane.alive)
        return lane.state

    def actions(self, state: TrainState, count: int = 2000) -> np.ndarray:
        """[count, 2] of the acting policy."""
        chunk, _ = jax.jit(self.algorithm.act)(jax.random.key(1), state, jnp.zeros((count, 1)), ())
        return np.asarray(chunk)[:, 0]


def near_corners(actions: np.ndarray, radius: float) -> np.ndarray:
    """[4] share of the actions within `radius` of each corner, by the larger of the two distances."""
    distance = np.abs(actions[:, None, :] - probes.CORNERS).max(axis=-1)
    return (distance < radius).mean(axis=0)
