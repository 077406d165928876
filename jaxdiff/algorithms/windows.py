"""Observation histories and action chunks for any algorithm, as a wrapper: `make` on a longer observation and action.

With a history of h observations and chunks of C actions an algorithm sees a task whose observation is h O numbers,
whose action is C U, and one of whose steps takes C:

reward  sum_{i < n} gamma**i r_i,    discount  gamma**(n - 1) (1 - terminated),    n <= C steps until the episode's end

so its target r + gamma discount V(s') is the n-step one. It acts once every C steps, open loop in between, and its
memory holds the observations of its own last h decisions.

Reference: chunks: Chi et al. 2023, arXiv:2303.04137; their value targets: Li et al. 2025, arXiv:2507.07969.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from jaxdiff.data import Window, Windows
from jaxdiff.types import Algorithm, Array, Key, Metrics, PyTree, Rollout, Spec, TrainState, Transition


@struct.dataclass
class Memory:
    """What acting with a history remembers."""

    inner: PyTree  # the algorithm's own
    past: Array  # [*B, h, O] observations of the last h decisions, newest last
    started: Array  # [*B] bool: a decision has been made in this episode


def windowed(make: Callable[[Any, Spec], Algorithm], config: Any, spec: Spec, window: Window) -> Algorithm:
    """The algorithm of `make(config, spec)` on histories and chunks; itself where both are 1.

    Args:
      make: an algorithm module's `make`.
      config: its Config.
      spec: the task's own sizes.
      window: history and chunk, each at least 1.

    Returns:
      Algorithm whose `window` says which batches its update takes: `data.Windows` unless both numbers are 1.

    Raises:
      ValueError: a number below 1, an algorithm with windows of its own, and what `make` raises.
    """
    if window.history < 1 or window.chunk < 1:
        raise ValueError(f"history={window.history} and action_chunk={window.chunk}; both must be at least 1.")
    if window == Window():
        return make(config, spec)
    history, chunk = window
    wide = dataclasses.replace(
        spec, obs_dim=history * spec.obs_dim, action_dim=chunk * spec.action_dim, history=history
    )
    inner = make(config, wide)
    if inner.window is not None:
        raise ValueError(
            f"history={history} and action_chunk={chunk}; a planner cuts stretches of its own out of the data: "
            "leave both at 1, and see model.planner.horizon, model.history and model.act.replan_period."
        )

    def update(key: Key, state: TrainState, batch: Windows | Rollout) -> tuple[TrainState, Metrics]:
        factor = getattr(state.hparams, "discount_factor", jnp.ones(()))  # cloning has none
        if isinstance(batch, Rollout):
            folded = jax.vmap(fold, (0, None))(batch.batch, factor)
            return inner.update(key, state, batch.replace(batch=folded))  # type: ignore[attr-defined]
        return inner.update(key, state, fold(batch, factor))

    def act(key: Key, state: TrainState, obs: Array, memory: Memory) -> tuple[Array, Memory]:
        newest = jnp.expand_dims(obs, -2)
        moved = jnp.concatenate([memory.past[..., 1:, :], newest], axis=-2)
        started = memory.started[..., None, None]
        past = jnp.where(started, moved, jnp.broadcast_to(newest, moved.shape))
        action, own = inner.act(key, state, past.reshape(*obs.shape[:-1], -1), memory.inner)
        actions = action.reshape(*obs.shape[:-1], chunk, spec.action_dim)
        return actions, Memory(own, past, jnp.ones_like(memory.started))

    def init_memory(batch_shape: tuple[int, ...]) -> Memory:
        past = jnp.zeros((*batch_shape, history, spec.obs_dim))
        return Memory(inner.init_memory(batch_shape), past, jnp.zeros(batch_shape, bool))

    def decide(key: Key, state: TrainState, past: Array) -> tuple[Array, PyTree]:
        assert inner.decide is not None
        action, record = inner.decide(key, state, past.reshape(*past.shape[:-2], -1))
        return action.reshape(*past.shape[:-2], chunk, spec.action_dim), record

    return Algorithm(inner.init, update, act, init_memory, window, decide=decide if inner.decide else None)


def fold(batch: Windows, discount_factor: Array) -> Transition:
    """Windows as transitions of the longer task."""
    steps = jnp.arange(batch.reward.shape[1])
    reward = jnp.sum(batch.reward * (discount_factor ** steps.astype(jnp.float32))[None], axis=1)
    discount = batch.discount * discount_factor ** (batch.length - 1).astype(jnp.float32)
    obs, action, next_obs = (jax.lax.collapse(x, 1, 3) for x in (batch.obs, batch.action, batch.next_obs))
    return Transition(obs, action, reward, discount, next_obs)
