"""A denoiser of joint actions: a token per agent, and attention between them."""

from flax import linen as nn
import jax.numpy as jnp

from jaxdiff.networks.embedding import sinusoidal
from jaxdiff.networks.mlp import Mlp, activation, torch_uniform
from jaxdiff.networks.resnet import FeedForward, stream_width
from jaxdiff.networks.trajectory import attention
from jaxdiff.types import Array


def check_agent_time(x: Array, t: Array) -> None:
    """Raises ValueError unless t is [], [*B] or [*B, A] for joint actions x [*B, A, D]."""
    if x.ndim < 2:
        raise ValueError(f"x has shape {x.shape}; joint actions have at least two axes, [*B, A, D].")
    allowed = ((), x.shape[:-2], x.shape[:-1])
    if jnp.shape(t) not in allowed:
        shapes = ", ".join(str(shape) for shape in dict.fromkeys(allowed))
        raise ValueError(f"t has shape {jnp.shape(t)}; allowed for joint actions x of shape {x.shape}: {shapes}.")


class AgentMlp(nn.Module):
    """Joint noise model: each agent's own inputs through an MLP shared by all, then rounds of attention over agents.

    z_i = Mlp([x_i, embed(t), cond_i])
    round   z <- z + attention_over_agents(LayerNorm(z)),   z_i <- z_i + feed_forward(LayerNorm(z_i))
    end     Dense(z_i)

    x [*B, A, D], t [], [*B] or [*B, A], cond [*B, A, O] -> [*B, A, out]. `hidden` has the width once per round; heads
    follow from it. Permuting agents permutes the answer and the parameters fit any number of agents, unless `agent_id`
    appends a one-hot of the agent's place to its inputs: for teams whose members are not alike.

    Raises:
      ValueError: widths that differ, x without an axis of agents, t of another shape.

    Reference: the blocks: Xiong et al. 2020, arXiv:2002.04745; over agents: Wen et al. 2022, arXiv:2205.14953.
    """

    out: int
    hidden: tuple[int, ...] = (256, 256, 256)
    time_dim: int = 16
    activation: str = "mish"
    layer_norm: bool = False
    agent_id: bool = False

    def __post_init__(self) -> None:
        stream_width(self.hidden, "agent_mlp")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, t: Array, cond: Array) -> Array:
        check_agent_time(x, t)
        width, act, agents = self.hidden[0], activation(self.activation), x.shape[:-1]
        time = act(nn.Dense(2 * self.time_dim, kernel_init=torch_uniform())(sinusoidal(t, self.time_dim)))
        time = nn.Dense(self.time_dim, kernel_init=torch_uniform())(time)
        if 0 < jnp.ndim(t) < x.ndim - 1:
            time = jnp.expand_dims(time, -2)
        inputs = [x, jnp.broadcast_to(time, (*agents, self.time_dim)), cond]
        if self.agent_id:
            inputs.append(jnp.broadcast_to(jnp.eye(agents[-1], dtype=x.dtype), (*agents, agents[-1])))
        z = Mlp((width,), width, self.activation)(jnp.concatenate(inputs, axis=-1))
        for _ in self.hidden:
            z = z + attention(width)(nn.LayerNorm()(z))
            z = z + FeedForward(width, self.activation)(z)
        if self.layer_norm:
            z = nn.LayerNorm()(z)
        return nn.Dense(self.out, kernel_init=torch_uniform())(z)
