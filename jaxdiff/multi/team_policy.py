"""A team's diffusion policy, put together from its agents' by a noise factor f (DoF), as (init, loss, sample).

concat      eps_tot = [eps_1; ..; eps_A]: agents' own policies, whose losses add up
wconcat     eps_tot = [w_1 eps_1; ..; w_A eps_A] for noises and predictions alike: their losses add up with weights
            w_i**2, w learned with mean 1
attention   one network for all, agents attending to one another: joint actions, which need everyone's observation

Under the first two the policy is a product over agents given the observations, whatever the data are.

Reference: Li et al. 2025, DoF, ICLR, https://openreview.net/forum?id=OTFKVkxSlL.
"""

from collections.abc import Callable
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxdiff import diffusion
from jaxdiff.algorithms.policy import PolicyConfig, PolicyNetwork, make_policy
from jaxdiff.multi.teams import apart, as_one, noise_keys, team_size, together, with_id
from jaxdiff.networks import AGENT_NETWORKS
from jaxdiff.rl import agent_weights, check_noise_factor
from jaxdiff.types import Array, Key, PyTree, Spec


class TeamPolicy(NamedTuple):
    """Pure functions of the parameters.

    init(key) -> params
    loss(key, params, obs [B, A, O], action [B, A, U]) -> [B, A], [B, 1] where it is one for the team
    weights(params) -> [A] or [1], what each of these counts
    sample(key, params, obs [*B, A, O], temperature) -> action [*B, A, U] in [-1, 1]
    """

    init: Callable[[Key], PyTree]
    loss: Callable[[Key, PyTree, Array, Array], Array]
    weights: Callable[[PyTree], Array]
    sample: Callable[..., Array]


def make_team_policy(
    factor: str, config: PolicyConfig, spec: Spec, *, share_params: bool = False, shared_noise: bool = False
) -> TeamPolicy:
    """The policy of a task with agents.

    Args:
      factor: f, one of rl.NOISE_FACTORS.
      config: of each agent's policy; for attention `hidden` has the width once per round, and `network` has no use.
      spec: the task.
      share_params: one network for all agents, told which by a one-hot id (attention: always).
      shared_noise: all agents draw the same noise while acting (attention: refused).

    Raises:
      KeyError: an unknown factor.
      ValueError: qmix, whose noise is not Gaussian; shared_noise under attention.
    """
    check_noise_factor(factor)
    if factor == "attention":
        if shared_noise:
            raise ValueError(
                "noise_factor='attention' and shared_noise=True; a joint policy draws once, leave it False."
            )
        return _joint(config, spec)
    return _product(config, spec, weighted=factor == "wconcat", share_params=share_params, shared_noise=shared_noise)


def _product(config: PolicyConfig, spec: Spec, *, weighted: bool, share_params: bool, shared_noise: bool) -> TeamPolicy:
    num_agents = team_size(spec)
    obs_dim = spec.obs_dim + (num_agents if share_params else 0)
    alone = make_policy(config, dataclasses.replace(spec, num_agents=None, obs_dim=obs_dim))
    axis = None if share_params else 0

    def seen(obs: Array) -> Array:
        return with_id(obs) if share_params else obs

    def init(key: Key) -> PyTree:
        net = alone.init(key) if share_params else jax.vmap(alone.init)(jax.random.split(key, num_agents))
        return {"net": net, "weights": jnp.zeros(num_agents)} if weighted else {"net": net}

    def loss(key: Key, params: PyTree, obs: Array, action: Array) -> Array:
        each = jax.vmap(alone.loss, (0, axis, -2, -2), -1)
        return each(jax.random.split(key, num_agents), params["net"], seen(obs), action)

    def weights(params: PyTree) -> Array:
        return agent_weights(params["weights"]) if weighted else jnp.ones(num_agents)

    def sample(key: Key, params: PyTree, obs: Array, temperature: ArrayLike = 1.0) -> Array:
        each = jax.vmap(alone.sample, (0, axis, -2, None), -2)
        keys = noise_keys(key, num_agents, shared=shared_noise)
        return each(keys, params["net"], seen(obs), jnp.asarray(temperature))

    return TeamPolicy(init, loss, weights, sample)


def _joint(config: PolicyConfig, spec: Spec) -> TeamPolicy:
    num_agents = team_size(spec)
    network = AGENT_NETWORKS["agent_mlp"](
        out=spec.action_dim,
        hidden=config.hidden,
        time_dim=config.time_dim,
        activation=config.activation,
        layer_norm=config.layer_norm,
        agent_id=True,
    )

    def init_network(key: Key) -> PyTree:
        return network.init(
            key, jnp.zeros((num_agents, spec.action_dim)), jnp.zeros(()), jnp.zeros((num_agents, spec.obs_dim))
        )

    def bind(params: PyTree) -> diffusion.Network:
        def forward(x: Array, t: Array, cond: Array) -> Array:
            return together(network.apply(params, apart(x, num_agents), t, apart(cond, num_agents)))  # type: ignore[arg-type]

        return forward

    policy = make_policy(config, as_one(spec), PolicyNetwork(init_network, bind))

    def loss(key: Key, params: PyTree, obs: Array, action: Array) -> Array:
        return num_agents * jnp.expand_dims(policy.loss(key, params["net"], together(obs), together(action)), -1)

    def sample(key: Key, params: PyTree, obs: Array, temperature: ArrayLike = 1.0) -> Array:
        return apart(policy.sample(key, params["net"], together(obs), temperature), num_agents)

    return TeamPolicy(lambda key: {"net": policy.init(key)}, loss, lambda params: jnp.ones(1), sample)
