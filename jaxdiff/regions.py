"""Where an observation is: boxes of `Spec.regions`, for the environments that score by them and the plans that ask."""

import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxdiff.types import Array, Region


def visited(obs: ArrayLike, region: Region) -> Array:
    """Whether each observation lies in the region, its edges included.

    all_i low_i <= obs_i <= high_i over the region's axes; the numbers of obs after them do not matter.

    Args:
      obs: [*B, O], O at least the region's number of axes D.
      region: box of D numbers.

    Returns:
      [*B] bool.

    Raises:
      ValueError: low and high differ in length, or obs has fewer numbers than they.
    """
    obs, dim = jnp.asarray(obs), len(region.low)
    if len(region.high) != dim or obs.ndim < 1 or obs.shape[-1] < dim:
        raise ValueError(
            f"region {region.name!r} has low of {dim} and high of {len(region.high)} numbers, obs has shape "
            f"{obs.shape}; low and high must be equally long, and no longer than an observation."
        )
    edges = zip(region.low, region.high, strict=True)
    inside = [(low <= obs[..., i]) & (obs[..., i] <= high) for i, (low, high) in enumerate(edges)]
    return jnp.stack(inside).all(axis=0)
