"""What every network over trajectories [*B, H, D] does at its door: one batch axis, checks, features of each token."""

import math
from typing import Any, NamedTuple

from flax import linen as nn
import jax.numpy as jnp

from jaxdiff.networks.embedding import check_token_time, sinusoidal
from jaxdiff.networks.mlp import mish, torch_uniform
from jaxdiff.types import Array


class Flat(NamedTuple):
    """A network's arguments with one batch axis, of N = prod(*B)."""

    x: Array  # [N, H, D]
    t: Array  # [N or 1, H or 1]
    cond: tuple[Array, Array] | None  # values [N, C], keep [N, G]


def flatten(x: Array, t: Array, cond: Any, cond_sizes: tuple[int, ...]) -> Flat:
    """Joins the leading axes, so that a normalisation over a trajectory never sees its neighbours.

    Args:
      x: [*B, H, D].
      t: [], [*B], or [*B, H]: one level for each token.
      cond: None, or (values [*B, C], keep [*B, G]) with C = sum(cond_sizes), G = len(cond_sizes).
      cond_sizes: numbers of each group of values.

    Raises:
      ValueError: x without tokens, or t or cond of another shape.
    """
    if x.ndim < 2:
        raise ValueError(f"x has shape {x.shape}; a trajectory has at least two axes, [*B, H, D].")
    check_token_time(x, t)
    check_cond(x, cond, cond_sizes)
    batch, num = x.shape[:-2], math.prod(x.shape[:-2])
    levels = jnp.asarray(t)
    if levels.ndim == x.ndim - 1:
        levels = levels.reshape(num, x.shape[-2])
    else:
        levels = levels.reshape(num if levels.ndim else 1, 1)
    if cond is not None:
        cond = (cond[0].reshape(num, sum(cond_sizes)), cond[1].reshape(num, len(cond_sizes)))
    return Flat(x.reshape(num, *x.shape[len(batch) :]), levels, cond)


def check_cond(x: Array, cond: Any, cond_sizes: tuple[int, ...]) -> None:
    """Raises ValueError unless cond is what a network with these groups reads beside x [*B, H, D]."""
    if cond is None:
        if cond_sizes:
            raise ValueError(
                f"cond=None, and the network has cond_sizes={cond_sizes}; give (values, keep), with keep 0 where a "
                "condition is to be left out."
            )
        return
    if not cond_sizes:
        raise ValueError("cond is given, and the network has cond_sizes=(); give None, or build it with sizes.")
    if not isinstance(cond, tuple) or len(cond) != 2:
        raise ValueError(f"cond is a {type(cond).__name__}; it must be a pair (values [*B, C], keep [*B, G]).")
    given = jnp.shape(cond[0]), jnp.shape(cond[1])
    wanted = (*x.shape[:-2], sum(cond_sizes)), (*x.shape[:-2], len(cond_sizes))
    if given != wanted:
        raise ValueError(
            f"cond has values {given[0]} and keep {given[1]}; for x of shape {x.shape} and "
            f"cond_sizes={cond_sizes} they must be {wanted[0]} and {wanted[1]}."
        )


def check_sizes(width: int, cond_sizes: tuple[int, ...], depth: int = 1) -> None:
    """Raises ValueError unless width can embed time, every group has a number and there is a layer."""
    if width < 4 or width % 2:
        raise ValueError(f"width={width}; it must be even and at least 4, to embed time.")
    if any(size < 1 for size in cond_sizes):
        raise ValueError(f"cond_sizes={cond_sizes}; every group of values must have at least 1 number.")
    if depth < 1:
        raise ValueError(f"depth={depth}; it must be at least 1.")


class TokenFeatures(nn.Module):
    """What a network is told about its tokens beside their values: embed(t), and with conditions a sum beside it.

    embed(t)   Dense_W(mish(Dense_4W(sinusoidal(t))))
    condition  sum_g keep_g MLP_g(values_g),   MLP_g = Dense_W, mish, Dense_4W, mish, Dense_W

    keep_g = 0 removes the group's embedding, not its values, so a dropped condition differs from the value 0.

    t [N or 1, H or 1], cond (values [N, C], keep [N, G]) or None -> [N or 1, H or 1, W], or [.., 2 W] with groups.

    Reference: Janner et al. 2022, arXiv:2205.09991 [code]; conditions: Ajay et al. 2023, arXiv:2211.15657 [code].
    """

    width: int
    cond_sizes: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, t: Array, cond: tuple[Array, Array] | None) -> Array:
        time = mish(nn.Dense(4 * self.width, kernel_init=torch_uniform())(sinusoidal(t, self.width)))
        time = nn.Dense(self.width, kernel_init=torch_uniform())(time)
        if cond is None:
            return time
        values, keep = cond
        total, start = jnp.zeros((values.shape[0], self.width), time.dtype), 0
        for group, size in enumerate(self.cond_sizes):
            hidden = values[:, start : start + size]
            for width in (self.width, 4 * self.width):
                hidden = mish(nn.Dense(width, kernel_init=torch_uniform())(hidden))
            total = total + keep[:, group, None] * nn.Dense(self.width, kernel_init=torch_uniform())(hidden)
            start += size
        shape = (values.shape[0], time.shape[1], self.width)
        return jnp.concatenate([jnp.broadcast_to(time, shape), jnp.broadcast_to(total[:, None], shape)], axis=-1)
