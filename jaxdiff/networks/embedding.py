"""Embeddings of the noise level."""

import math

import jax.numpy as jnp

from jaxdiff.types import Array


def sinusoidal(t: Array, dim: int, *, max_period: float = 1e4) -> Array:
    """Sines and cosines of t at geometric frequencies: [sin(t f_i), cos(t f_i)], f_i = max_period**(-i / (dim/2 - 1)).

    Args:
      t: [*B], any range; Diffusion-QL feeds the step index 0 .. T - 1.
      dim: even, >= 4.
      max_period: ratio of the highest to the lowest frequency.

    Returns:
      [*B, dim] in [-1, 1].

    Raises:
      ValueError: dim odd or below 4.

    Reference: Vaswani et al. 2017, section 3.5, with the endpoint included as in Diffusion-QL's code.
    """
    if dim < 4 or dim % 2:
        raise ValueError(f"time_dim={dim}; it must be even and at least 4.")
    half = dim // 2
    frequency = jnp.exp(-math.log(max_period) / (half - 1) * jnp.arange(half))
    angle = jnp.expand_dims(t, -1) * frequency.reshape((1,) * jnp.ndim(t) + (half,))
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def check_time(x: Array, t: Array) -> None:
    """Raises ValueError unless t is [] or [*B] for x [*B, D]: another shape could broadcast wrongly."""
    if jnp.shape(t) not in ((), x.shape[:-1]):
        raise ValueError(f"t has shape {jnp.shape(t)}; allowed for x of shape {x.shape}: () or {x.shape[:-1]}.")


def check_token_time(x: Array, t: Array) -> None:
    """Raises ValueError unless t is [], [*B] or [*B, H] for x [*B, H, D]: another shape could broadcast wrongly."""
    allowed = ((), x.shape[:-2], x.shape[:-1])
    if jnp.shape(t) not in allowed:
        shapes = ", ".join(str(shape) for shape in dict.fromkeys(allowed))
        raise ValueError(f"t has shape {jnp.shape(t)}; allowed for a trajectory x of shape {x.shape}: {shapes}.")
