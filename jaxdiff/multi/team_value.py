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
from jaxdiff.multi.mixing import has_params, make_mixing
from jaxdiff.multi.teams import as_one, per_agent, team_size, together
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
    num_agents = team_size(spec)
    sizes = (config.hidden, config.activation, config.layer_norm, NUM_CRITICS)
    if factor == "central":
        return _central(spec, sizes)

    def critic(obs_dim: int) -> tuple[Callable[[Key], PyTree], Callable[[PyTree, Array, Array], Array]]:
        one = make_critics(dataclasses.replace(spec, obs_dim=obs_dim), *sizes)
        return one.init, one.q

    critics = per_agent(critic, spec, share_params=share_params, out_axis=-1)
    mixing = make_mixing(
        factor, num_agents, num_agents * spec.obs_dim, width=config.mixer_width, hidden=config.mixer_hidden
    )

    def init(key: Key) -> PyTree:
        key_own, key_mixer = jax.random.split(key)
        mixers = jax.vmap(mixing.init)(jax.random.split(key_mixer, NUM_CRITICS))
        params = {"own": critics.init(key_own)}
        return {**params, "mixer": mixers} if has_params(mixers) else params

    def own(params: PyTree, obs: Array, action: Array) -> Array:
        return critics.apply(params["own"], obs, action)

    def total(params: PyTree, obs: Array, action: Array) -> Array:
        q, state = own(params, obs, action), together(obs)
        return jax.vmap(lambda weights, each: mixing.mix(weights, each, state))(params.get("mixer", {}), q)

    return TeamValue(init, own, total, mixing.rewards)


def _central(spec: Spec, sizes: tuple[tuple[int, ...], str, bool, int]) -> TeamValue:
    critics = make_critics(as_one(spec), *sizes)

    def own(params: PyTree, obs: Array, action: Array) -> Array:
        raise ValueError("value_factor='central' has no value of a single agent; act with num_candidates=1.")

    def total(params: PyTree, obs: Array, action: Array) -> Array:
        return jnp.expand_dims(critics.q(params, together(obs), together(action)), -1)

    return TeamValue(critics.init, own, total, lambda reward: jnp.mean(reward, axis=-1, keepdims=True))
