"""From plans to actions: when a planner plans anew, what it starts from, and how a plan is followed.

control   actions: a_t as planned;   pd: (p_{k+1} - p) + (v_{k+1} - v), towards the next planned position and velocity;
          inverse: f(s, s_{k+1}), the learned inverse dynamics, from where the agent is
period    plan anew every `replan_period` steps; 0: once per episode. Past the plan's end pd rests at its last position,
          inverse heads for its last observation, and actions are 0
warm      a plan that replaces another may start from it: shifted, noised half way, and denoised by `warm_calls` calls

Every episode of a batch is at the same step, so the memory holds one clock: under vmap over lanes its conditions stay
conditions, and nothing is planned in vain.

Reference: pd: Janner et al. 2022, arXiv:2205.09991, code; warm starts: section 5.4 there, and Ajay et al. 2023,
arXiv:2211.15657; inverse dynamics: the latter.
"""

from collections.abc import Callable
import dataclasses
from typing import NamedTuple

from flax import struct
import jax
import jax.numpy as jnp

from jaxdiff.algorithms.contracts import check_obs
from jaxdiff.algorithms.search import SearchConfig
from jaxdiff.suggest import unknown_name
from jaxdiff.types import Array, Key, Plans, PyTree, Spec, TrainState

CONTROLS = ("actions", "inverse", "pd")


@dataclasses.dataclass(frozen=True)
class ActConfig:
    """Static choices of how plans are made and followed while acting."""

    control: str = "actions"  # one of CONTROLS
    replan_period: int = 1  # steps between plans; 0: one plan per episode
    warm_calls: int = 0  # network calls of a plan that starts from the last one; 0: every plan starts from noise
    search: SearchConfig = SearchConfig()


class Present(NamedTuple):
    """What a planner is shown."""

    past: Array  # [*B, h, O] the last observations, the present one last
    known: Array  # [] int32, how many of them there are, 1 .. h
    goal: Array | None  # [*B, O] the observation to arrive at


class Proposal(NamedTuple):
    """Plans in both units, best first; tokens before the present one are history."""

    x: Array  # [*B, N, H, D]
    value: Array  # [*B, N]
    obs: Array  # [*B, N, H, O]
    action: Array  # [*B, N, H, U]
    path: Array  # [K + 1, *B, H, O]


# (key, state, present, the last plan's x [*B, H, D] or None) -> Proposal
Propose = Callable[[Key, TrainState, Present, Array | None], Proposal]
Towards = Callable[[TrainState, Array, Array], Array]  # (state, obs [*B, O], next_obs [*B, O]) -> action [*B, U]


@struct.dataclass
class Memory:
    """What following a plan remembers."""

    past: Array  # [*B, h, O]
    count: Array  # [] int32 observations in it
    since: Array  # [] int32 steps since the plan was made; -1 before the first
    x: Array  # [*B, H, D] the plan in the network's units
    obs: Array  # [*B, H, O] from the step it was made at
    action: Array  # [*B, H, U]


class Acting(NamedTuple):
    """A planner's `act`, `init_memory` and `plan`."""

    act: Callable[[Key, TrainState, Array, PyTree], tuple[Array, PyTree]]
    init_memory: Callable[[tuple[int, ...]], Memory]
    plan: Callable[[Key, TrainState, Array], Plans]


def check_acting(config: ActConfig, spec: Spec, *, inverse: bool, history: int = 1) -> None:
    """Refuses a way of acting that the planner or the task does not offer.

    Raises:
      KeyError: an unknown control.
      ValueError: a number out of range; pd without positions and velocities; a control the planner cannot give.
    """
    if config.control not in CONTROLS:
        raise unknown_name("control", config.control, CONTROLS)
    if config.replan_period < 0 or config.warm_calls < 0:
        raise ValueError(
            f"act.replan_period={config.replan_period} and act.warm_calls={config.warm_calls}; both must be at least 0."
        )
    state_dim = spec.obs_dim - spec.goal_dim
    if config.control == "pd" and state_dim != 2 * spec.action_dim:
        raise ValueError(
            f"act.control='pd' steers by positions and velocities, {2 * spec.action_dim} numbers for the "
            f"{spec.action_dim} actions of {spec.name}, whose observation has {state_dim}; choose another control."
        )
    if config.control == "inverse" and not inverse:
        raise ValueError("act.control='inverse' needs inverse dynamics, which this planner does not learn.")
    if config.warm_calls and (config.replan_period == 0 or history > 1):
        raise ValueError(
            f"act.warm_calls={config.warm_calls} with replan_period={config.replan_period} and history={history}; a "
            "warm start needs plans that are made again (replan_period >= 1) and no history."
        )


def goal_of(obs: Array, spec: Spec) -> Array | None:
    """The observation to arrive at [*B, O], at rest where velocities follow positions; None where a task has none."""
    state_dim = spec.obs_dim - spec.goal_dim
    if spec.goal_dim:
        rest = jnp.zeros((*obs.shape[:-1], state_dim - spec.goal_dim))
        return jnp.concatenate([obs[..., state_dim:], rest], axis=-1)
    if spec.goal is None:
        return None
    return jnp.broadcast_to(jnp.asarray(spec.goal), (*obs.shape[:-1], state_dim))


