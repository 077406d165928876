"""Denoisers that read an observation history in its order: an LSTM and a transformer.

cond [*B, h O] holds h observations, oldest first; an MLP may read it too, as one long vector.
"""

from flax import linen as nn
import jax
import jax.numpy as jnp

from jaxdiff.networks.embedding import check_time, sinusoidal
from jaxdiff.networks.mlp import MlpDenoiser, activation, torch_uniform
from jaxdiff.networks.resnet import FeedForward, stream_width
from jaxdiff.types import Array

HEAD_DIM = 64  # numbers an attention head has at least, where the width allows it


def split_history(cond: Array, history: int) -> Array:
    """cond [*B, h O] as observations [*B, h, O], oldest first.

    Raises:
      ValueError: the length of cond is no multiple of h.
    """
    if cond.shape[-1] % history:
        raise ValueError(
            f"cond has {cond.shape[-1]} numbers, which are not history={history} observations of one size; "
            "give the network the history its observations were put together with."
        )
    return cond.reshape(*cond.shape[:-1], history, cond.shape[-1] // history)


def _check_history(history: int) -> None:
    if history < 1:
        raise ValueError(f"history={history}; it must be at least 1.")


def _recur(module: nn.Module, width: int, sequence: Array, reverse: bool) -> tuple[Array, Array]:
    """(last output [*B, W], all outputs [h, *B, W]) of an LSTM whose parameters belong to a compact module."""
    batch = sequence.shape[:-2]
    inputs = nn.Dense(4 * width, kernel_init=torch_uniform())(sequence)  # every step's, in one product
    recurrent = module.param("recurrent_kernel", torch_uniform(), (width, 4 * width))
    start = module.param("start", nn.initializers.normal(0.1), (2, width))

    def step(state: tuple[Array, Array], entering: Array) -> tuple[tuple[Array, Array], Array]:
        cell, output = state
        i, f, g, o = jnp.split(entering + output @ recurrent, 4, axis=-1)
        cell = jax.nn.sigmoid(f + 1.0) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        output = jax.nn.sigmoid(o) * jnp.tanh(cell)
        return (cell, output), output

    first = (jnp.broadcast_to(start[0], (*batch, width)), jnp.broadcast_to(start[1], (*batch, width)))
    (_, last), outputs = jax.lax.scan(step, first, jnp.moveaxis(inputs, -2, 0), reverse=reverse)
    return last, outputs


class Lstm(nn.Module):
    """The last output of a long short-term memory over a sequence: [*B, h, O] -> [*B, W].

    i, f, g, o = W s_k + U y + b,   c <- sigmoid(f + 1) c + sigmoid(i) tanh(g),   y <- sigmoid(o) tanh(c)

    The 1 lets a new network remember (Jozefowicz et al. 2015). The state it starts from is learned: from zeros the
    recurrent weights would get no gradient where the history is 1.

    Reference: Hochreiter and Schmidhuber 1997; the forget gate: Gers et al. 2000.
    """

    width: int

    @nn.compact
    def __call__(self, sequence: Array) -> Array:
        return _recur(self, self.width, sequence, reverse=False)[0]


class LstmOutputs(nn.Module):
    """Every output of an `Lstm`, [*B, h, O] -> [*B, h, W]; with `reverse` it reads from the end to the beginning."""

    width: int
    reverse: bool = False

    @nn.compact
    def __call__(self, sequence: Array) -> Array:
        return jnp.moveaxis(_recur(self, self.width, sequence, self.reverse)[1], 0, -2)


class LstmDenoiser(nn.Module):
    """`MlpDenoiser` whose condition is what an LSTM of hidden[0] units has read of the history.

    x [*B, D], t [] or [*B], cond [*B, h O] -> [*B, D]. The other fields are the MLP's.

    Raises:
      ValueError: no hidden width, history < 1, cond that is no multiple of it, t of another shape.
    """

    out: int
    hidden: tuple[int, ...] = (256, 256, 256)
    time_dim: int = 16
    activation: str = "mish"
    layer_norm: bool = False
    history: int = 1

    def __post_init__(self) -> None:
        _check_history(self.history)
        if not self.hidden:
            raise ValueError("hidden=(); its first number is the number of LSTM units: give at least one.")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, t: Array, cond: Array) -> Array:
        read = Lstm(self.hidden[0])(split_history(cond, self.history))
        return MlpDenoiser(self.out, self.hidden, self.time_dim, self.activation, self.layer_norm)(x, t, read)


def num_heads(width: int) -> int:
    """The most attention heads of at least 64 numbers each into which `width` divides; 1 below 128."""
    return max(n for n in range(1, max(width // HEAD_DIM, 1) + 1) if width % n == 0)


class TransformerDenoiser(nn.Module):
    """A transformer over the history and one last token, the noised action, whose end is the answer.

    tokens  Dense(s_k) + p_k, k = 1 .. h,   Dense(concat[x, embed(t)])
    block   z <- z + attention(LayerNorm(z)),   z <- z + feed_forward(LayerNorm(z))

    x [*B, D], t [] or [*B], cond [*B, h O] -> [*B, D]. `hidden` has the width once per block; heads follow from it
    (`num_heads`); the blocks always normalise, and `layer_norm` adds a normalisation of the stream they leave. Every
    token attends to every other; the learned p_k alone tell the order. Attention has no biases: one of the keys would
    change nothing.

    Raises:
      ValueError: widths that differ, history < 1, cond that is no multiple of it, t of another shape.

    Reference: Vaswani et al. 2017, arXiv:1706.03762; normalisation first: Xiong et al. 2020, arXiv:2002.04745; as a
    denoiser of actions: Chi et al. 2023, arXiv:2303.04137, which uses an encoder and a decoder.
    """

    out: int
    hidden: tuple[int, ...] = (256, 256, 256)
    time_dim: int = 16
    activation: str = "mish"
    layer_norm: bool = False
    history: int = 1

    def __post_init__(self) -> None:
        _check_history(self.history)
        stream_width(self.hidden, "transformer")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, t: Array, cond: Array) -> Array:
        check_time(x, t)
        width, batch, act = self.hidden[0], x.shape[:-1], activation(self.activation)
        time = act(nn.Dense(2 * self.time_dim, kernel_init=torch_uniform())(sinusoidal(t, self.time_dim)))
        time = nn.Dense(self.time_dim, kernel_init=torch_uniform())(time)
        time = jnp.broadcast_to(time, (*batch, self.time_dim))
        position = self.param("position", nn.initializers.normal(0.02), (self.history, width))
        past = nn.Dense(width, kernel_init=torch_uniform())(split_history(cond, self.history))
        past = past + jnp.broadcast_to(position, past.shape)
        now = nn.Dense(width, kernel_init=torch_uniform())(jnp.concatenate([x, time], axis=-1))
        stream = jnp.concatenate([past, jnp.expand_dims(now, -2)], axis=-2)
        for _ in self.hidden:
            attention = nn.MultiHeadDotProductAttention(
                num_heads(width), use_bias=False, kernel_init=torch_uniform(), deterministic=True
            )
            stream = stream + attention(nn.LayerNorm()(stream))
            stream = stream + FeedForward(width, self.activation)(stream)
        answer = stream[..., -1, :]
        if self.layer_norm:
            answer = nn.LayerNorm()(answer)
        return nn.Dense(self.out, kernel_init=torch_uniform())(answer)
