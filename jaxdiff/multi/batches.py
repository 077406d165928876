"""Batches of a task with agents: one agent's share of them, all agents' shares as one batch, or agents side by side."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff.data import Dataset, Segments, Windows
from jaxdiff.multi.teams import together, with_id
from jaxdiff.types import Array, Transition

FEATURES = ("obs", "action", "next_obs")  # agents are their last axis but one
# Rank of a field that tells of the team as a whole; with one more axis, the last, it tells of each agent.
TEAM_RANK: Mapping[type, Mapping[str, int]] = {
    Transition: {"reward": 1, "discount": 1},
    Windows: {"reward": 2, "discount": 1, "length": 1},
    Segments: {"mask": 2, "return_to_go": 1},
}


def split(batch: Any, num_agents: int) -> Any:
    """The agents' own batches, stacked: a leading axis A on every field, what concerns the team repeated.

    Args:
      batch: `Transition`, `Windows` or `Segments` with agents: obs [B, .., A, O], reward [B, ..] or [B, .., A].
      num_agents: A.

    Raises:
      ValueError: a field without the axis of A agents.
    """
    ranks, shares = TEAM_RANK[type(batch)], {}
    for field in dataclasses.fields(batch):
        value = getattr(batch, field.name)
        axis = value.ndim - 2 if field.name in FEATURES else value.ndim - 1
        if field.name in ranks and value.ndim == ranks[field.name]:
            shares[field.name] = jnp.broadcast_to(value, (num_agents, *value.shape))
            continue
        if value.shape[axis] != num_agents:
            raise ValueError(f"{field.name} has shape {value.shape}, and the task has {num_agents} agents.")
        shares[field.name] = jnp.moveaxis(value, axis, 0)
    return type(batch)(**shares)


def fold(batch: Any, num_agents: int) -> Any:
    """All agents' shares as one batch of A B examples, agent 0 first, each observation followed by who it is of."""
    shares = split(batch, num_agents)
    named = {name: with_id(getattr(shares, name), 0) for name in ("obs", "next_obs") if hasattr(shares, name)}
    return jax.tree.map(lambda x: jax.lax.collapse(x, 0, 2), dataclasses.replace(shares, **named))


def side_by_side(batch: Any) -> Any:
    """The batch of one big agent: features [.., A F], agent 0's first; rewards and returns are the agents' mean."""
    ranks, joined = TEAM_RANK[type(batch)], {}
    for field in dataclasses.fields(batch):
        value = getattr(batch, field.name)
        if field.name in FEATURES:
            joined[field.name] = together(value)
        else:
            joined[field.name] = value if value.ndim == ranks[field.name] else jnp.mean(value, axis=-1)
    return type(batch)(**joined)


def with_own_rewards(batch: Transition, num_agents: int) -> Transition:
    """The batch with reward and discount [B, A]: those of the team, [B], repeated."""

    def own(x: Array) -> Array:
        return x if x.ndim == 2 else jnp.broadcast_to(x[:, None], (x.shape[0], num_agents))

    return batch.replace(reward=own(batch.reward), discount=own(batch.discount))  # type: ignore[attr-defined,no-any-return]


def split_dataset(dataset: Dataset, num_agents: int) -> Dataset:
    """Each agent's dataset, stacked on a leading axis A; episodes and draws are everyone's."""
    shares = split(dataset.transitions, num_agents)
    rest = {
        field.name: jax.tree.map(lambda x: jnp.broadcast_to(x, (num_agents, *x.shape)), getattr(dataset, field.name))
        for field in dataclasses.fields(dataset)
        if field.name != "transitions"
    }
    return Dataset(transitions=shares, **rest)


def fold_dataset(dataset: Dataset, num_agents: int) -> Dataset:
    """All agents' datasets one after the other, observations with ids, episodes numbered on."""
    episode = jnp.asarray(dataset.episode)
    offsets = (episode[-1] + 1) * jnp.arange(num_agents, dtype=episode.dtype)
    numbered = (episode[None] + offsets[:, None]).reshape(-1)
    return Dataset(transitions=fold(dataset.transitions, num_agents), episode=numbered)
