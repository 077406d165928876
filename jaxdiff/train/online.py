"""The online loop of one lane: act in environments, remember, update, all inside one program.

One iteration steps every environment once, writes what happened into the replay buffer and takes `updates_per_step`
updates on batches from it. Iterations are what chunks, evaluations and checkpoints count.
"""

import dataclasses
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from jaxdiff.data.replay import Replay, extend, init_replay, sample_replay
from jaxdiff.envs import auto_reset
from jaxdiff.train.lanes import Chunk, Lane, average, init_lane, is_finite, keep
from jaxdiff.types import Algorithm, Array, Env, Key, Metrics, PyTree, Transition, bound

ENV_STREAM = 2**32 - 2  # separates the key of the first resets from those of the iterations, which stay below 2**31


@dataclasses.dataclass(frozen=True)
class OnlineConfig:
    """Static choices of the loop."""

    num_envs: int = 8  # environments side by side, each one step per iteration
    updates_per_step: int = 1  # updates per iteration; per environment step the ratio is this over num_envs
    replay_capacity: int = 100_000
    warmup: int = 1000  # transitions lived with uniformly random actions before the first update


@struct.dataclass
class Experience:
    """What a lane has lived: everything an exact resume needs."""

    iteration: Array  # [] int32
    env_state: PyTree  # [E, ...]
    obs: Array  # [E, O] or [E, A, O]
    memory: PyTree  # [E, ...] of the algorithm
    replay: Replay
    running_return: Array  # [E] of the episodes under way, with agents the mean of theirs
    last_return: Array  # [E] of the newest whole episode of each environment, NaN before the first


def _check(config: OnlineConfig, algorithm: Algorithm) -> None:
    for field in dataclasses.fields(config):
        if getattr(config, field.name) < (0 if field.name == "warmup" else 1):
            raise ValueError(f"online.{field.name}={getattr(config, field.name)}; it must be at least 1 (warmup: 0).")
    if algorithm.window is not None:
        raise ValueError("the online loop trains on single transitions; set history=1 and action_chunk=1.")


def init_online_lane(algorithm: Algorithm, env: Env, config: OnlineConfig, hparams: Any, seed: Array) -> Lane:
    """A lane before its first iteration, its environments freshly reset. Arguments as `init_lane` and the loop's.

    Raises:
      ValueError: a size below 1, or an algorithm of histories or chunks.
    """
    _check(config, algorithm)
    lane = init_lane(algorithm, hparams, seed)
    keys = jax.random.split(jax.random.fold_in(lane.key, ENV_STREAM), config.num_envs)
    env_state, obs = jax.vmap(auto_reset(bound(env, lane.state)).reset)(keys)
    zeros = jnp.zeros(config.num_envs)
    experience = Experience(
        jnp.zeros((), jnp.int32),
        env_state,
        obs,
        algorithm.init_memory((config.num_envs,)),
        init_replay(config.replay_capacity, env.spec),
        zeros,
        jnp.full_like(zeros, jnp.nan),
    )
    return lane.replace(experience=experience)  # type: ignore[attr-defined, no-any-return]


def make_online_chunk(algorithm: Algorithm, env: Env, batch_size: int, config: OnlineConfig) -> Chunk:
    """Builds the function that takes a lane through num_iterations iterations.

    The number is traced, and iteration k draws all its noise from fold_in(lane.key, k): 100 + 100 iterations equal 200
    bit for bit, the environments' states included. A non-finite update is thrown away and freezes the lane's
    parameters; its environments go on, which changes nothing any more.

    Args:
      algorithm: acts by `explore` where it has one, else by `act`; learns from single transitions.
      env: the task, with agents or without; bound to the lane's hyperparameters, vmapped and reset automatically here.
      batch_size: B, transitions per update.
      config: the loop's static choices.

    Returns:
      (lane, num_iterations [] int32, dataset) -> (lane, metrics averaged over the accepted iterations); the dataset is
      not used.

    Raises:
      ValueError: a size below 1, or an algorithm of histories or chunks.
    """
    _check(config, algorithm)
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}; it must be at least 1.")
    explore = algorithm.explore or algorithm.act

    def live(key: Key, lane: Lane, seen: Experience) -> Experience:
        key_act, key_random = jax.random.split(key)
        chosen, memory = explore(key_act, lane.state, seen.obs, seen.memory)
        action = chosen[:, 0]
        random = jax.random.uniform(key_random, action.shape, minval=-1.0, maxval=1.0)
        action = jnp.where(seen.replay.size < config.warmup, random, action)
        env_state, out = jax.vmap(auto_reset(bound(env, lane.state)).step)(seen.env_state, action)
        ended = out.terminated | out.truncated
        discount = jnp.broadcast_to(like(1.0 - out.terminated.astype(jnp.float32), out.reward), out.reward.shape)
        lived = Transition(seen.obs, action, out.reward, discount, env_state.next_obs)
        total = seen.running_return + out.reward.reshape(config.num_envs, -1).mean(axis=1)
        fresh = algorithm.init_memory((config.num_envs,))
        return Experience(
            seen.iteration + 1,
            env_state,
            out.obs,
            jax.tree.map(lambda new, old: jnp.where(like(ended, old), new, old), fresh, memory),
            extend(seen.replay, lived),
            jnp.where(ended, 0.0, total),
            jnp.where(ended, total, seen.last_return),
        )

    def learn(key: Key, lane: Lane, replay: Replay) -> tuple[Lane, Metrics, Array]:
        def update(carry: tuple[Lane, Array]) -> tuple[Any, Metrics, Array]:
            lane, k = carry
            key_batch, key_update = jax.random.split(jax.random.fold_in(key, k))
            batch = sample_replay(key_batch, replay, batch_size)
            state, metrics = algorithm.update(key_update, lane.state, batch)
            fine = is_finite(state, metrics)
            state = keep(lane.alive & ready & fine, state, lane.state)
            alive = lane.alive & (fine | ~ready)
            return (lane.replace(state=state, alive=alive), k + 1), metrics, jnp.ones((), bool)  # type: ignore[attr-defined]

        ready = replay.size >= max(config.warmup, 1)
        (lane, _), metrics = average(update, (lane, jnp.zeros((), jnp.int32)), jnp.int32(config.updates_per_step))
        return lane, metrics, lane.alive & ready

    def iterate(lane: Lane) -> tuple[Lane, Metrics, Array]:
        key_live, key_learn = jax.random.split(jax.random.fold_in(lane.key, lane.experience.iteration))
        seen = live(key_live, lane, lane.experience)
        lane, metrics, accept = learn(key_learn, lane, seen.replay)
        return lane.replace(experience=seen), metrics, accept  # type: ignore[attr-defined]

    def chunk(lane: Lane, num_iterations: Array, dataset: Any) -> tuple[Lane, Metrics]:
        del dataset
        lane, metrics = average(iterate, lane, num_iterations)
        return lane, {**metrics, "train_return": jnp.nanmean(lane.experience.last_return)}

    return chunk


def like(flag: Array, leaf: Array) -> Array:
    """flag [E] with the axes of leaf [E, ...]."""
    return flag.reshape(flag.shape + (1,) * (leaf.ndim - 1))
