"""A team seen as one big agent, or agent by agent: sizes, arrays and keys that every file here needs."""

from collections.abc import Callable
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdiff.types import Array, Key, PyTree, Spec


def team_size(spec: Spec) -> int:
    """A.

    Raises:
      ValueError: a task without agents.
    """
    if spec.num_agents is None:
        raise ValueError(f"{spec.name} has no agents, and this is made for them; choose a method of one agent there.")
    return spec.num_agents


def as_one(spec: Spec) -> Spec:
    """The team's task as that of one big agent, of A O and A U numbers."""
    num_agents = team_size(spec)
    return dataclasses.replace(
        spec, num_agents=None, obs_dim=num_agents * spec.obs_dim, action_dim=num_agents * spec.action_dim
    )


def together(x: Array) -> Array:
    """[.., A, F] -> [.., A F], agent 0's numbers first."""
    return jax.lax.collapse(x, x.ndim - 2)


def apart(x: Array, num_agents: int) -> Array:
    """[.., A F] -> [.., A, F]."""
    return x.reshape(*x.shape[:-1], num_agents, x.shape[-1] // num_agents)


def with_id(obs: Array, axis: int = -2) -> Array:
    """obs [.., A, .., O], agents on `axis`, with a one-hot id of A numbers appended to its features."""
    num_agents = obs.shape[axis]
    shape = [1] * (obs.ndim - 1) + [num_agents]
    shape[axis] = num_agents
    own = jnp.broadcast_to(jnp.eye(num_agents).reshape(shape), (*obs.shape[:-1], num_agents))
    return jnp.concatenate([obs, own], axis=-1)


def noise_keys(key: Key, num_agents: int, *, shared: bool = False) -> Key:
    """[A] keys: an agent's depends on its number alone, or not even on that."""
    numbers = jnp.zeros(num_agents, jnp.int32) if shared else jnp.arange(num_agents)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)


class PerAgent(NamedTuple):
    """A network of each agent's own, or one of all that is told which agent it is.

    init(key) -> params, with a leading axis A unless shared
    apply(params, obs [*B, A, O], x [*B, A, X]) -> agents on `out_axis`
    """

    init: Callable[[Key], PyTree]
    apply: Callable[[PyTree, Array, Array], Array]


def per_agent(
    make: Callable[[int], tuple[Callable[[Key], PyTree], Callable[[PyTree, Array, Array], Array]]],
    spec: Spec,
    *,
    share_params: bool,
    out_axis: int,
) -> PerAgent:
    """The network of one agent for all of them.

    Args:
      make: width of its observation -> (init, apply of (params, obs [*B, O], x [*B, X])).
      spec: the task.
      share_params: one network for all; its observation ends with a one-hot id.
      out_axis: where agents are in the result; -1, or -2 before features.
    """
    num_agents = team_size(spec)
    if share_params:
        init, apply = make(spec.obs_dim + num_agents)
        return PerAgent(init, lambda params, obs, x: apply(params, with_id(obs), x))
    init, apply = make(spec.obs_dim)
    stacked = jax.vmap(apply, in_axes=(0, -2, -2), out_axes=out_axis)
    return PerAgent(lambda key: jax.vmap(init)(jax.random.split(key, num_agents)), stacked)
