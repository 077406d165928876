"""What a team's actions are worth, out of its agents' critics: [E, *B, V], V = A values or one of the team.

own       Q_i(o_i, a_i), each for itself
vdn       sum_i Q_i
qmix      mixer(Q_1 .. Q_A; all observations), monotone in each
central   Q(all observations, all actions): no agent's own value, so nothing to choose candidates by

Under the first three each agent can choose by its own Q_i, and where it does the team's value is largest too.

Reference: Sunehag et al. 2018, arXiv:1706.05296; Rashid et al. 2018, arXiv:1803.11485.
"""

from collections.abc import Callable
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdiff.algorithms.critics import make_critics
from jaxdiff.multi.batches import with_id
from jaxdiff.networks import MIXERS
from jaxdiff.suggest import unknown_name
from jaxdiff.types import Array, Key, PyTree, Spec

VALUE_FACTORS = ("central", "own", "qmix", "vdn")
NUM_CRITICS = 2


@dataclasses.dataclass(frozen=True)
class CriticConfig:
    """Static choices."""

    hidden: tuple[int, ...] = (256, 256, 256)
    activation: str = "mish"
    layer_norm: bool = False
    mixer_width: int = 32  # qmix
    mixer_hidden: tuple[int, ...] = (64, 64)  # qmix: of the MLPs that make its weights


class TeamValue(NamedTuple):
    """Pure functions of the parameters.

    init(key) -> params
    own(params, obs [*B, A, O], action [*B, A, U]) -> [E, *B, A], what agents choose by
    total(params, obs, action) -> [E, *B, V]
    rewards(r [B, A]) -> [B, V], what total predicts the return of: each agent's, or the mean
    """

    init: Callable[[Key], PyTree]
    own: Callable[[PyTree, Array, Array], Array]
    total: Callable[[PyTree, Array, Array], Array]
    rewards: Callable[[Array], Array]


def make_team_value(factor: str, config: CriticConfig, spec: Spec, *, share_params: bool = False) -> TeamValue:
    """The critics of a task with agents.

    Args:
      factor: h of values, one of VALUE_FACTORS.
      config: of each critic.
      spec: the task.
      share_params: one pair of critics for all agents, told which by a one-hot id.

    Raises:
      KeyError: an unknown factor.
    """
    if factor not in VALUE_FACTORS:
        raise unknown_name("value_factor", factor, VALUE_FACTORS)
    num_agents = spec.num_agents
    assert num_agents is not None
    sizes = (config.hidden, config.activation, config.layer_norm, NUM_CRITICS)
    if factor == "central":
        return _central(spec, num_agents, sizes)
    obs_dim = spec.obs_dim + (num_agents if share_params else 0)
    critics = make_critics(dataclasses.replace(spec, num_agents=None, obs_dim=obs_dim), *sizes)
    mixer = MIXERS[factor](width=config.mixer_width, hidden=config.mixer_hidden) if factor != "own" else None

    def init(key: Key) -> PyTree:
        key_own, key_mixer = jax.random.split(key)
        own = critics.init(key_own) if share_params else jax.vmap(critics.init)(jax.random.split(key_own, num_agents))
        if factor != "qmix":
            return {"own": own}
        assert mixer is not None
        nothing = (jnp.zeros(num_agents), jnp.zeros(num_agents * spec.obs_dim))
        keys = jax.random.split(key_mixer, NUM_CRITICS)
        return {"own": own, "mixer": jax.vmap(lambda k: mixer.init(k, *nothing))(keys)}

    def own(params: PyTree, obs: Array, action: Array) -> Array:
        seen = with_id(obs, obs.ndim - 2) if share_params else obs
        return jax.vmap(critics.q, (None if share_params else 0, -2, -2), -1)(params["own"], seen, action)

    def total(params: PyTree, obs: Array, action: Array) -> Array:
        q = own(params, obs, action)
        if mixer is None:
            return q
        state = jax.lax.collapse(obs, obs.ndim - 2)
        weights = params.get("mixer", {})

        def mixed(weights: PyTree, q: Array) -> Array:
            return mixer.apply(weights, q, state)  # type: ignore[union-attr,return-value]

        return jnp.expand_dims(jax.vmap(mixed)(weights, q), -1)

    def rewards(reward: Array) -> Array:
        return reward if mixer is None else jnp.mean(reward, axis=-1, keepdims=True)

    return TeamValue(init, own, total, rewards)


def _central(spec: Spec, num_agents: int, sizes: tuple[tuple[int, ...], str, bool, int]) -> TeamValue:
    big = dataclasses.replace(
        spec, num_agents=None, obs_dim=num_agents * spec.obs_dim, action_dim=num_agents * spec.action_dim
    )
    critics = make_critics(big, *sizes)

    def flat(x: Array) -> Array:
        return jax.lax.collapse(x, x.ndim - 2)

    def own(params: PyTree, obs: Array, action: Array) -> Array:
        raise ValueError("value_factor='central' has no value of a single agent; act with num_candidates=1.")

    def total(params: PyTree, obs: Array, action: Array) -> Array:
        return jnp.expand_dims(critics.q(params, flat(obs), flat(action)), -1)

    return TeamValue(critics.init, own, total, lambda reward: jnp.mean(reward, axis=-1, keepdims=True))
