"""Tasks stepped on the host: real MuJoCo from gymnasium, PettingZoo. For evaluation; training never leaves the device.

D4RL's hopper, halfcheetah, walker2d and ant ran on mujoco-py 2.0; gymnasium's v5 tasks have the same observations and
actions for the first three (Ant-v5 adds contact forces) but other physics (mujoco 3) and revised rewards. Scores
normalised with D4RL's references are therefore comparable among themselves, not with published D4RL numbers. Names that
start with "pettingzoo-" are in `pettingzoo_env`.
"""

from typing import Any

import numpy as np

from jaxdiff.envs.pettingzoo_env import is_pettingzoo, make_teams
from jaxdiff.envs.quiet import quiet_loading
from jaxdiff.suggest import unknown_name
from jaxdiff.types import Spec

PREFIX = "gymnasium-"

# (random, expert) returns, d4rl/infos.py; the same for every quality of data.
REFERENCE_SCORES: dict[str, tuple[float, float]] = {
    "Hopper-v5": (-20.272305, 3234.3),
    "HalfCheetah-v5": (-280.178953, 12135.0),
    "Walker2d-v5": (1.629008, 4592.3),
    "Ant-v5": (-325.6, 3879.7),
}

# Tried ones; others work by the same rule.
HOST_ENVS = (*(PREFIX + task for task in REFERENCE_SCORES), "pettingzoo-simple_spread_v3")


def is_host(name: str) -> bool:
    """True for names that `make_host` takes and `make` does not: those starting with "gymnasium-" or "pettingzoo-"."""
    return name.startswith(PREFIX) or is_pettingzoo(name)


class HostEnv:
    """B copies of one task, stepped together and never reset on their own. With agents, arrays have them after B.

    A copy whose episode ended is left alone: from then on it returns zeros and False until `reset`. The copies are
    stepped one after another: on two cores a thread pool was no faster (hopper) or half as fast (halfcheetah), one
    MuJoCo step being shorter than handing it to a thread.

    Attributes:
      spec: static facts, with D4RL's reference scores where D4RL has the task.
      num_envs: B.
      finished: [B] bool, copies whose episode is over.
    """

    def __init__(self, spec: Spec, copies: list[Any]):
        self.spec = spec
        self.num_envs = len(copies)
        self.finished = np.ones(self.num_envs, bool)
        self._copies = copies
        space = copies[0].action_space
        self._low = np.asarray(space.low, np.float64)
        self._high = np.asarray(space.high, np.float64)

    def reset(self, seed: int) -> np.ndarray:
        """Starts B new episodes and returns obs [B, O] or [B, A, O] float32.

        Copy b draws its start from (seed, b) alone, so it does not depend on B, and seeds do not share starts.

        Args:
          seed: at least 0.
        """
        seeds = np.random.SeedSequence(seed).generate_state(self.num_envs)
        self.finished = np.zeros(self.num_envs, bool)
        return np.stack([copy.reset(seed=int(s))[0] for copy, s in zip(self._copies, seeds, strict=True)]).astype(
            np.float32
        )

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """One step of every unfinished copy.

        Args:
          action: [B, U] or [B, A, U] in [-1, 1], clipped, then mapped linearly onto the task's own range.

        Returns:
          obs [B, O] or [B, A, O] float32, reward [B] or [B, A] float32, terminated [B] bool, truncated [B] bool. On one
          step at most one of the two flags is set, terminated taking precedence. Zeros and False for finished copies.

        Raises:
          ValueError: action has another shape.
        """
        action = np.asarray(action, np.float64)
        lead = (self.num_envs,) if self.spec.num_agents is None else (self.num_envs, self.spec.num_agents)
        if action.shape != (*lead, self.spec.action_dim):
            raise ValueError(f"action has shape {action.shape}; give {(*lead, self.spec.action_dim)}")
        scaled = self._low + 0.5 * (np.clip(action, -1.0, 1.0) + 1.0) * (self._high - self._low)
        obs = np.zeros((*lead, self.spec.obs_dim), np.float32)
        reward = np.zeros(lead, np.float32)
        terminated = np.zeros(self.num_envs, bool)
        truncated = np.zeros(self.num_envs, bool)
        for b in np.flatnonzero(~self.finished):
            obs[b], reward[b], terminated[b], truncated[b], _ = self._copies[b].step(scaled[b].astype(np.float32))
        truncated &= ~terminated
        self.finished |= terminated | truncated
        return obs, reward, terminated, truncated

    def close(self) -> None:
        """Frees the simulators."""
        for copy in self._copies:
            copy.close()


def make_host(name: str, num_envs: int, **options: Any) -> HostEnv:
    """B copies of a task of gymnasium's or PettingZoo's.

    Args:
      name: "gymnasium-" and a gymnasium id, such as "gymnasium-Hopper-v5"; or see `pettingzoo_env`.
      num_envs: B, at least 1.
      **options: of PettingZoo's environment; a gymnasium task takes none here.

    Raises:
      ImportError: gymnasium or PettingZoo is not installed; the message is the line that installs it.
      KeyError: the name has another beginning, or the library does not know the rest.
      ValueError: num_envs < 1, options that are refused, or the task's observation or action is not one bounded vector
        of floats, of every agent.
    """
    if not is_host(name):
        raise unknown_name("host environment", name, HOST_ENVS)
    if num_envs < 1:
        raise ValueError(f"num_envs={num_envs} must be at least 1")
    if is_pettingzoo(name):
        return HostEnv(*make_teams(name, num_envs, options))
    if options:
        raise ValueError(f"{name} takes no options, got {', '.join(options)}; leave them out.")
    task = name.removeprefix(PREFIX)
    try:
        import gymnasium
    except ImportError as error:
        raise ImportError(f'{name} needs gymnasium; install it with: pip install "jaxdiff[mujoco]"') from error
    if task not in gymnasium.registry:
        raise unknown_name("gymnasium task", task, [*REFERENCE_SCORES])
    with quiet_loading():
        first = gymnasium.make(task)
        spec = _spec_of(name, first)
        return HostEnv(spec, [first] + [gymnasium.make(task) for _ in range(num_envs - 1)])


def _spec_of(name: str, env: Any) -> Spec:
    """Checks both spaces and reads their sizes."""
    obs_shape, action_shape = env.observation_space.shape, env.action_space.shape
    if obs_shape is None or len(obs_shape) != 1:
        raise ValueError(f"{name} has observations {env.observation_space}; only one vector is supported")
    low, high = getattr(env.action_space, "low", np.inf), getattr(env.action_space, "high", np.inf)
    if action_shape is None or len(action_shape) != 1 or not np.isfinite([low, high]).all():
        raise ValueError(f"{name} has actions {env.action_space}; only one bounded vector of floats is supported")
    if env.spec.max_episode_steps is None:
        raise ValueError(f"{name} has no time limit; a task needs one to be evaluated")
    return Spec(
        name=name,
        obs_dim=obs_shape[0],
        action_dim=action_shape[0],
        max_episode_steps=env.spec.max_episode_steps,
        reference_scores=REFERENCE_SCORES.get(name.removeprefix(PREFIX)),
    )
