"""A team's value out of its agents' values: summed, mixed, or left as they are, and which rewards it predicts."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdiff.networks import MIXERS
from jaxdiff.suggest import unknown_name
from jaxdiff.types import Array, Key, PyTree

MIXINGS = ("own", *MIXERS)


class Mixing(NamedTuple):
    """Pure functions of the mixer's parameters, V = A values or one of the team.

    init(key) -> params, {} where the mixer has none
    mix(params, q [*B, A], state [*B, S]) -> [*B, V]
    rewards(r [*B, A]) -> [*B, V], what `mix` predicts the return of: each agent's, or the mean
    """

    init: Callable[[Key], PyTree]
    mix: Callable[[PyTree, Array, Array], Array]
    rewards: Callable[[Array], Array]


def make_mixing(name: str, num_agents: int, state_dim: int, *, width: int, hidden: tuple[int, ...]) -> Mixing:
    """A mixer by name.

    Args:
      name: one of MIXINGS. own: every agent's value stays its own, and no team is learned about.
      num_agents: A.
      state_dim: S, what the weights of a mixer are made of.
      width: hidden numbers of a mixer.
      hidden: of the MLPs that make its weights.

    Raises:
      KeyError: an unknown name.
    """
    if name not in MIXINGS:
        raise unknown_name("mixer", name, MIXINGS)
    if name == "own":
        return Mixing(lambda key: {}, lambda params, q, state: q, lambda reward: reward)
    network = MIXERS[name](width=width, hidden=hidden)

    def init(key: Key) -> PyTree:
        return network.init(key, jnp.zeros(num_agents), jnp.zeros(state_dim))

    def mix(params: PyTree, q: Array, state: Array) -> Array:
        total: Array = network.apply(params, q, state)  # type: ignore[assignment]
        return jnp.expand_dims(total, -1)

    return Mixing(init, mix, lambda reward: jnp.mean(reward, axis=-1, keepdims=True))


def has_params(params: PyTree) -> bool:
    """Whether a mixer has anything to learn."""
    return bool(jax.tree.leaves(params))
