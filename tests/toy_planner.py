"""A planner without a network, that compiles in a moment: real acting, and plans that are straight lines."""

import dataclasses

from flax import struct
import jax
import jax.numpy as jnp

from jaxdiff.algorithms.acting import ActConfig, Proposal, make_acting
from jaxdiff.algorithms.search import SearchConfig
from jaxdiff.types import Algorithm, TrainState

CALLS = 10


@dataclasses.dataclass(frozen=True)
class Config:
    act: ActConfig = ActConfig(replan_period=0, search=SearchConfig(num_candidates=3))
    horizon: int = 6


@struct.dataclass
class HParams:
    lr: float = 0.1


def make(config, spec):
    """Plans x_h = start + h e / 10, e ~ N(0, 1) of each plan, ranked by -|e|**2; after k calls x (2 - k / K)."""
    width, state_dim = spec.action_dim, spec.obs_dim - spec.goal_dim
    count = config.act.search.num_candidates

    def init(key, hparams):
        weight = {"w": jax.random.normal(key, (2,))}
        return TrainState(jnp.zeros((), jnp.int32), weight, weight, {}, hparams)

    def update(key, state, batch):
        loss = batch.reward.mean() + state.params["w"].sum()
        return state.replace(step=state.step + 1), {"planner_loss": loss}

    def propose(key, state, present, last):
        start = present.past[..., -1, :]
        shape = (*start.shape[:-1], count, state_dim)
        slope = jax.random.normal(key, shape)
        value = -jnp.sum(slope**2, axis=-1)
        order = jnp.argsort(-value, axis=-1)
        slope = jnp.take_along_axis(slope, order[..., None], axis=-2)
        steps = jnp.arange(config.horizon, dtype=float)
        obs = start[..., None, None, :] + jnp.einsum("...ns,h->...nhs", slope, 0.1 * steps)
        action = jnp.einsum("...nu,h->...nhu", jnp.tanh(slope[..., :width]), jnp.ones(config.horizon))
        noise = jnp.einsum("k,...hs,h->k...hs", 1.0 - jnp.arange(CALLS + 1) / CALLS, obs[..., 0, :, :], jnp.sign(steps))
        path = noise + obs[..., 0, :, :][None]
        return Proposal(obs, jnp.take_along_axis(value, order, axis=-1), obs, action, path)

    acting = make_acting(config.act, spec, propose, None, horizon=config.horizon, dim=state_dim)
    return Algorithm(init, update, acting.act, acting.init_memory, plan=acting.plan)
