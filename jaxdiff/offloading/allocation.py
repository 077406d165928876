"""How the roadside unit shares its frequency among the queues of its networks: a convex problem with one multiplier."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxdiff.types import Array

NUM_HALVINGS = 60  # of a bracket whose ends differ by K**2 max(gamma) / min(gamma) at most: past float32's last bit


def gamma_exact(v: Array | float, backlog: Array, count: Array, work: Array) -> Array:
    """Weight of 1 / f_k in the objective of a slot: the delays of all tasks of network k at the RSU, times V.

    gamma_k = V (n_k Q_k + W_k + (n_k - 1) W_k / 2)

    Each of the n_k tasks waits for the backlog Q_k, runs its own tail and waits for half of the others' tails; summed,
    every tail is waited for by n_k - 1 others.

    Args:
      v: scalar, above 0, may be traced.
      backlog: [K] Q_k in GFLOP.
      count: [K] n_k, tasks of network k that are sent to the RSU.
      work: [K] W_k, the sum of their tails in GFLOP.

    Reference: Liu et al. 2025, arXiv:2406.06986, eq. 43 expanded.
    """
    return v * (count * backlog + work + 0.5 * (count - 1) * work)


def gamma_paper(v: Array | float, backlog: Array, count: Array, work: Array) -> Array:
    """The weight as the paper prints it, which has the backlog once: V (Q_k + W_k + (n_k - 1) W_k / 2).

    Expanding the paper's own eq. 43 gives n_k Q_k (`gamma_exact`); the two agree where n_k = 1. Printed so, a queue is
    served although nobody is waiting for it in this slot, and too little where many are: f is then not the minimum of
    the slot's objective. Kept for comparison. Arguments as `gamma_exact`.

    Reference: Liu et al. 2025, arXiv:2406.06986, eq. 47.
    """
    return v * (backlog + work + 0.5 * (count - 1) * work)


GAMMAS: dict[str, Callable[[Array | float, Array, Array, Array], Array]] = {"exact": gamma_exact, "paper": gamma_paper}


def allocate(backlog: Array, gamma: Array, total: ArrayLike, slot_seconds: ArrayLike) -> Array:
    """min over f >= 0 of sum_k gamma_k / f_k - Q_k f_k tau, subject to sum_k f_k <= F.

    f_k = sqrt(gamma_k / (eta - Q_k tau)) where gamma_k > 0, with eta > Q_k tau such that sum_k f_k = F. The objective
    falls in every f_k, so all of F is used.

    What the paper leaves out: where gamma_k = 0 (a queue that nobody sends to) the objective is linear in f_k. If such
    a queue is the longest of all and the others ask for less than F at eta = max Q_k tau, they get what they ask for
    and the longest one the rest (several that are as long share it); otherwise queues with gamma_k = 0 get nothing.
    With all gamma 0 the longest queues share F, which is an equal split where all are empty.

    Bisected is the distance of eta to the largest Q_k tau of a queue with gamma_k > 0, not eta itself, whose digits
    are used up by long queues. The result is scaled to sum to F.

    Args:
      backlog: [K] Q_k in GFLOP, at least 0.
      gamma: [K] weight of 1 / f_k, at least 0.
      total: scalar F in GHz, above 0.
      slot_seconds: scalar tau, above 0.

    Returns:
      [K] f in GHz, at least 0, of sum F. Not meant to be differentiated.

    Reference: Liu et al. 2025, arXiv:2406.06986, problem P3 and its KKT conditions (eq. 43 to 47).
    """
    busy = gamma > 0
    pressure = backlog * slot_seconds
    longest_idle = jnp.max(jnp.where(busy, -jnp.inf, pressure))
    longest_busy = jnp.max(jnp.where(busy, pressure, -jnp.inf))
    gap = jnp.where(busy, longest_busy - pressure, 1.0)  # at least 0; eta - Q_k tau = gap_k + distance

    def shares(distance: Array) -> Array:
        return jnp.where(busy, jnp.sqrt(gamma / (gap + distance)), 0.0)

    def halve(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = 0.5 * (low + high)
        too_much = jnp.sum(shares(middle)) > total
        return jnp.where(too_much, middle, low), jnp.where(too_much, high, middle)

    # At `lowest` one queue alone takes F or more, at `highest` each takes F / K or less.
    lowest = jnp.max(jnp.where(busy, gamma / total**2 - gap, 0.0))
    highest = jnp.max(gamma) * (gamma.shape[0] / total) ** 2
    low, high = jax.lax.fori_loop(0, NUM_HALVINGS, halve, (lowest, jnp.maximum(lowest, highest)))
    tight = shares(jnp.where(busy.any(), 0.5 * (low + high), 1.0))
    tight = tight * (total / jnp.where(busy.any(), jnp.sum(tight), 1.0))

    idle_leads = longest_idle > longest_busy  # also where no queue has a gamma
    lead = jnp.where(idle_leads & busy.any(), longest_idle - longest_busy, 1.0)
    asked = shares(lead)
    first = ~busy & (pressure == longest_idle)
    slack = asked + jnp.where(first, (total - jnp.sum(asked)) / jnp.maximum(jnp.sum(first), 1), 0.0)
    return jnp.where(idle_leads & (jnp.sum(asked) <= total), slack, tight)
