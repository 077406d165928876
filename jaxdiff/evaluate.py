"""Episodes of a policy: on device, in one program; or on a host simulator, one batched action call per step."""

from collections.abc import Callable
import functools
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.data import normalised_score
from jaxdiff.envs import HostEnv
from jaxdiff.types import Algorithm, Array, Env, Key, Plans, PyTree, Spec, TrainState, Trajectory, bound


@struct.dataclass
class Evaluation:
    """What M episodes of one member gave."""

    returns: Array  # [M] undiscounted
    lengths: Array  # [M] steps until the episode ended, its last step included
    recorded: Trajectory  # [R, H, ...] the first R episodes


def normalised_scores(returns: Any, spec: Spec) -> np.ndarray | None:
    """100 (return - random) / (expert - random), or None where the task has no reference scores.

    Reference: Fu et al. 2020, arXiv:2004.07219, section 4.
    """
    if spec.reference_scores is None:
        return None
    return normalised_score(np.asarray(returns), spec.reference_scores)


def make_rollout(
    algorithm: Algorithm, env: Env, num_episodes: int, *, num_recorded: int = 0
) -> Callable[[Key, TrainState], Evaluation]:
    """Builds the evaluation of one member: M episodes side by side, scanned to the task's time limit.

    The algorithm's action chunk [M, C, U] is executed open loop for C steps, then it acts again; its memory is
    threaded through. Reward after an episode's end does not count; with agents the return is the mean of theirs.

    Args:
      algorithm: whose `act` is evaluated.
      env: the task; bound to the member's hyperparameters and vmapped here.
      num_episodes: M >= 1.
      num_recorded: R, episodes whose observations, actions and rewards are kept for pictures.

    Returns:
      (key, state) -> Evaluation; consumes key.

    Raises:
      ValueError: num_episodes < 1 or num_recorded > num_episodes.
    """
    if num_episodes < 1 or num_recorded > num_episodes:
        raise ValueError(
            f"eval_episodes={num_episodes} and recorded episodes={num_recorded}; "
            "at least 1 episode is needed, and no more can be recorded than are run."
        )
    limit = env.spec.max_episode_steps

    def env_step(task: Env, carry: PyTree, action: Array) -> tuple[PyTree, tuple[Array, ...]]:
        env_state, obs, running = carry
        env_state, timestep = jax.vmap(task.step)(env_state, action)
        reward = jnp.where(running, timestep.reward.reshape(num_episodes, -1).mean(axis=1), 0.0)
        kept = (obs[:num_recorded], action[:num_recorded], reward[:num_recorded], running[:num_recorded])
        carry = (env_state, timestep.obs, running & ~(timestep.terminated | timestep.truncated))
        return carry, (reward, running, *kept)

    def rollout(key: Key, state: TrainState) -> Evaluation:
        key_reset, key_act = jax.random.split(key)
        task = bound(env, state)
        env_state, obs = jax.vmap(task.reset)(jax.random.split(key_reset, num_episodes))
        memory = algorithm.init_memory((num_episodes,))
        chunk_length = jax.eval_shape(algorithm.act, key, state, obs, memory)[0].shape[1]

        def act_and_step(carry: PyTree, k: Array) -> tuple[PyTree, tuple[Array, ...]]:
            inner, memory = carry
            action, memory = algorithm.act(jax.random.fold_in(key_act, k), state, inner[1], memory)
            inner, out = jax.lax.scan(functools.partial(env_step, task), inner, jnp.moveaxis(action, 1, 0))
            return (inner, memory), out

        start = ((env_state, obs, jnp.ones((num_episodes,), bool)), memory)
        _, out = jax.lax.scan(act_and_step, start, jnp.arange(-(-limit // chunk_length)))
        # [T / C, C, ...] -> [T, ...] -> episodes first
        out = jax.tree.map(lambda x: jnp.moveaxis(jax.lax.collapse(x, 0, 2)[:limit], 0, 1), out)
        reward, running, obs, action, recorded_reward, mask = out
        recorded = Trajectory(obs, action, recorded_reward, mask.astype(jnp.float32))
        return Evaluation(reward.sum(axis=1), running.sum(axis=1), recorded)

    return rollout


def make_host_rollout(
    algorithm: Algorithm, env: HostEnv, num_episodes: int, *, num_recorded: int = 0
) -> Callable[[Key, TrainState], Evaluation]:
    """As `make_rollout`, for a simulator that runs on the host with `num_episodes` copies side by side.

    The episodes' starts come from the key, so two members evaluated with one key face the same starts.
    """
    if env.num_envs != num_episodes:
        raise ValueError(f"the simulator runs {env.num_envs} copies, eval_episodes={num_episodes}; make them equal.")
    act = jax.jit(algorithm.act)

    def rollout(key: Key, state: TrainState) -> Evaluation:
        key_reset, key_act = jax.random.split(key)
        obs = env.reset(_host_seed(key_reset))
        memory = algorithm.init_memory((num_episodes,))
        running = np.ones(num_episodes, bool)
        rows: list[tuple[Any, ...]] = []
        while running.any() and len(rows) < env.spec.max_episode_steps:
            chunk, memory = act(jax.random.fold_in(key_act, len(rows)), state, obs, memory)
            for action in np.moveaxis(np.asarray(chunk), 1, 0):
                next_obs, reward, terminated, truncated = env.step(action)
                reward = reward.reshape(num_episodes, -1).mean(axis=1)
                rows.append((obs, action, np.where(running, reward, 0.0), running))
                obs, running = next_obs, running & ~(terminated | truncated)
        all_obs, all_action, reward, mask = (np.stack(column, axis=1) for column in zip(*rows, strict=True))
        kept = (all_obs[:num_recorded], all_action[:num_recorded], reward[:num_recorded], mask[:num_recorded])
        recorded = _pad(kept, env.spec.max_episode_steps)
        return Evaluation(reward.sum(axis=1), mask.sum(axis=1), recorded)  # type: ignore[arg-type]

    return rollout


def make_planning(
    algorithm: Algorithm, env: Env | HostEnv, num_episodes: int, *, num_planned: int
) -> Callable[[Key, TrainState], tuple[Array, Plans]]:
    """Builds the first decisions of the first P of M episodes, as plans.

    By the same key they are the plans that `make_rollout` and `make_host_rollout` carry out: the starts are the same,
    and what is drawn for M episodes begins with what is drawn for P.

    Args:
      algorithm: whose `plan` is asked.
      env: the task; a simulator on the host is reset.
      num_episodes: M.
      num_planned: P.

    Returns:
      (key, state) -> (obs [P, O], plans); consumes key.

    Raises:
      ValueError: P out of range, or an algorithm without plans.
    """
    if algorithm.plan is None or not 1 <= num_planned <= num_episodes:
        raise ValueError(
            f"plans of {num_planned} of {num_episodes} episodes by an algorithm that "
            f"{'plans nothing' if algorithm.plan is None else 'plans'}; at least 1 and at most all, by a planner."
        )
    plan = jax.jit(algorithm.plan)

    @jax.jit
    def starts(key: Key, state: TrainState) -> Array:
        assert not isinstance(env, HostEnv)
        return jax.vmap(bound(env, state).reset)(jax.random.split(key, num_episodes)[:num_planned])[1]

    def planning(key: Key, state: TrainState) -> tuple[Array, Plans]:
        key_reset, key_act = jax.random.split(key)
        if isinstance(env, HostEnv):
            obs = jnp.asarray(env.reset(_host_seed(key_reset))[:num_planned])
        else:
            obs = starts(key_reset, state)
        return obs, plan(jax.random.fold_in(key_act, 0), state, obs)

    return planning


def _host_seed(key: Key) -> int:
    return int(jax.random.randint(key, (), 0, 2**31 - 1))


def _pad(columns: tuple[np.ndarray, ...], length: int) -> Trajectory:
    """A trajectory padded (or cut) to `length` steps with zeros, so that evaluations of different lengths stack."""

    def pad(x: np.ndarray) -> Any:
        x = x[:, :length].astype(np.float32)
        return np.pad(x, [(0, 0), (0, length - x.shape[1])] + [(0, 0)] * (x.ndim - 2))

    return Trajectory(*map(pad, columns))