def make_acting(
    config: ActConfig,
    spec: Spec,
    propose: Propose,
    towards: Towards | None,
    *,
    horizon: int,
    dim: int,
    history: int = 1,
    fill_history: bool = False,
) -> Acting:
    """Builds `act`, `init_memory` and `plan` of a planner.

    Args:
      config: how to act.
      spec: the task.
      propose: the planner.
      towards: its inverse dynamics; None: it has none.
      horizon: H.
      dim: D, numbers of a token.
      history: h, observations that a plan begins with once there are so many.
      fill_history: a plan always begins with h observations: before the episode's start its first one.

    Raises:
      As `check_acting`.
    """
    check_acting(config, spec, inverse=towards is not None, history=history)
    state_dim = spec.obs_dim - spec.goal_dim

    def init_memory(batch_shape: tuple[int, ...]) -> Memory:
        return Memory(
            past=jnp.zeros((*batch_shape, history, state_dim)),
            count=jnp.zeros((), jnp.int32),
            since=-jnp.ones((), jnp.int32),
            x=jnp.zeros((*batch_shape, horizon, dim)),
            obs=jnp.zeros((*batch_shape, horizon, state_dim)),
            action=jnp.zeros((*batch_shape, horizon, spec.action_dim)),
        )

    def observe(memory: Memory, obs: Array) -> Memory:
        newest = jnp.expand_dims(obs[..., :state_dim], -2)
        past = jnp.concatenate([memory.past[..., 1:, :], newest], axis=-2)
        if fill_history:
            past = jnp.where(memory.count == 0, jnp.broadcast_to(newest, past.shape), past)
        since = jnp.where(memory.since < 0, memory.since, memory.since + 1)
        count = jnp.int32(history) if fill_history else jnp.minimum(memory.count + 1, history)
        return memory.replace(past=past, count=count, since=since)  # type: ignore[attr-defined,no-any-return]

    def anew(key: Key, state: TrainState, memory: Memory, goal: Array | None, last: Array | None) -> Memory:
        found = propose(key, state, Present(memory.past, memory.count, goal), last)
        ahead = jnp.minimum(jnp.arange(horizon) + memory.count - 1, horizon - 1)  # from the present on
        return memory.replace(  # type: ignore[attr-defined,no-any-return]
            since=jnp.zeros((), jnp.int32),
            x=found.x[..., 0, :, :],
            obs=found.obs[..., 0, :, :][..., ahead, :],
            action=found.action[..., 0, :, :][..., ahead, :],
        )

    def replan(key: Key, state: TrainState, memory: Memory, goal: Array | None) -> Memory:
        def fresh(memory: Memory) -> Memory:
            return anew(key, state, memory, goal, None)

        def warm(memory: Memory) -> Memory:
            later = jnp.minimum(jnp.arange(horizon) + memory.since, horizon - 1)
            return anew(key, state, memory, goal, memory.x[..., later, :])

        if config.replan_period == 1 and not config.warm_calls:
            return fresh(memory)
        first = memory.since < 0
        due = first | (memory.since >= config.replan_period) if config.replan_period else first
        if not config.warm_calls:
            return jax.lax.cond(due, fresh, lambda memory: memory, memory)  # type: ignore[no-any-return]
        choice = jnp.where(first, 1, jnp.where(due, 2, 0))
        return jax.lax.switch(choice, [lambda memory: memory, fresh, warm], memory)  # type: ignore[no-any-return]

    def act(key: Key, state: TrainState, obs: Array, memory: Memory) -> tuple[Array, Memory]:
        check_obs(obs, spec)
        memory = replan(key, state, observe(memory, obs), goal_of(obs, spec))
        action = follow(config.control, state, obs[..., :state_dim], memory, towards)
        return jnp.expand_dims(jnp.clip(action, -1.0, 1.0), -2), memory

    def plan(key: Key, state: TrainState, obs: Array) -> Plans:
        check_obs(obs, spec)
        memory = observe(init_memory(obs.shape[:-1]), obs)
        found = propose(key, state, Present(memory.past, memory.count, goal_of(obs, spec)), None)
        return Plans(found.obs, jnp.clip(found.action, -1.0, 1.0), found.value, found.path)

    return Acting(act, init_memory, plan)


def follow(control: str, state: TrainState, obs: Array, memory: Memory, towards: Towards | None) -> Array:
    """The action [*B, U] that follows the remembered plan from obs [*B, O]."""
    horizon, width = memory.obs.shape[-2], memory.action.shape[-1]
    if control == "actions":
        return jnp.where(memory.since < horizon, memory.action[..., jnp.minimum(memory.since, horizon - 1), :], 0.0)
    waypoint = memory.obs[..., jnp.minimum(memory.since + 1, horizon - 1), :]
    if control == "inverse":
        assert towards is not None  # see check_acting
        return towards(state, obs, waypoint)
    velocity = jnp.where(memory.since + 1 < horizon, waypoint[..., width:], 0.0)
    return (waypoint[..., :width] - obs[..., :width]) + (velocity - obs[..., width:])
