"""The on-policy loop of one lane: the newest policy acts for a while, learns from just that, and forgets it.

One iteration takes `rollout_length` decisions in every environment and one update of the algorithm on them. Iterations
are what chunks, evaluations and checkpoints count.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

from flax import struct
import jax
import jax.numpy as jnp

from jaxdiff.data import Window, Windows
from jaxdiff.train.lanes import Chunk, Lane, average, init_lane, is_finite, keep
from jaxdiff.train.online import ENV_STREAM, like
from jaxdiff.types import Algorithm, Array, Env, Key, Metrics, PyTree, Rollout, TrainState, Transition, bound


@dataclasses.dataclass(frozen=True)
class OnPolicyConfig:
    """Static choices of the loop."""

    num_envs: int = 32  # environments side by side
    rollout_length: int = 64  # decisions of each per update; a decision on a chunk of C actions takes C steps


@struct.dataclass
class Play:
    """Where the environments of a lane stand: everything an exact resume needs."""

    iteration: Array  # [] int32
    env_state: PyTree  # [E, ...]
    past: Array  # [E, h, O] observations of the last h decisions and now, newest last
    running_return: Array  # [E] of the episodes under way
    last_return: Array  # [E] of the newest whole episode of each environment, NaN before the first


class _Seen(NamedTuple):
    """Inside a chunk of actions."""

    env_state: PyTree
    obs: Array  # [E, O] the last one of the episode where it has ended
    running: Array  # [E] bool
    terminated: Array  # [E] bool
    reward: Array  # [E] undiscounted, of the chunk so far


def _check(config: OnPolicyConfig, algorithm: Algorithm) -> None:
    if algorithm.decide is None:
        raise ValueError("this algorithm learns from any data; the on-policy loop needs one with `decide`.")
    for field in dataclasses.fields(config):
        if getattr(config, field.name) < 1:
            raise ValueError(f"online.{field.name}={getattr(config, field.name)}; it must be at least 1.")


def init_on_policy_lane(algorithm: Algorithm, env: Env, config: OnPolicyConfig, hparams: Any, seed: Array) -> Lane:
    """A lane before its first iteration, its environments freshly reset. Arguments as `init_lane` and the loop's.

    Raises:
      ValueError: a size below 1, or an algorithm that does not `decide`.
    """
    _check(config, algorithm)
    lane = init_lane(algorithm, hparams, seed)
    keys = jax.random.split(jax.random.fold_in(lane.key, ENV_STREAM), config.num_envs)
    env_state, obs = jax.vmap(bound(env, lane.state).reset)(keys)
    history = (algorithm.window or Window()).history
    past = jnp.repeat(obs[:, None], history, axis=1)
    zeros = jnp.zeros(config.num_envs)
    play = Play(jnp.zeros((), jnp.int32), env_state, past, zeros, jnp.full_like(zeros, jnp.nan))
    return lane.replace(experience=play)  # type: ignore[attr-defined,no-any-return]


def make_on_policy_chunk(algorithm: Algorithm, env: Env, config: OnPolicyConfig) -> Chunk:
    """Builds the function that takes a lane through num_iterations iterations.

    The number is traced, and iteration k draws all its noise from fold_in(lane.key, k): 100 + 100 iterations equal 200
    bit for bit, the environments' states included. A non-finite update is thrown away and freezes the lane's
    parameters; its environments go on, which changes nothing any more.

    An episode that ends within a chunk of actions leaves the rest of the chunk out: its reward does not count, and the
    next decision is made in a fresh episode.

    Args:
      algorithm: one that can `decide`.
      env: the task; bound to the lane's hyperparameters, vmapped and reset here.
      config: the loop's static choices.

    Returns:
      (lane, num_iterations [] int32, dataset) -> (lane, metrics averaged over the accepted iterations); the dataset is
      not used.

    Raises:
      ValueError: a size below 1, or an algorithm that does not `decide`.
    """
    _check(config, algorithm)
    decide: Any = algorithm.decide
    window = algorithm.window or Window()

    def env_step(task: Env, seen: _Seen, action: Array) -> tuple[_Seen, tuple[Array, Array]]:
        env_state, out = jax.vmap(task.step)(seen.env_state, action)
        reward = jnp.where(seen.running, out.reward, 0.0)
        obs = jnp.where(like(seen.running, out.obs), out.obs, seen.obs)
        terminated = seen.terminated | (seen.running & out.terminated)
        running = seen.running & ~(out.terminated | out.truncated)
        return _Seen(env_state, obs, running, terminated, seen.reward + reward), (reward, seen.running)

    def decision(state: TrainState, play: Play, key: Key) -> tuple[Play, Rollout]:
        task, (key_decide, key_reset) = bound(env, state), jax.random.split(key)
        shown = play.past if algorithm.window is not None else play.past[:, -1]
        action, record = decide(key_decide, state, shown)
        yes, no = (jnp.full(config.num_envs, flag) for flag in (True, False))
        start = _Seen(play.env_state, play.past[:, -1], yes, no, jnp.zeros(config.num_envs))
        seen, (reward, lived) = jax.lax.scan(functools.partial(env_step, task), start, jnp.moveaxis(action, 1, 0))
        next_past = jnp.concatenate([play.past[:, 1:], seen.obs[:, None]], axis=1)
        windows = Windows(
            obs=play.past,
            action=action,
            reward=jnp.moveaxis(reward, 0, 1),
            length=jnp.sum(lived, axis=0, dtype=jnp.int32),
            discount=1.0 - seen.terminated.astype(jnp.float32),
            next_obs=next_past,
        )
        ended = ~seen.running
        rollout = Rollout(windows if algorithm.window is not None else _single(windows), ended, record)
        fresh_state, fresh_obs = jax.vmap(task.reset)(jax.random.split(key_reset, config.num_envs))
        fresh = fresh_state, jnp.repeat(fresh_obs[:, None], window.history, axis=1)
        env_state, past = jax.tree.map(
            lambda new, old: jnp.where(like(ended, old), new, old), fresh, (seen.env_state, next_past)
        )
        total = play.running_return + seen.reward
        last = jnp.where(ended, total, play.last_return)
        return Play(play.iteration, env_state, past, jnp.where(ended, 0.0, total), last), rollout

    def iterate(lane: Lane) -> tuple[Lane, Metrics, Array]:
        play: Play = lane.experience
        key_play, key_learn = jax.random.split(jax.random.fold_in(lane.key, play.iteration))
        keys = jax.random.split(key_play, config.rollout_length)
        play, rollout = jax.lax.scan(lambda p, key: decision(lane.state, p, key), play, keys)
        state, metrics = algorithm.update(key_learn, lane.state, rollout)
        accept = lane.alive & is_finite(state, metrics)
        state, play = keep(accept, state, lane.state), play.replace(iteration=play.iteration + 1)  # type: ignore[attr-defined]
        return lane.replace(state=state, alive=accept, experience=play), metrics, accept  # type: ignore[attr-defined]

    def chunk(lane: Lane, num_iterations: Array, dataset: Any) -> tuple[Lane, Metrics]:
        del dataset
        lane, metrics = average(iterate, lane, num_iterations)
        return lane, {**metrics, "train_return": jnp.nanmean(lane.experience.last_return)}

    return chunk


def _single(windows: Windows) -> Transition:
    """Windows of one observation and one action as transitions."""
    return Transition(
        windows.obs[:, 0], windows.action[:, 0], windows.reward[:, 0], windows.discount, windows.next_obs[:, 0]
    )
