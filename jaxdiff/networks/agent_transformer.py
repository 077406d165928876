"""A transformer of joint trajectories, which looks along time and across agents in turn."""

from typing import Any

from flax import linen as nn
import jax.numpy as jnp

from jaxdiff.networks.agent_unet import by_agent
from jaxdiff.networks.mlp import torch_uniform
from jaxdiff.networks.resnet import FeedForward
from jaxdiff.networks.tokens import TokenFeatures, check_sizes, flatten
from jaxdiff.networks.trajectory import attention, positions
from jaxdiff.types import Array


class AgentTransformer(nn.Module):
    """`TrajectoryTransformer` whose blocks also attend, at every step of a trajectory, to the other agents.

    z = Dense(x) + Dense(features) + p_h
    block   z <- z + attention_over_h(LayerNorm(z)),   z <- z + attention_over_agents(LayerNorm(z)),
            z <- z + feed_forward(LayerNorm(z))
    end     Dense(LayerNorm(z))

    x [*B, H, A, D], t [], [*B], [*B, H] or [*B, H, A], cond None or (values [*B, A, C], keep [*B, A, G]) ->
    [*B, H, A, out]. Works at any horizon and for any number of agents, whose order does not matter; without
    `agent_attention` the second of a block's lines is left out.

    Raises:
      ValueError: sizes out of range; x without an axis of agents; t or cond of another shape.

    Reference: Vaswani et al. 2017, arXiv:1706.03762; alternating axes: Ho et al. 2019, arXiv:1912.12180.
    """

    out: int
    width: int = 128
    depth: int = 2
    agent_attention: bool = True
    cond_sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_sizes(self.width, self.cond_sizes, self.depth)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, t: Array, cond: Any) -> Array:
        each, levels = by_agent(x, t)
        flat = flatten(each, levels, cond, self.cond_sizes)
        features = TokenFeatures(self.width, self.cond_sizes)(flat.t, flat.cond)
        told = nn.Dense(self.width, kernel_init=torch_uniform())(features) + positions(x.shape[-3], self.width)
        z = nn.Dense(self.width, kernel_init=torch_uniform())(flat.x) + told
        num, horizon, num_agents = z.shape[0] // x.shape[-2], x.shape[-3], x.shape[-2]
        z = z.reshape(num, num_agents, horizon, self.width)
        for _ in range(self.depth):
            z = z + attention(self.width)(nn.LayerNorm()(z))
            if self.agent_attention:
                read = attention(self.width)(jnp.swapaxes(nn.LayerNorm()(z), 1, 2))
                z = z + jnp.swapaxes(read, 1, 2)
            z = z + FeedForward(self.width)(z)
        answer = nn.Dense(self.out, kernel_init=torch_uniform())(nn.LayerNorm()(z))
        return jnp.swapaxes(answer, 1, 2).reshape(*x.shape[:-1], self.out)
