"""What a planner of joint trajectories knows: everyone's past, or an ego's own, in the side-by-side layout [T, A O].

centralised     rows 0 .. C of all agents are given, C being the present
decentralised   rows 0 .. C of the ego are given; of its teammates rows 0 .. C - 1 are given as zeros, which the ego
                cannot know, and from row C on they are predicted (teammate modelling), or stay zeros without it

Reference: Zhu et al. 2024, arXiv:2305.17330 and its code.
"""

import jax
import jax.numpy as jnp

from jaxdiff.algorithms.planner import Known
from jaxdiff.types import Array


def of_everyone(past: Array, horizon: int) -> Known:
    """past [*B, h, A, O] of all agents as the first h of T rows, -> entries [*B, T, A O]."""
    rows = _rows(past, horizon)
    given = (jnp.arange(horizon) < past.shape[-3])[:, None, None]
    return _flat(jnp.broadcast_to(given, rows.shape), rows)


def of_ego(past: Array, ego: Array, num_agents: int, horizon: int, *, teammates: bool) -> Known:
    """The ego's past [*B, h, O] among A agents, -> entries [*B, T, A O].

    Args:
      past: the last h observations of the ego, the present one last.
      ego: [*B] int32, whose they are.
      num_agents: A.
      horizon: T >= h rows.
      teammates: whether teammates are predicted from the present on.
    """
    history = past.shape[-2]
    own = jax.nn.one_hot(ego, num_agents)[..., None, :, None]  # [*B, 1, A, 1]
    rows = _rows(past[..., None, :] * own, horizon)
    row = jnp.arange(horizon)[:, None, None]
    zeros = (row < history - 1) if teammates else (row < horizon)
    given = jnp.where(own > 0, row < history, zeros)
    return _flat(jnp.broadcast_to(given, rows.shape), rows)


def _rows(past: Array, horizon: int) -> Array:
    """[*B, h, A, O] with zeros after it, [*B, T, A, O]."""
    ahead = [(0, 0)] * (past.ndim - 3) + [(0, horizon - past.shape[-3]), (0, 0), (0, 0)]
    return jnp.pad(past, ahead)


def _flat(mask: Array, values: Array) -> Known:
    return Known(jax.lax.collapse(mask, mask.ndim - 2), jax.lax.collapse(values, values.ndim - 2))
