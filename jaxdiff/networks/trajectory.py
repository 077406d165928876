"""Denoisers of trajectories that see the whole horizon at once: transformers and a bidirectional LSTM.

All are called (x [*B, H, D], t [], [*B] or [*B, H], cond None or (values [*B, C], keep [*B, G])) -> [*B, H, out], work
at any horizon, and raise ValueError for sizes out of range and for t or cond of another shape.
"""

from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from jaxdiff.networks.embedding import sinusoidal
from jaxdiff.networks.mlp import torch_uniform
from jaxdiff.networks.resnet import FeedForward
from jaxdiff.networks.sequence import LstmOutputs, num_heads
from jaxdiff.networks.tokens import TokenFeatures, check_sizes, flatten
from jaxdiff.types import Array


def positions(horizon: int, width: int) -> Array:
    """[1, H, W] sines and cosines of 0 .. H - 1, which no horizon exhausts."""
    return sinusoidal(jnp.arange(horizon, dtype=float), width)[None]


def attention(width: int) -> nn.MultiHeadDotProductAttention:
    """Every token attends to every other, without biases."""
    return nn.MultiHeadDotProductAttention(
        num_heads(width), use_bias=False, kernel_init=torch_uniform(), deterministic=True
    )


class Modulation(nn.Module):
    """`num` vectors [N or 1, H or 1, W] linear in silu(features), all 0 at the start."""

    num: int
    width: int

    @nn.compact
    def __call__(self, features: Array) -> list[Array]:
        joined = nn.Dense(self.num * self.width, kernel_init=nn.initializers.zeros)(jax.nn.silu(features))
        return jnp.split(joined, self.num, axis=-1)


def modulated_norm(x: Array, scale: Array, shift: Array) -> Array:
    """(1 + scale) LayerNorm(x) + shift, the norm without parameters. Called inside a compact module."""
    return (1.0 + scale) * nn.LayerNorm(use_scale=False, use_bias=False)(x) + shift


class DitBlock(nn.Module):
    """z <- z + g_1 attention((1 + a_1) norm(z) + b_1),  z <- z + g_2 mlp((1 + a_2) norm(z) + b_2).

    The six vectors a, b, g come from the features, and are 0 at the start: a new block changes nothing.
    """

    width: int

    @nn.compact
    def __call__(self, z: Array, features: Array) -> Array:
        scale, shift, gate, scale_2, shift_2, gate_2 = Modulation(6, self.width)(features)
        z = z + gate * attention(self.width)(modulated_norm(z, scale, shift))
        hidden = nn.Dense(4 * self.width, kernel_init=torch_uniform())(modulated_norm(z, scale_2, shift_2))
        return z + gate_2 * nn.Dense(self.width, kernel_init=torch_uniform())(jax.nn.gelu(hidden))


class Dit(nn.Module):
    """A transformer over the tokens of a trajectory, told time and condition by modulated norms (AdaLN-Zero).

    z = Dense(x) + p_h,   `depth` x DitBlock,   Dense((1 + a) norm(z) + b);  the last layer is 0 at the start

    Heads follow from the width (`num_heads`). Where each token has its own t, each is modulated by its own.

    Reference: Peebles and Xie 2023, arXiv:2212.09748, section 3.2; over a horizon: Dong et al. 2024, arXiv:2406.09509.
    """

    out: int
    width: int = 128
    depth: int = 2
    cond_sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_sizes(self.width, self.cond_sizes, self.depth)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, t: Array, cond: Any) -> Array:
        flat = flatten(x, t, cond, self.cond_sizes)
        features = TokenFeatures(self.width, self.cond_sizes)(flat.t, flat.cond)
        z = nn.Dense(self.width, kernel_init=torch_uniform())(flat.x) + positions(x.shape[-2], self.width)
        for _ in range(self.depth):
            z = DitBlock(self.width)(z, features)
        scale, shift = Modulation(2, self.width)(features)
        answer = nn.Dense(self.out, kernel_init=nn.initializers.zeros)(modulated_norm(z, scale, shift))
        return answer.reshape(*x.shape[:-1], self.out)


class TrajectoryTransformer(nn.Module):
    """A transformer over the tokens of a trajectory, each told time and condition once, at the entrance.

    z = Dense(x) + Dense(features) + p_h
    block   z <- z + attention(LayerNorm(z)),   z <- z + feed_forward(LayerNorm(z))
    end     Dense(LayerNorm(z))

    Reference: Vaswani et al. 2017, arXiv:1706.03762; normalisation first: Xiong et al. 2020, arXiv:2002.04745.
    """

    out: int
    width: int = 128
    depth: int = 2
    cond_sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_sizes(self.width, self.cond_sizes, self.depth)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, t: Array, cond: Any) -> Array:
        flat = flatten(x, t, cond, self.cond_sizes)
        features = TokenFeatures(self.width, self.cond_sizes)(flat.t, flat.cond)
        told = nn.Dense(self.width, kernel_init=torch_uniform())(features) + positions(x.shape[-2], self.width)
        z = nn.Dense(self.width, kernel_init=torch_uniform())(flat.x) + told
        for _ in range(self.depth):
            z = z + attention(self.width)(nn.LayerNorm()(z))
            z = z + FeedForward(self.width)(z)
        return nn.Dense(self.out, kernel_init=torch_uniform())(nn.LayerNorm()(z)).reshape(*x.shape[:-1], self.out)


class TrajectoryLstm(nn.Module):
    """`depth` layers of two LSTMs over the horizon, one from each end, their outputs side by side.

    z = [x_h, features_h],   z <- [forward(z), backward(z)]  (`width` numbers each),   Dense(z)

    Reference: Schuster and Paliwal 1997; Hochreiter and Schmidhuber 1997.
    """

    out: int
    width: int = 128
    depth: int = 1
    cond_sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_sizes(self.width, self.cond_sizes, self.depth)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, t: Array, cond: Any) -> Array:
        flat = flatten(x, t, cond, self.cond_sizes)
        features = TokenFeatures(self.width, self.cond_sizes)(flat.t, flat.cond)
        told = jnp.broadcast_to(features, (*flat.x.shape[:-1], features.shape[-1]))
        z = jnp.concatenate([flat.x, told], axis=-1)
        for _ in range(self.depth):
            z = jnp.concatenate([LstmOutputs(self.width)(z), LstmOutputs(self.width, reverse=True)(z)], axis=-1)
        return nn.Dense(self.out, kernel_init=torch_uniform())(z).reshape(*x.shape[:-1], self.out)
