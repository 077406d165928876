"""Inverse dynamics of a team: each agent's action from two of its own observations in a row."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdiff.data import Normaliser, Segments
from jaxdiff.multi.teams import team_size
from jaxdiff.networks import Mlp
from jaxdiff.types import Array, Key, PyTree, Spec

FORBIDDEN = -1e9  # the logit of an action that is not allowed; finite, so that no gradient becomes NaN


class Inverse(NamedTuple):
    """Pure functions of the network's parameters.

    init(key) -> params
    loss(params, x0 [B, T, A, O] in the network's units, batch, units of actions) -> [B, T - 1, A]
    action(params, x, x' [*B, A, O] in the network's units, units of actions) -> [*B, A, U] in [-1, 1]
    """

    init: Callable[[Key], PyTree]
    loss: Callable[[PyTree, Array, Segments, Normaliser], Array]
    action: Callable[[PyTree, Array, Array, Normaliser], Array]


def make_inverse(spec: Spec, hidden: tuple[int, ...], *, shared: bool) -> Inverse:
    """Inverse dynamics of a task with agents.

    continuous   squared error of the action in its units, mean over U
    discrete     cross-entropy of the action taken, the forbidden ones left out (Spec.mask_dim); acts by 2 softmax - 1

    Args:
      spec: the task; num_agents is A.
      hidden: widths of the MLP (ReLU).
      shared: one network for all agents; otherwise each has its own, parameters [A, ...].
    """
    network, num_agents = Mlp(hidden, spec.action_dim, "relu"), team_size(spec)

    def init(key: Key) -> PyTree:
        pair = jnp.zeros(2 * spec.obs_dim)
        if shared:
            return network.init(key, pair)
        return jax.vmap(network.init, (0, None))(jax.random.split(key, num_agents), pair)

    def apply(params: PyTree, x: Array, after: Array) -> Array:
        """[*B, A, O] twice -> [*B, A, U]."""
        pair = jnp.concatenate([x, after], axis=-1)
        if shared:
            return network.apply(params, pair)  # type: ignore[return-value]
        return jax.vmap(network.apply, (0, -2), -2)(params, pair)  # type: ignore[return-value]

    def loss(params: PyTree, x0: Array, batch: Segments, units: Normaliser) -> Array:
        answer = apply(params, x0[:, :-1], x0[:, 1:])
        if spec.num_actions is None:
            return jnp.mean(jnp.square(answer - units.normalise(batch.action[:, :-1])), axis=-1)
        taken = jax.nn.one_hot(jnp.argmax(batch.action[:, :-1], axis=-1), spec.action_dim)
        if spec.mask_dim:
            answer = jnp.where(batch.obs[:, :-1, :, -spec.mask_dim :] > 0, answer, FORBIDDEN)
        return -jnp.sum(taken * jax.nn.log_softmax(answer), axis=-1)

    def action(params: PyTree, x: Array, after: Array, units: Normaliser) -> Array:
        answer = apply(params, x, after)
        if spec.num_actions is None:
            return jnp.clip(units.unnormalise(answer), -1.0, 1.0)
        return 2.0 * jax.nn.softmax(answer) - 1.0  # the task takes the best that is allowed

    return Inverse(init, loss, action)
