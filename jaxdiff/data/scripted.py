"""Whole episodes of behaviours that see the state of the environment and replace some of their actions by others."""

from collections.abc import Callable
import functools
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.data.columns import Columns
from jaxdiff.types import Array, Env, Key, PyTree


class Policy(Protocol):
    """Who acts; unbatched. `jaxdiff.envs.mpe.Behaviour` is one."""

    @property
    def init(self) -> Callable[[Any], PyTree]: ...  # env_state -> memory

    @property
    def act(self) -> Callable[[Key, PyTree, Any], tuple[Array, PyTree]]: ...  # (key, memory, env_state)


def generate(key: Key, env: Env, policy_of: Callable[[Array], Policy], noise: np.ndarray, num_steps: int) -> Columns:
    """Plays one episode for each number in `noise`, side by side, and lays them end to end in that order.

    Args:
      key: consumed.
      env: a task that never terminates.
      policy_of: noise [] -> who acts at that noise; traced. Compiled once per env and policy_of, as objects.
      noise: [E], E = ceil(num_steps / max_episode_steps).
      num_steps: N rows, at least 2; the last episode is cut there.

    Returns:
      Columns of N rows, with agents where the task has some: true next_obs, a time limit at the last row of every
      episode, extras "infos/noise" [N].

    Raises:
      ValueError: fewer than 2 rows, or another number of episodes than they fill.
    """
    horizon = env.spec.max_episode_steps
    num_episodes = -(-num_steps // horizon)
    if num_steps < 2:
        raise ValueError(f"num_steps={num_steps} must be at least 2; 200000 is usual.")
    if np.shape(noise) != (num_episodes,):
        raise ValueError(f"noise has shape {np.shape(noise)}; {num_steps} rows need {num_episodes} numbers in it.")
    play = _player(env.reset, env.step, policy_of, horizon)
    played = play(jax.random.split(key, num_episodes), jnp.asarray(noise, jnp.float32))
    obs, action, reward, next_obs = (np.asarray(x).reshape(-1, *x.shape[2:])[:num_steps] for x in played)
    truncated = np.arange(1, num_steps + 1) % horizon == 0
    truncated[-1] = True
    return Columns(
        obs=obs,
        action=action,
        reward=reward,
        terminated=np.zeros(reward.shape, bool),
        truncated=truncated,
        next_obs=next_obs,
        extras={"infos/noise": np.repeat(np.asarray(noise, np.float32), horizon)[:num_steps]},
    )


@functools.lru_cache(maxsize=16)
def _player(
    reset: Callable[[Key], Any], step: Callable[[Any, Array], Any], policy_of: Callable[[Array], Policy], horizon: int
) -> Callable[[Key, Array], tuple[Array, Array, Array, Array]]:
    """(keys [E], noise [E]) -> obs [E, H, ...], action [E, H, ...], reward [E, H, ...], obs after each step."""

    def episode(key: Key, noise: Array) -> tuple[Array, Array, Array, Array]:
        policy = policy_of(noise)
        key_reset, key_actions = jax.random.split(key)
        state, obs = reset(key_reset)

        def one(carry: tuple[PyTree, Array, PyTree], key: Key) -> tuple[Any, tuple[Array, Array, Array, Array]]:
            state, obs, memory = carry
            action, memory = policy.act(key, memory, state)
            state, timestep = step(state, action)
            return (state, timestep.obs, memory), (obs, action, timestep.reward, timestep.obs)

        keys = jax.random.split(key_actions, horizon)
        return jax.lax.scan(one, (state, obs, policy.init(state)), keys)[1]

    return jax.jit(jax.vmap(episode))
