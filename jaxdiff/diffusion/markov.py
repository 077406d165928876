"""A sampler seen as a Markov chain with Gaussian steps: what policy gradients over the denoising need.

x_{k+1} ~ N(keep_k x_k + pull_k x0_hat(x_k, level_k), std_k**2),   std_k = max(what the table draws, min_std)

Every table of whole steps without history is such a chain: `ddpm`, `ddim`, `euler` and their kin. A floor under the
standard deviation gives deterministic steps a density too, and exploration.

Reference: Black et al. 2023, arXiv:2305.13301, section 4.2; the floor: Ren et al. 2024, arXiv:2409.00588, section 4.3.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from jaxdiff.diffusion.denoiser import Denoiser
from jaxdiff.diffusion.level import Level, expand_to
from jaxdiff.diffusion.solvers.table import Table
from jaxdiff.types import Array

UNROLL_BELOW = 8  # calls; longer chains are scanned


class GaussianSteps(NamedTuple):
    """N steps of a chain, or single ones of them where the leaves have the batch's axes."""

    level: Level  # [N] where the network is called
    keep: Any  # [N] factor of x
    pull: Any  # [N] factor of x0_hat
    std: Any  # [N] of the step's noise, without the floor


def gaussian_steps(table: Table) -> GaussianSteps:
    """The table's rows as Gaussian steps.

    Raises:
      ValueError: a sampler whose steps look further back than x, have inner stages, or learn their variance.
    """
    if table.base is not None or table.noise_max is not None or jnp.shape(table.slopes)[-1] != 1:
        raise ValueError(
            "this sampler's steps are not Gaussian given the last x alone: it has inner stages, a history of "
            "predictions or a learned variance; use ddpm, ddpm_large, ddim or euler."
        )
    slope = table.slopes[..., 0]
    level = jax.tree.map(lambda leaf: leaf[:-1], table.level)
    return GaussianSteps(level, table.anchor + slope * table.slope_x, slope * table.slope_x0, table.noise)


def take_steps(steps: GaussianSteps, index: Any) -> GaussianSteps:
    """The steps at an index: a slice, a number, or an array [*B] that gives every example its own."""
    taken: GaussianSteps = jax.tree.map(lambda leaf: jnp.asarray(leaf)[index], steps)
    return taken


def step_mean(denoise: Denoiser, step: GaussianSteps, x: Array) -> Array:
    """keep x + pull x0_hat [*B, D] of one step, or of a step per example (leaves [] or [*B])."""
    return expand_to(step.keep, x) * x + expand_to(step.pull, x) * denoise(x, step.level)


def step_log_prob(x_next: Array, mean: Array, std: Array) -> Array:
    """log N(x_next; mean, std**2) of each number: [*B, D], in nats. std [] or [*B], > 0."""
    std = expand_to(std, mean)
    return -0.5 * jnp.square((x_next - mean) / std) - jnp.log(std) - 0.5 * np.log(2.0 * np.pi)


def walk(
    denoise: Denoiser, steps: GaussianSteps, x: Array, noise: Array, min_std: ArrayLike = 0.0
) -> tuple[Array, Array]:
    """Goes through the steps with given noise.

    Args:
      denoise: the denoiser.
      steps: N steps.
      x: [*B, D] where the first one starts.
      noise: [N, *B, D] standard normal, or clipped or scaled by the caller.
      min_std: floor under the steps' standard deviations, >= 0; may be traced.

    Returns:
      (states [N + 1, *B, D] the start included, means [N, *B, D]).
    """

    def step(x: Array, row: tuple[GaussianSteps, Array]) -> tuple[Array, tuple[Array, Array]]:
        one, z = row
        mean = step_mean(denoise, one, x)
        x_next = mean + jnp.maximum(one.std, min_std) * z
        return x_next, (x_next, mean)

    count = noise.shape[0]
    rows = (jax.tree.map(jnp.asarray, steps), noise)
    _, (states, means) = jax.lax.scan(step, x, rows, unroll=count if 0 < count < UNROLL_BELOW else 1)
    return jnp.concatenate([x[None], states]), means
