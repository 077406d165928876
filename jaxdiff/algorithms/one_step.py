"""Policies as deterministic maps from noise to an action: the chain of a flow, and a single call of a network."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdiff import diffusion
from jaxdiff.algorithms.policy import PolicyConfig, make_network, make_policy
from jaxdiff.algorithms.process import make_schedule
from jaxdiff.networks import Mlp
from jaxdiff.types import Array, Key, PyTree, Spec


class Flow(NamedTuple):
    """A chain that draws no noise on its way, as functions of the network's parameters.

    init(key) -> params
    loss(key, params, obs [B, O], action [B, U]) -> [B], the kind's own denoising loss; for "flow" flow matching
    action(params, obs [*B, O], noise [*B, U]) -> [*B, U] in [-1, 1], from standard normal noise
    """

    init: Callable[[Key], PyTree]
    loss: Callable[[Key, PyTree, Array, Array], Array]
    action: Callable[[PyTree, Array, Array], Array]


class OneStep(NamedTuple):
    """A network of observation and noise.

    init(key) -> params
    answer(params, obs [*B, O], noise [*B, U]) -> [*B, U], not clipped
    """

    init: Callable[[Key], PyTree]
    answer: Callable[[PyTree, Array, Array], Array]


def make_flow(config: PolicyConfig, spec: Spec) -> Flow:
    """The flow of a task's actions, with a starting noise that the caller gives.

    Unlike `make_policy`'s chain it clips the action at the end only, and its network reads t in [0, 1] itself: both as
    in FQL's code.

    Raises:
      KeyError, ValueError: what `make_policy` raises.
      ValueError: a sampler that draws noise, so that the action would not be a function of the starting noise.
    """
    init = make_policy(config, spec).init  # checks every name and number
    bind, schedule = make_network(config, spec).bind, make_schedule(config)
    chain = {"num_levels": config.num_levels} if config.spacing in diffusion.INDEX_SPACINGS else {}
    table = diffusion.make_table(
        config.sampler, schedule, config.num_steps, t_end=config.t_end, spacing=config.spacing, grid=chain
    )
    if table.noisy_rows:
        raise ValueError(
            f"sampler={config.sampler!r} draws noise in {table.noisy_rows} steps; a flow's action is a function of the "
            "noise it starts from. Use 'euler', 'dpmpp_2m' or another deterministic one."
        )

    def loss(key: Key, params: PyTree, obs: Array, action: Array) -> Array:
        key_time, key_noise = jax.random.split(key)
        batch = action.shape[:-1]
        if config.num_levels:
            t = diffusion.discrete_times(key_time, batch, config.num_levels)
        else:
            t = diffusion.uniform_times(key_time, batch)
        eps = jax.random.normal(key_noise, action.shape)
        return diffusion.denoising_loss(bind(params), config.kind, diffusion.level_at(schedule, t), action, eps, obs)

    def action(params: PyTree, obs: Array, noise: Array) -> Array:
        denoise = diffusion.denoiser(bind(params), config.kind, obs)
        x_T = jnp.asarray(table.level.sigma[0], noise.dtype) * noise
        return jnp.clip(diffusion.sample(denoise, table, x_T, grad_steps=config.grad_steps or None), -1.0, 1.0)

    return Flow(init, loss, action)


def make_one_step(spec: Spec, hidden: tuple[int, ...], activation: str = "gelu", layer_norm: bool = False) -> OneStep:
    """An MLP of concat[noise, obs]."""
    network = Mlp(hidden, spec.action_dim, activation, layer_norm)

    def init(key: Key) -> PyTree:
        return network.init(key, jnp.zeros((spec.action_dim + spec.obs_dim,)))

    def answer(params: PyTree, obs: Array, noise: Array) -> Array:
        return network.apply(params, jnp.concatenate([noise, obs], axis=-1))  # type: ignore[return-value]

    return OneStep(init, answer)
