"""Values of teams: the sum of the agents' values, and what each agent would choose by its own.

Mixers with parameters are networks (`networks.MIXERS`).
"""

import jax.numpy as jnp

from jaxdiff.types import Array

NEVER = -1e9  # the value of an action that is not allowed; finite, so that no gradient becomes NaN


def vdn(q: Array) -> Array:
    """Q_tot = sum_i q_i: [*B, A] -> [*B].

    Reference: Sunehag et al. 2018, arXiv:1706.05296.
    """
    return jnp.sum(q, axis=-1)


def greedy(q: Array, allowed: Array | None = None) -> tuple[Array, Array]:
    """Each agent's best allowed action, which is the team's wherever the mixer is monotone.

    Args:
      q: [*B, A, n] of n actions.
      allowed: [*B, A, n], 0 where an action is not allowed; None: all are. Every agent must have one.

    Returns:
      (action [*B, A] int32, value [*B, A]).
    """
    q = q if allowed is None else jnp.where(allowed > 0, q, NEVER)
    return jnp.argmax(q, axis=-1).astype(jnp.int32), jnp.max(q, axis=-1)
