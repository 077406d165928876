"""The U-Net of joint trajectories: one network for every agent, and attention between the agents inside it."""

from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from jaxdiff.networks.mlp import mish, torch_uniform
from jaxdiff.networks.temporal_unet import TemporalUnet
from jaxdiff.types import Array

AGENT_HEADS = 4  # of attention between agents, at every width


def by_agent(x: Array, t: Array) -> tuple[Array, Array]:
    """A joint trajectory as one trajectory per agent, so that no normalisation mixes agents.

    Args:
      x: [*B, H, A, D].
      t: [], [*B], [*B, H]: one level for each step, or [*B, H, A]: one for each agent's.

    Returns:
      (x [*B, A, H, D], t [], [*B, A] or [*B, A, H]).

    Raises:
      ValueError: x with fewer axes, or t of another shape.
    """
    if x.ndim < 3:
        raise ValueError(f"x has shape {x.shape}; a joint trajectory has at least three axes, [*B, H, A, D].")
    batch, (horizon, num_agents) = x.shape[:-3], x.shape[-3:-1]
    allowed = ((), batch, (*batch, horizon), (*batch, horizon, num_agents))
    if jnp.shape(t) not in allowed:
        shapes = ", ".join(str(shape) for shape in dict.fromkeys(allowed))
        raise ValueError(f"t has shape {jnp.shape(t)}; allowed for a joint trajectory x of shape {x.shape}: {shapes}.")
    levels = jnp.asarray(t)
    if levels.ndim == len(batch) + 2:
        levels = jnp.moveaxis(levels, -1, -2)
    elif levels.ndim:
        levels = jnp.expand_dims(levels, len(batch))
        levels = jnp.broadcast_to(levels, (*batch, num_agents, *levels.shape[len(batch) + 1 :]))
    return jnp.moveaxis(x, -2, -3), levels


class AgentAttention(nn.Module):
    """z_i + gain sum_j softmax_j(q_i k_j / sqrt(d H)) v_j: every agent reads the trajectories of all.

    q, k, v = Dense(z) + Dense(mish(features)),   four heads of d = C / 16 (q, k) and of C / 4 (v) channels per token

    Agents are compared over all tokens at once: q_i and k_j are the d H numbers of a head. `gain` is one learned number
    and 0 at the start (gamma in the paper), so a new network treats agents apart.

    z [N A, H, C], an agent's neighbours in a row being its team, features [N A or 1, H or 1, F] -> [N A, H, C]. The
    parameters fit any number of agents.

    Reference: Zhu et al. 2024, arXiv:2305.17330 and its code.
    """

    num_agents: int

    @nn.compact
    def __call__(self, z: Array, features: Array) -> Array:
        horizon, channels = z.shape[1:]
        key_dim, value_dim = max(channels // 16, 1), channels // AGENT_HEADS
        ends = (AGENT_HEADS * key_dim, 2 * AGENT_HEADS * key_dim)
        size = ends[1] + AGENT_HEADS * value_dim
        told = nn.Dense(size, kernel_init=torch_uniform())(mish(features))
        parts = jnp.split(nn.Dense(size, kernel_init=torch_uniform())(z) + told, ends, axis=-1)
        teams = (z.shape[0] // self.num_agents, self.num_agents, horizon, AGENT_HEADS)
        dims = (key_dim, key_dim, value_dim)
        q, k, v = (part.reshape(*teams, dim) for part, dim in zip(parts, dims, strict=True))
        logits = jnp.einsum("nithd,njthd->nhij", q, k) * (key_dim * horizon) ** -0.5
        read = jnp.einsum("nhij,njthd->nithd", jax.nn.softmax(logits, axis=-1), v)
        return z + self.param("gain", nn.initializers.zeros_init(), ()) * read.reshape(z.shape)


class AgentUnet(TemporalUnet):
    """MADiff's denoiser: `TemporalUnet` with the same weights for every agent, and attention between agents.

    `AgentAttention` follows the middle blocks and stands in every skip that is read; without `agent_attention` agents
    know nothing of one another. The fields of `TemporalUnet` mean what they mean there: its `attention` is over the
    horizon.

    x [*B, H, A, D], t [], [*B], [*B, H] or [*B, H, A], cond None or (values [*B, A, C], keep [*B, A, G]), one of each
    per agent, -> [*B, H, A, out]. Permuting agents permutes the answer; the parameters fit any number of agents.

    At width=128 and mults=(1, 4, 8) the U-Net has the 59.7 million parameters of the released code, and attention 4.5
    million: there it has 4.6, with one for level 0, whose skip is never read.

    Raises:
      ValueError: as `TemporalUnet`; x without an axis of agents; t or cond of another shape.

    Reference: Zhu et al. 2024, arXiv:2305.17330 and its code.
    """

    agent_attention: bool = True

    def across(self, z: Array, features: Array, batch: tuple[int, ...]) -> Array:
        return AgentAttention(batch[-1])(z, features) if self.agent_attention else z

    def __call__(self, x: Array, t: Array, cond: Any) -> Array:
        each, levels = by_agent(x, t)
        return jnp.moveaxis(super().__call__(each, levels, cond), -3, -2)
