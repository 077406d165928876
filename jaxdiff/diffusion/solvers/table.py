"""A sampler is a table: one row of scalars per network call, one loop for all of them.

Row k, with x where the network is evaluated, q the state at the start of the step, G the last H slopes, newest first:

    m  = denoise(x, level_k)
    G <- (p_k x + r_k m, G_0, ..., G_{H-2})
    x <- a_k q + sum_h b_kh G_h + s_k z_k          z_k standard normal

and q <- x at the end of a step. Solver, eta, order and grid are data in the rows: they may be traced, swept by vmap
and exchanged without compiling again.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxdiff.diffusion.denoiser import Denoiser
from jaxdiff.diffusion.schedules import Level
from jaxdiff.types import Array, Key

UNROLL_BELOW = 17  # a chain this short is unrolled: a scan costs host work per step on GPU, and time on CPU


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["level", "slope_x", "slope_x0", "anchor", "slopes", "noise"],
    meta_fields=["noisy_rows"],
)
@dataclasses.dataclass(frozen=True)
class Table:
    """Coefficients of a sampler with N network calls and H slopes of history."""

    level: Level  # [N] each: where the network is called
    slope_x: Any  # [N] p
    slope_x0: Any  # [N] r
    anchor: Any  # [N] a
    slopes: Any  # [N, H] b
    noise: Any  # [N] s
    noisy_rows: int  # leading rows that draw noise; static. 0: deterministic, no key needed

    @property
    def num_calls(self) -> int:
        return jnp.shape(self.slope_x)[0]


def as_float32(table: Table) -> Table:
    """The finished table as float32 arrays, whatever it was built in."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype=jnp.float32), table)


def sample(
    denoise: Denoiser,
    table: Table,
    x_T: Array,
    key: Key | None = None,
    *,
    temperature: ArrayLike = 1.0,
    grad_steps: int | None = None,
    unroll: bool | None = None,
    remat: bool = False,
) -> Array:
    """Runs a table: from noise x_T [*B, D] to a sample [*B, D].

    Args:
      denoise: (x [*B, D], level []) -> x0_hat [*B, D].
      table: the sampler, see `jaxdiff.diffusion.solvers`.
      x_T: starting point, usually standard normal.
      key: consumed; may be None for a deterministic table.
      temperature: multiplies the injected noise (not x_T); may be traced.
      grad_steps: differentiate through the last so many network calls only; None: all.
      unroll: True for a Python loop, False for `lax.scan`; None: a loop up to 16 calls. Results agree to rounding.
      remat: recompute each call in the backward pass of a scan, which saves memory in long chains.

    Raises:
      ValueError: a stochastic table without a key.
    """
    if key is None and table.noisy_rows:
        raise ValueError(f"this sampler draws noise in {table.noisy_rows} of its steps; pass key=.")
    num_calls = table.num_calls
    cut = 0 if grad_steps is None else num_calls - grad_steps
    history = jnp.shape(table.slopes)[1]
    noises = _draw(key, table, x_T, temperature)

    def step(carry: tuple[Array, ...], row: tuple[Any, ...], noise: Array | None) -> tuple[Array, ...]:
        (level, p, r, a, b, s), (x, *older) = row, carry
        slope = p * x + r * denoise(x, level)
        recent = (slope, *older[: history - 1])
        moved = a * x + sum(b[h] * g for h, g in enumerate(recent))
        return (moved if noise is None else moved + s * noise, *recent[: history - 1])

    rows = (table.level, table.slope_x, table.slope_x0, table.anchor, table.slopes, table.noise)
    carry: tuple[Array, ...] = (x_T, *[jnp.zeros_like(x_T)] * (history - 1))
    if unroll if unroll is not None else num_calls < UNROLL_BELOW:
        for k in range(num_calls):
            if k == cut and k:
                carry = jax.lax.stop_gradient(carry)
            carry = step(carry, jax.tree.map(lambda leaf, k=k: leaf[k], rows), noises[k] if k < table.noisy_rows else None)
        return carry[0]

    padding = jnp.zeros((num_calls - table.noisy_rows, *x_T.shape), x_T.dtype)
    noises = jnp.concatenate([noises, padding]) if table.noisy_rows else None

    def body(carry: tuple[Array, ...], inputs: tuple[Any, Any, Any]) -> tuple[tuple[Array, ...], None]:
        k, row, noise = inputs
        if cut:
            carry = jax.tree.map(lambda c: jnp.where(k < cut, jax.lax.stop_gradient(c), c), carry)
        return step(carry, row, noise), None

    carry, _ = jax.lax.scan(jax.checkpoint(body) if remat else body, carry, (jnp.arange(num_calls), rows, noises))
    return carry[0]


def _draw(key: Key | None, table: Table, x: Array, temperature: ArrayLike) -> Array:
    """Noise of all rows at once [noisy_rows, *B, D]: one generator call instead of N."""
    if not table.noisy_rows or key is None:
        return jnp.zeros((0, *x.shape), x.dtype)
    return temperature * jax.random.normal(key, (table.noisy_rows, *x.shape), x.dtype)


TableBuilder = Callable[..., Table]
