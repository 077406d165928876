"""Critics as functions of their parameters: an ensemble of Q, and V. Shared by every algorithm that has one."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from jaxdiff.networks import BIASES, QFunction, VFunction
from jaxdiff.rl import cql_penalty, max_backup, td_target
from jaxdiff.suggest import unknown_name
from jaxdiff.types import Array, Key, Metrics, PyTree, Spec, Transition


class Critics(NamedTuple):
    """E independent Q functions; parameters have a leading axis E.

    init(key) -> params
    q(params, obs [*B, O], action [*B, U]) -> [E, *B]
    """

    init: Callable[[Key], PyTree]
    q: Callable[[PyTree, Array, Array], Array]


class Value(NamedTuple):
    """One state value.

    init(key) -> params
    v(params, obs [*B, O]) -> [*B]
    """

    init: Callable[[Key], PyTree]
    v: Callable[[PyTree, Array], Array]


def make_critics(
    spec: Spec,
    hidden: tuple[int, ...],
    activation: str = "mish",
    layer_norm: bool = False,
    num_critics: int = 2,
    bias: str = "zeros",
) -> Critics:
    """Q functions of the task's observations and actions; `bias` is one of BIASES.

    Raises:
      ValueError: num_critics < 1.
      KeyError: unknown bias.
    """
    if bias not in BIASES:
        raise unknown_name("bias", bias, BIASES)
    if num_critics < 1:
        raise ValueError(f"num_critics={num_critics}; at least 1 is needed, usually 2.")
    network = QFunction(hidden, activation, layer_norm)
    obs, action = jnp.zeros((spec.obs_dim,)), jnp.zeros((spec.action_dim,))

    def init(key: Key) -> PyTree:
        def one(k: Key) -> PyTree:
            return BIASES[bias](jax.random.fold_in(k, 1), network.init(k, obs, action))

        return jax.vmap(one)(jax.random.split(key, num_critics))

    def q(params: PyTree, obs: Array, action: Array) -> Array:
        def one(p: PyTree) -> Array:
            return network.apply(p, obs, action)  # type: ignore[return-value]

        return jax.vmap(one)(params)

    return Critics(init, q)


def make_value(spec: Spec, hidden: tuple[int, ...], activation: str = "mish", layer_norm: bool = False) -> Value:
    """A state value of the task's observations."""
    network = VFunction(hidden, activation, layer_norm)

    def v(params: PyTree, obs: Array) -> Array:
        return network.apply(params, obs)  # type: ignore[return-value]

    return Value(lambda key: network.init(key, jnp.zeros((spec.obs_dim,))), v)


def td_loss(
    critics: Critics, params: PyTree, batch: Transition, next_value: Array, discount_factor: ArrayLike
) -> tuple[Array, Metrics]:
    """sum_i E (Q_i(s, a) - y)**2 with y = r + discount_factor discount V(s'), which gets no gradient.

    Args:
      critics: the ensemble.
      params: of the critics that learn.
      batch: B transitions.
      next_value: [B] V(s'), of target networks.
      discount_factor: gamma in [0, 1]; may be traced.

    Returns:
      (loss, metrics `critic_loss`, `q_mean`, `target_mean`).
    """
    target = td_target(batch.reward, batch.discount, next_value, discount_factor)
    q = critics.q(params, batch.obs, batch.action)
    loss = jnp.sum(jnp.mean(jnp.square(q - target[None]), axis=-1))
    return loss, {"critic_loss": loss, "q_mean": jnp.mean(q), "target_mean": jnp.mean(target)}


def uniform_actions(key: Key, num_actions: int, like: Array) -> tuple[Array, Array]:
    """num_actions uniform actions [N, *B, U] for each of like [*B, U], and the logarithm of their density [N, *B]."""
    shape = (num_actions, *like.shape)
    action = jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)
    return action, jnp.full(shape[:-1], -like.shape[-1] * np.log(2.0), action.dtype)


def value_gaps(critics: Critics, params: PyTree, batch: Transition, proposals: tuple[Array, Array]) -> Array:
    """[E, B] how far each critic's values at proposals (actions [N, B, U], log mu [N, B]) rise above the data's."""
    action, log_density = proposals
    many = jnp.broadcast_to(batch.obs, (action.shape[0], *batch.obs.shape))
    q, q_data = critics.q(params, many, action), critics.q(params, batch.obs, batch.action)
    return jax.vmap(cql_penalty, in_axes=(0, None, 0))(q, log_density, q_data)


def conservative_td_loss(
    critics: Critics,
    params: PyTree,
    batch: Transition,
    next_value: Array,
    discount_factor: ArrayLike,
    proposals: tuple[Array, Array],
    *,
    cql_weight: ArrayLike,
) -> tuple[Array, Metrics]:
    """`td_loss` + cql_weight sum_i E gap_i,  gap_i = log E_{a ~ mu} exp(Q_i(s, a) - log mu(a)) - Q_i(s, a_data).

    Args:
      critics: the ensemble.
      params: of the critics that learn.
      batch: B transitions.
      next_value: [B] V(s'), of target networks.
      discount_factor: gamma in [0, 1]; may be traced.
      proposals: actions [N, B, U] of mu and their log mu [N, B]; no gradient should come through them.
      cql_weight: >= 0; may be traced.

    Returns:
      (loss, metrics): those of `td_loss`, where `critic_loss` is now all of it, and `cql_gap`.

    Reference: Kumar et al. 2020, arXiv:2006.04779, eq. 4.
    """
    loss, metrics = td_loss(critics, params, batch, next_value, discount_factor)
    gap = jnp.mean(value_gaps(critics, params, batch, proposals), axis=-1)
    loss = loss + cql_weight * jnp.sum(gap)
    return loss, metrics | {"critic_loss": loss, "cql_gap": jnp.mean(gap)}


def sampled_value(
    critics: Critics, params: PyTree, sample: Callable[[Array], Array], obs: Array, num_samples: int
) -> Array:
    """min over critics of the largest Q among num_samples actions of a policy at obs [*B, O] -> [*B].

    With one sample it is the usual smaller Q of a policy's action; with more, the max-Q backup (`rl.max_backup`), which
    leans upwards and carries sparse rewards further.

    Args:
      critics: the ensemble.
      params: of the critics that judge.
      sample: obs [N, *B, O] -> actions [N, *B, U].
      obs: [*B, O].
      num_samples: N >= 1, static.
    """
    many = jnp.broadcast_to(obs, (num_samples, *obs.shape))
    return max_backup(critics.q(params, many, sample(many)))
