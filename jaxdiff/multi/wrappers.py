"""Any single-agent method for tasks with agents: `make(config, spec)` on obs [*B, A, O] and action [*B, A, U].

independent   A copies with parameters of their own [A, ...], each trained on its own rows: pi_i(a_i | o_i; theta_i)
shared        one set of parameters for all, told who acts by a one-hot id: pi(a_i | o_i, i; theta)
joint         one big agent of A O and A U numbers, which acts for all: pi(a_1 .. a_A | o_1 .. o_A; theta)

The first two execute decentrally: with keys fixed, an agent's action does not change with what others observe. So the
team's actions are independent given the observations, and a choice that must be made together (turn left both, or right
both) is not representable, unless `shared_noise` lets all agents draw the same numbers: common randomness, which
decentralised agents may have agreed upon beforehand. `joint` has no such limit, and needs everyone's observation.

Rewards: independent and shared agents learn from their own, or the team's; the big agent from the mean.
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff.multi.batches import fold, fold_dataset, side_by_side, split, split_dataset
from jaxdiff.multi.teams import apart, as_one, noise_keys, team_size, together, with_id
from jaxdiff.suggest import unknown_name
from jaxdiff.types import Algorithm, Array, Key, Metrics, PyTree, Spec, TrainState

Make = Callable[[Any, Spec], Algorithm]

STACKED = TrainState(step=None, params=0, target_params=0, opt_state=0, hparams=None)  # type: ignore[arg-type]


def independent(make: Make, config: Any, spec: Spec, *, shared_noise: bool = False) -> Algorithm:
    """A copies of a method, side by side under one vmap; hyperparameters and the count of updates are one for all.

    Args:
      make: an algorithm module's `make`.
      config: its Config.
      spec: a task with A agents.
      shared_noise: all agents draw the same noise while acting.

    Raises:
      ValueError: a task without agents, a method that must decide for itself, and what `make` raises.
    """
    num_agents = team_size(spec)
    inner = _inner(make, config, dataclasses.replace(spec, num_agents=None))
    stacked = jax.vmap(inner.update, (0, STACKED, 0), (STACKED, 0))

    def init(key: Key, hparams: Any) -> TrainState:
        return jax.vmap(inner.init, (0, None), STACKED)(jax.random.split(key, num_agents), hparams)

    def update(key: Key, state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        state, metrics = stacked(jax.random.split(key, num_agents), state, split(batch, num_agents))
        return state, jax.tree.map(jnp.mean, metrics)

    def act(key: Key, state: TrainState, obs: Array, memory: PyTree) -> tuple[Array, PyTree]:
        def one(args: tuple[Key, TrainState, Array, PyTree]) -> tuple[Array, PyTree]:
            return inner.act(*args)

        copies = jax.tree.map(lambda x: jnp.broadcast_to(x, (num_agents, *x.shape)), (state.step, state.hparams))
        each = state.replace(step=copies[0], hparams=copies[1])  # type: ignore[attr-defined]
        keys = noise_keys(key, num_agents, shared=shared_noise)
        action, memory = _over_agents(inner, one)((keys, each, jnp.moveaxis(obs, -2, 0), memory))
        return jnp.moveaxis(action, 0, -2), memory

    def fit(state: TrainState, dataset: Any) -> TrainState:
        assert inner.fit is not None
        return jax.vmap(inner.fit, (STACKED, 0), STACKED)(state, split_dataset(dataset, num_agents))

    return _outer(inner, init, update, act, _stacked_memory(inner, num_agents), fit)


def shared(make: Make, config: Any, spec: Spec, *, shared_noise: bool = False) -> Algorithm:
    """One method for all agents: their rows are one batch of A B examples, each with the agent's one-hot id.

    Args and Raises: as `independent`.
    """
    num_agents = team_size(spec)
    with_ids = dataclasses.replace(spec, num_agents=None, obs_dim=spec.obs_dim + num_agents)
    inner = _inner(make, config, with_ids)

    def update(key: Key, state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        return inner.update(key, state, fold(batch, num_agents))

    def act(key: Key, state: TrainState, obs: Array, memory: PyTree) -> tuple[Array, PyTree]:
        def one(args: tuple[Key, Array, PyTree]) -> tuple[Array, PyTree]:
            key, obs, memory = args
            return inner.act(key, state, obs, memory)

        keys = noise_keys(key, num_agents, shared=shared_noise)
        agents_first = jnp.moveaxis(with_id(obs), -2, 0)
        action, memory = _over_agents(inner, one)((keys, agents_first, memory))
        return jnp.moveaxis(action, 0, -2), memory

    def fit(state: TrainState, dataset: Any) -> TrainState:
        assert inner.fit is not None
        return inner.fit(state, fold_dataset(dataset, num_agents))

    return _outer(inner, inner.init, update, act, _stacked_memory(inner, num_agents), fit)


def joint(make: Make, config: Any, spec: Spec, *, shared_noise: bool = False) -> Algorithm:
    """The task as one of a single agent, who sees all observations and decides on all actions.

    Args and Raises: as `independent`; there is one noise anyway.
    """
    num_agents = team_size(spec)
    if shared_noise:
        raise ValueError("agents=joint and shared_noise=True; a joint policy draws for all at once: leave it False.")
    inner = _inner(make, config, as_one(spec))

    def update(key: Key, state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        return inner.update(key, state, side_by_side(batch))

    def act(key: Key, state: TrainState, obs: Array, memory: PyTree) -> tuple[Array, PyTree]:
        action, memory = inner.act(key, state, together(obs), memory)
        return apart(action, num_agents), memory

    def fit(state: TrainState, dataset: Any) -> TrainState:
        assert inner.fit is not None
        return inner.fit(state, dataset.replace(transitions=side_by_side(dataset.transitions)))

    return _outer(inner, inner.init, update, act, inner.init_memory, fit)


WRAPPERS: Mapping[str, Callable[..., Algorithm]] = {"independent": independent, "shared": shared, "joint": joint}


def wrapped(name: str, make: Make, config: Any, spec: Spec, *, shared_noise: bool = False) -> Algorithm:
    """The method under the wrapper of that name, or as it is where the task has no agents.

    Raises:
      KeyError: no such wrapper.
      ValueError: see `independent`.
    """
    if name not in WRAPPERS:
        raise unknown_name("agents", name, WRAPPERS)
    if spec.num_agents is None:
        return make(config, spec)
    return WRAPPERS[name](make, config, spec, shared_noise=shared_noise)


def _inner(make: Make, config: Any, spec: Spec) -> Algorithm:
    algorithm = make(config, spec)
    if algorithm.decide is not None:
        raise ValueError(
            f"{spec.name} has agents, and this method learns from its own rollouts, which no wrapper shares out yet; "
            "choose one that learns from data."
        )
    return algorithm


def _outer(inner: Algorithm, init: Any, update: Any, act: Any, init_memory: Any, fit: Any) -> Algorithm:
    return Algorithm(init, update, act, init_memory, inner.window, fit=None if inner.fit is None else fit)


def _stacked_memory(inner: Algorithm, num_agents: int) -> Callable[[tuple[int, ...]], PyTree]:
    """Memories of the agents, one each."""

    def init_memory(batch_shape: tuple[int, ...]) -> PyTree:
        one = inner.init_memory(batch_shape)
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (num_agents, *x.shape)), one)

    return init_memory


def _over_agents(inner: Algorithm, act: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """act over a leading agent axis. One after another for planners, whose condition vmap would make them plan anew."""
    return (lambda args: jax.lax.map(act, args)) if inner.plan is not None else jax.vmap(act)
